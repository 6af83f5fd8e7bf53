"""A power cut after any act on the disk leaves a generation that counts, whole.

The acts of a scenario are recorded and replayed without what was not synced (`tests/state/disk`).
What a start finds then is at least as new as the last commit that had returned. Each fsync on the
way is left out once, to see that the model notices.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from state import lease, recovery
from state.append_log import AppendLog
from state.errors import StateError, Superseded
from state.manifest import GenerationName
from state.versions import open_version, read_current
from tests.state.catalogue import Publisher
from tests.state.disk import Planted, Recording, Survival, laid_out, left_by_a_power_cut
from tests.state.lives import FINGERPRINT, Life, value_of

IN_MEMORY = Path("/dev/shm")  # where there is one: the disk is a model
FEW, MANY = ("none", 1), ("none", "all", *range(40))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    if not IN_MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=IN_MEMORY, prefix="livevec-") as directory:
        yield Path(directory)


def record(place: Path, scenario: Callable[[Recording], None], planted: Planted) -> Recording:
    (place / "state").mkdir()
    recording = Recording(place / "state")
    with recording.on(planted):
        scenario(recording)
    return recording


def cut_everywhere(
    place: Path,
    recording: Recording,
    kinds: tuple[str | int, ...],
    check: Callable[[Path, list], object],
) -> Iterator[str]:
    """Start after a cut behind each act, and yield what is wrong; equal disks are tried once."""
    seen = set()
    for n, (marks, top) in enumerate(recording.cuts()):
        for kind in kinds:
            survival = Survival(kind if isinstance(kind, str) else 1000 * n + kind)
            contents = left_by_a_power_cut(top, survival)
            key = (tuple(contents.items()), tuple(marks[-2:]))
            if key in seen:
                continue
            seen.add(key)
            directory = laid_out(contents, place / "after")
            try:
                check(directory, marks)
            except (StateError, AssertionError) as error:
                yield f"after act {n}, {kind} kept: {type(error).__name__}: {error}"
            finally:
                shutil.rmtree(directory)


def commits(recording: Recording) -> None:
    """First commits, later ones that drop others, a start, and a take-over from a paused one."""

    def commit(life: Life, value: int) -> None:
        recording.mark(("begun", value))
        life.commit(value)
        recording.mark(("returned", value))

    first = Life(recording.root, retain=2)
    for value in (1, 2, 3):
        commit(first, value)
    first.end()
    second = Life(recording.root, retain=2)
    commit(second, 6)
    sign = lease.last_sign(recording.root)
    assert sign is not None
    third = Life(recording.root, retain=2, hold=lease.overtake(recording.root, sign))
    for value in (7, 8):
        commit(third, value)
    second.end()
    third.end()


def check_generation(directory: Path, marks: list) -> None:
    returned = max((value for what, value in marks if what == "returned"), default=0)
    under_way = max((value for what, value in marks if what == "begun"), default=0)
    life = Life(directory, retain=2)
    try:
        value = value_of(life.recovered) or 0
        assert value in (returned, under_way), f"found {value}, {returned} had returned"
        life.commit(100)
    finally:
        life.end()
    assert value_of(recovery.newest(directory, FINGERPRINT)) == 100


def publications(recording: Recording) -> None:
    """First versions, later ones that drop others, and a start that withdraws one."""

    def publish(publisher: Publisher, number: int) -> None:
        recording.mark(("begun", number))
        publisher.publish(number)
        recording.mark(("returned", number))

    first = Publisher(recording.root, retain=2)
    for number in (1, 2, 3):
        publish(first, number)
    first.hold.release()
    second = Publisher(recording.root, GenerationName(1, 3), retain=2)
    publish(second, 4)
    second.hold.release()


def check_version(directory: Path, marks: list) -> None:
    returned = max((number for what, number in marks if what == "returned"), default=0)
    under_way = max((number for what, number in marks if what == "begun"), default=0)
    assert served(directory / "published") in (returned, under_way), "before the next start"
    term = max(lease.terms(directory), default=0)
    restored = None if term == 0 else GenerationName(2 if under_way == 4 else 1, under_way or 1)
    again = Publisher(directory, restored, retain=2)
    assert served(again.published) in (returned, under_way)
    assert (again.publications.newest_manifest() is None) == (served(again.published) == 0)
    again.publish(9)
    assert served(again.published) == 9
    again.hold.release()


def served(published: Path) -> int:
    """Return the generation of the version that a service would open, 0 when there is none."""
    try:
        name = read_current(published)
    except Superseded:
        return 0
    if name is None:
        return 0
    manifest = open_version(published, name, "ivf").manifest
    return GenerationName.parse(manifest["generation"]).number


def letters(recording: Recording) -> None:
    """What a life appends, a restore that cuts back, and a take-over that copies."""

    def sync(log: AppendLog, content: bytes) -> None:
        for begin in range(0, len(content), 3):
            log.append(content[begin : begin + 3])
        recording.mark(("begun", 0))
        recording.mark(("returned", log.sync()))

    path = recording.root / "letters"
    log = AppendLog(path)
    sync(log, b"0123456789")
    sync(log, b"abcdef")
    log.append(b"lost")
    log.close()
    log = AppendLog(path)
    log.truncate_to(16)
    sync(log, b"ghij")
    log.append(b"lost")
    log.close()
    log = AppendLog(path)
    log.replace_by_copy(20)
    sync(log, b"klmnop")
    log.close()


def check_letters(directory: Path, marks: list) -> None:
    returned = max((length for what, length in marks if what == "returned"), default=0)
    path = directory / "letters"
    found = path.read_bytes()[:returned] if path.exists() else b""
    assert found == b"0123456789abcdefghijklmnop"[:returned]
    log = AppendLog(path)
    assert log.truncate_to(returned)
    log.close()
    assert path.read_bytes() == found


def nothing(callers: list[str], path: Path) -> bool:
    return False


SCENARIOS = [
    pytest.param(commits, check_generation, id="commits"),
    pytest.param(publications, check_version, id="publications"),
    pytest.param(letters, check_letters, id="letters"),
]


@pytest.mark.parametrize(
    "kinds", [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("scenario", "check"), SCENARIOS)
def test_a_power_cut_after_any_act_loses_nothing_that_had_returned(
    place: Path, scenario: Callable, check: Callable, kinds: tuple
) -> None:
    recording = record(place, scenario, nothing)

    assert list(cut_everywhere(place, recording, kinds, check)) == []
    assert len(recording.acts) > 15


def of(*wanted: str) -> Planted:
    """Leave out the fsyncs for which these functions asked, the nearest first."""
    return lambda callers, path: tuple(callers[: len(wanted)]) == wanted


PLANTED = [
    pytest.param(commits, check_generation, of("_create"), id="parts"),
    pytest.param(commits, check_generation, of("sync_directory"), id="every directory"),
    pytest.param(commits, check_generation, of("sync_directory", "make_directory"), id="mkdir"),
    pytest.param(commits, check_generation, of("sync_directory", "create_locked"), id="terms"),
    pytest.param(
        commits,
        check_generation,
        lambda callers, path: callers[1] == "rename_directory" and path.name.endswith(".tmp"),
        id="names of parts",
    ),
    pytest.param(
        commits,
        check_generation,
        lambda callers, path: callers[1] == "rename_directory" and path.name == "checkpoints",
        id="the generation's name",
    ),
    pytest.param(publications, check_version, of("_create"), id="parts of a version"),
    pytest.param(publications, check_version, of("sync_directory"), id="names of versions"),
    pytest.param(letters, check_letters, of("sync"), id="letters"),
    pytest.param(letters, check_letters, of("sync_directory", "__init__"), id="letters' name"),
    pytest.param(letters, check_letters, of("_create"), id="copied letters"),
]


@pytest.mark.parametrize(("scenario", "check", "planted"), PLANTED)
def test_an_fsync_that_is_left_out_is_noticed(
    place: Path, scenario: Callable, check: Callable, planted: Planted
) -> None:
    recording = record(place, scenario, planted)

    assert next(cut_everywhere(place, recording, ("none", *range(12)), check), None) is not None


def test_what_is_recorded_is_what_is_on_the_disk(place: Path) -> None:
    recording = record(place, commits, nothing)
    *_, (_, top) = recording.cuts()
    there = {
        str(path.relative_to(recording.root)): path.read_bytes() if path.is_file() else None
        for path in sorted(recording.root.rglob("*"))
    }

    assert left_by_a_power_cut(top, Survival("all")) == there
    assert os.listdir(recording.root / "checkpoints")
