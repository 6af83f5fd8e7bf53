"""Kills and pauses before each act of a commit, a start and a publication.

A paused process is superseded by a standby and then goes on: it has to notice, and to harm
nothing of what the standby has done and does. A killed one leaves what the table "If we die here"
in ARCHITECTURE.md says.
"""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from state import lease
from state.errors import DirectoryTaken, Superseded
from state.lease import Hold
from state.manifest import GenerationName
from state.versions import open_version, read_current, versions
from tests.state.catalogue import Publisher
from tests.state.children import start_child, stop_before_act, wait, wait_until_stopped
from tests.state.lives import Life, restored_value, value_of

pytestmark = [
    pytest.mark.crash,
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

NOTICED = 4
ENOUGH = 200
IN_MEMORY = Path("/dev/shm")  # where there is one: a kill and a pause need no disk, which is slow

COMMITS = [
    pytest.param(0, marks=pytest.mark.slow),
    1,
    pytest.param(4, marks=pytest.mark.slow),
]
STARTED: list[int] = []


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Yield a directory, and end what is left of its processes."""
    if IN_MEMORY.is_dir():
        with tempfile.TemporaryDirectory(dir=IN_MEMORY, prefix="livevec-") as directory:
            yield Path(directory)
    else:
        yield tmp_path
    for child in STARTED:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            wait(child)
    STARTED.clear()


def child_that(act: Callable[[], object], n: int, number: signal.Signals) -> int:
    """Start a child that does `act`, and sends itself `number` before the n-th act on the disk."""

    def body() -> None:
        stop_before_act(n, number)
        try:
            act()
        except (Superseded, DirectoryTaken):
            os._exit(NOTICED)

    STARTED.append(start_child(body))
    return STARTED[-1]


def overtake(directory: Path) -> Hold:
    sign = lease.last_sign(directory)
    return lease.hold(directory) if sign is None else lease.overtake(directory, sign)


def resumed(child: int) -> int:
    os.kill(child, signal.SIGCONT)
    return wait(child)


def lived(directory: Path, commits: int) -> Life:
    life = Life(directory)
    for value in range(1, commits + 1):
        life.commit(value)
    return life


@pytest.mark.parametrize("commits", COMMITS)
def test_a_commit_that_is_paused_before_any_act_and_superseded_harms_nothing(
    place: Path, commits: int
) -> None:
    survivors = []
    for n in range(1, ENOUGH):
        directory = place / str(n)
        child = child_that(lambda d=directory: lived(d, commits).commit(99), n, signal.SIGSTOP)
        if (ended := wait_until_stopped(child)) is not None:
            assert ended == 0
            break
        if lease.last_sign(directory) is None:  # no term yet: an ordinary start is quicker
            new = Life(directory)
        else:
            new = Life(directory, hold=overtake(directory))
        new.commit(100)

        assert resumed(child) == NOTICED, f"before act {n}"
        assert new.commit(101).term == new.tenure.term
        new.end()
        survivors.append(value_of(new.recovered))
        assert restored_value(directory) == 101
        assert not list((directory / "checkpoints").glob("*.tmp"))
        assert len(list((directory / "checkpoints").glob("0*"))) <= 3
    assert n > 30 + 10 * commits
    assert survivors == sorted(survivors, key=lambda value: value or 0)
    assert survivors[-1] == 99


@pytest.mark.parametrize("commits", COMMITS)
def test_a_kill_before_any_act_leaves_the_newest_commit_that_returned_or_the_one_under_way(
    place: Path, commits: int
) -> None:
    told, returned = os.pipe()
    write = os.write  # not an act of ours
    survivors = []
    for n in range(1, ENOUGH):
        directory = place / str(n)

        def life(directory: Path = directory) -> None:
            one = Life(directory)
            for value in range(1, commits + 2):
                one.commit(value)
                write(returned, bytes([value]))

        child = child_that(life, n, signal.SIGKILL)
        ended = wait(child)
        os.write(returned, b"\xff")
        newest = max([0, *os.read(told, 100)[:-1]])
        if ended == 0:
            break
        assert ended == -signal.SIGKILL

        new = Life(directory)
        assert (value_of(new.recovered) or 0) in (newest, newest + 1), f"before act {n}"
        survivors.append(value_of(new.recovered) or 0)
        new.commit(100)
        new.end()
        assert restored_value(directory) == 100
        assert not list((directory / "checkpoints").glob("*.tmp"))
    assert n > 30 + 10 * commits
    assert survivors == sorted(survivors)
    os.close(told)
    os.close(returned)


def test_a_start_that_is_paused_before_any_act_and_superseded_harms_nothing(
    place: Path,
) -> None:
    for n in range(1, ENOUGH):
        directory = place / str(n)
        lived(directory, 4).end()
        (directory / "checkpoints" / "0001-000000000009.tmp").mkdir()
        child = child_that(lambda d=directory: Life(d).commit(99), n, signal.SIGSTOP)
        if (ended := wait_until_stopped(child)) is not None:
            assert ended == 0
            break
        new = Life(directory, hold=overtake(directory))
        new.checkpoints._on_step = _resume_at_4(child)
        new.commit(100)

        assert wait(child) == NOTICED, f"before act {n}"
        new.commit(101)
        new.end()
        assert restored_value(directory) == 101
        assert not list((directory / "checkpoints").glob("*.tmp"))
    assert n > 30


def _resume_at_4(child: int) -> Callable[[int], None]:
    """Let the child go on, and come to its end, while ours is written and not yet in place."""

    gone_on = []

    def on_step(step: int) -> None:
        if step == 4 and not gone_on:
            gone_on.append(child)
            os.kill(child, signal.SIGCONT)
            os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)

    return on_step


@pytest.mark.parametrize(
    ("restored", "is_published"),
    [
        (2, False),
        pytest.param(2, True, marks=pytest.mark.slow),
        pytest.param(3, False, marks=pytest.mark.slow),
        pytest.param(3, True, marks=pytest.mark.slow),
    ],
)
def test_a_publication_that_is_paused_before_any_act_and_superseded_harms_nothing(
    place: Path, restored: int, is_published: bool
) -> None:
    for n in range(1, ENOUGH):
        directory = place / str(n)
        first = Publisher(directory, retain=2)
        first.publish(1)
        first.hold.release()

        def publish(directory: Path = directory) -> None:
            publisher = Publisher(directory, GenerationName(1, 1), retain=2)
            for number in (2, 3):
                publisher.publish(number)

        child = child_that(publish, n, signal.SIGSTOP)
        if (ended := wait_until_stopped(child)) is not None:
            assert ended == 0
            break
        hold = overtake(directory)
        base = GenerationName(2, restored) if hold.predecessor == 2 else GenerationName(1, 1)
        new = Publisher(directory, base, retain=2, hold=hold)
        kept = new.publish(7) if is_published else served(new)
        assert kept is not None

        assert resumed(child) == NOTICED, f"before act {n}"
        newest = served(new)
        if newest != kept:  # the last that it published, from a generation that counts
            assert not is_published
            assert newest.term == generation_of(new).term == 2
            assert generation_of(new).number <= restored
        final = new.publish(8)
        assert served(new) == final
        new.hold.release()
        last = Publisher(directory, GenerationName(new.tenure.term, 8), retain=2)
        assert served(last) == final
        assert len(versions(last.published)) <= 2
        assert not list(last.published.glob("*.tmp"))
        last.hold.release()
    assert n > 60


def served(publisher: Publisher) -> object:
    """Return what a service would open, having opened it."""
    name = read_current(publisher.published)
    if name is not None:
        assert open_version(publisher.published, name, "ivf").name == name
    return name


def generation_of(publisher: Publisher) -> GenerationName:
    name = read_current(publisher.published)
    version = open_version(publisher.published, name, "ivf")
    return GenerationName.parse(version.manifest["generation"])
