import os
import resource
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from state import durable, lease, recovery
from state.errors import NoSpace, StateError, Superseded
from state.lease import Tenure
from state.manifest import GenerationName, generations
from state.offsets import Offsets
from state.sections import Section
from tests.state.children import die, run_in_child
from tests.state.lives import FINGERPRINT, Life, restored_value, value_of

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


class BlindTenure(Tenure):
    """A writer that was paused just after each of its checks, and never learns."""

    def check(self) -> None:
        pass


def kill_at(step: int, countdown: int = 1) -> object:
    left = [countdown]

    def on_step(reached: int) -> None:
        if reached == step:
            left[0] -= 1
            if left[0] == 0:
                die()

    return on_step


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory / "checkpoints"))


@pytest.mark.parametrize("before", [0, 1, 5])
@pytest.mark.parametrize(
    ("step", "countdown", "survives"),
    [(1, 1, "old"), (2, 1, "old"), (2, 3, "old"), (3, 1, "old"), (4, 1, "old"), (5, 1, "new"),
     (6, 1, "new")],
)  # fmt: skip
def test_a_kill_at_each_step_leaves_the_old_or_the_new_generation_whole(
    tmp_path: Path, before: int, step: int, countdown: int, survives: str
) -> None:
    def body() -> None:
        life = Life(tmp_path)
        for value in range(1, before + 1):
            life.commit(value)
        life.checkpoints._on_step = kill_at(step, countdown)
        life.commit(99)

    assert run_in_child(body) == -signal.SIGKILL
    used = {name.number for name in generations(tmp_path / "checkpoints")}
    life = Life(tmp_path)
    next_name = life.commit(100)
    life.end()

    assert value_of(life.recovered) == (99 if survives == "new" else before or None)
    assert next_name.number not in used
    assert restored_value(tmp_path) == 100
    assert not [name for name in names(tmp_path) if name.endswith(".tmp")]
    assert len(generations(tmp_path / "checkpoints")) <= 3


def test_a_kill_in_the_middle_of_a_part_leaves_the_old_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = Life(tmp_path)
    life.commit(1)
    life.end()

    def body() -> None:
        life = Life(tmp_path)
        durable.write_all = lambda descriptor, view: (os.write(descriptor, view[:7]), die())
        life.commit(2)

    assert run_in_child(body) == -signal.SIGKILL
    assert restored_value(tmp_path) == 1


def test_a_kill_while_dropping_leaves_the_new_generation(tmp_path: Path) -> None:
    def body() -> None:
        life = Life(tmp_path, retain=2)
        life.commit(1)
        life.commit(2)
        durable.shutil.rmtree = die
        life.commit(3)

    assert run_in_child(body) == -signal.SIGKILL
    assert restored_value(tmp_path) == 3
    assert names(tmp_path) == ["0001-000000000002", "0001-000000000003", "CURRENT"]


def test_a_kill_between_a_new_term_and_its_pointer_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = Life(tmp_path)
    life.commit(1)
    life.end()
    monkeypatch.setattr("state.checkpoint.Checkpoints.adopt", die)
    assert run_in_child(lambda: Life(tmp_path)) == -signal.SIGKILL
    monkeypatch.undo()

    assert restored_value(tmp_path) == 1
    assert (tmp_path / "checkpoints" / "CURRENT").read_text() == "0001-000000000001 3\n"


def test_steps_come_in_order_and_each_part_is_durable_before_the_next(tmp_path: Path) -> None:
    steps: list[int] = []
    life = Life(tmp_path, on_step=steps.append)

    life.commit(1)
    life.end()

    assert steps == [1, 2, 2, 2, 3, 4, 5, 6]


def test_a_commit_names_its_term_number_and_parent(tmp_path: Path) -> None:
    life = Life(tmp_path)
    first, second = life.commit(1), life.commit(2)
    life.end()

    assert (first, second) == ((1, 1), (1, 2))
    assert recovery.load(tmp_path, first).manifest.parent is None
    assert recovery.load(tmp_path, second).manifest.parent == first
    assert life.checkpoints.newest == second
    assert (tmp_path / "checkpoints" / "CURRENT").read_text() == "0001-000000000002 1\n"


def test_only_the_newest_generations_are_retained(tmp_path: Path) -> None:
    life = Life(tmp_path, retain=2)
    for value in range(1, 6):
        life.commit(value)
    life.end()

    assert names(tmp_path) == ["0001-000000000004", "0001-000000000005", "CURRENT"]


def test_a_new_owner_points_current_at_what_it_restored_and_collects(tmp_path: Path) -> None:
    old = Life(tmp_path)
    old.commit(1)
    (tmp_path / "checkpoints" / "0001-000000000009.tmp").mkdir()
    old.end()

    new = Life(tmp_path)

    assert (tmp_path / "checkpoints" / "CURRENT").read_text() == "0001-000000000001 2\n"
    assert names(tmp_path) == ["0001-000000000001", "CURRENT"]
    assert new.commit(2) == GenerationName(2, 10)
    new.end()


def test_two_rollbacks_in_a_row_give_no_number_again(tmp_path: Path) -> None:
    life = Life(tmp_path)
    for value in (1, 2, 3):
        life.commit(value)
    life.end()
    for generation in (2, 1):
        life = Life(tmp_path, generation)
        life.end()

    assert life.commit(4) == GenerationName(3, 4)


def test_a_superseded_owner_writes_nothing_and_says_so(tmp_path: Path) -> None:
    old = Life(tmp_path)
    old.commit(1)
    old.end()
    new = Life(tmp_path)
    before = names(tmp_path)

    with pytest.raises(Superseded, match="term 1"):
        old.commit(2)

    assert names(tmp_path) == before
    new.end()


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 6])
def test_an_owner_superseded_during_a_commit_harms_nothing(tmp_path: Path, step: int) -> None:
    old = Life(tmp_path)
    old.commit(1)
    lives = []

    def take_over(reached: int) -> None:
        if reached == step and not lives:
            old.end()
            lives.append(Life(tmp_path))

    old.checkpoints._on_step = take_over
    with pytest.raises(Superseded):
        old.commit(2)
    (new,) = lives
    new.commit(3)
    new.end()

    assert value_of(new.recovered) == (2 if step >= 5 else 1)
    assert restored_value(tmp_path) == 3
    assert not [name for name in names(tmp_path) if name.endswith(".tmp")]


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_an_owner_superseded_before_the_rename_puts_nothing_into_place(
    tmp_path: Path, step: int
) -> None:
    old = Life(tmp_path)
    old.commit(1)
    before = names(tmp_path)

    def begin_newer_term(reached: int) -> None:
        if reached == step and old.tenure.term == max(lease.terms(tmp_path)):
            old.hold.begin_term(old.checkpoints.newest)

    old.checkpoints._on_step = begin_newer_term
    with pytest.raises(Superseded):
        old.commit(2)

    assert names(tmp_path) == before
    old.end()


@pytest.mark.parametrize("commits_of_the_new_owner", [0, 1, 5])
def test_what_a_paused_owner_writes_after_a_take_over_is_void(
    tmp_path: Path, commits_of_the_new_owner: int
) -> None:
    old = Life(tmp_path)
    old.commit(1)
    old.end()
    new = Life(tmp_path)
    for value in range(10, 10 + commits_of_the_new_owner):
        new.commit(value)
    old.checkpoints._tenure = BlindTenure(tmp_path, old.tenure.term, "", None)
    old.checkpoints._collect = lambda: None
    void = old.commit(666)
    new.end()

    assert str(void) in names(tmp_path)
    assert (tmp_path / "checkpoints" / "CURRENT").read_text() == f"{void} 1\n"
    expected = 9 + commits_of_the_new_owner if commits_of_the_new_owner else 1
    assert restored_value(tmp_path) == expected
    assert str(void) not in names(tmp_path)


def test_a_paused_owner_that_points_back_into_the_ancestry_changes_nothing(tmp_path: Path) -> None:
    old = Life(tmp_path)
    old.commit(1)
    old.end()
    new = Life(tmp_path)
    for value in range(2, 9):
        new.commit(value)
    old.checkpoints._tenure = BlindTenure(tmp_path, old.tenure.term, "", None)
    old.checkpoints._pointed = None
    old.checkpoints._point()
    new.end()

    assert (tmp_path / "checkpoints" / "CURRENT").read_text() == "0001-000000000001 1\n"
    assert restored_value(tmp_path) == 8


def test_a_full_disk_leaves_nothing_behind_and_the_next_commit_works(tmp_path: Path) -> None:
    def body() -> None:
        life = Life(tmp_path)
        life.commit(1)
        before = names(tmp_path)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY))
        with pytest.raises(NoSpace, match="no space left"):
            life.commit(2)
        assert names(tmp_path) == before
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        life.commit(3)

    assert run_in_child(body) == 0
    assert restored_value(tmp_path) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_small_disk_that_is_really_full_keeps_the_old_generation(tmp_path: Path) -> None:
    if os.system(f"mount -t tmpfs -o size=256k tmpfs {tmp_path} 2>/dev/null"):
        pytest.skip("this machine does not let us mount a small disk")
    try:
        life = Life(tmp_path)
        life.commit(1)
        before = names(tmp_path)
        with suppress(OSError):
            (tmp_path / "other").write_bytes(b"x" * 10**6)
        with pytest.raises(NoSpace, match="no space left"):
            life.commit(2)
        left = names(tmp_path)
        (tmp_path / "other").unlink()
        life.commit(3)
        life.end()
        restored = restored_value(tmp_path)
    finally:
        os.system(f"umount {tmp_path}")

    assert left == before
    assert restored == 3


def test_a_pointer_that_could_not_be_written_is_written_by_the_next_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = Life(tmp_path)

    def refuse(path: Path, content: bytes) -> None:
        raise NoSpace(path)

    monkeypatch.setattr(durable, "write", refuse)
    for _ in range(3):
        with pytest.raises(NoSpace):
            life.commit(1)
    as_left = restored_copy(tmp_path, life)
    monkeypatch.undo()
    life.commit(2)
    life.end()

    assert as_left == 1
    assert restored_value(tmp_path) == 2


def restored_copy(directory: Path, life: Life) -> int | None:
    copy = Path(shutil.copytree(directory, directory.with_name(directory.name + "-copy")))
    return value_of(recovery.newest(copy, FINGERPRINT))


def test_values_that_are_no_json_leave_nothing_behind(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.commit(1)
    before = names(tmp_path)
    fields = {"fingerprint": FINGERPRINT, "settings": {}, "created_ms": 0}

    with pytest.raises(ValueError, match="JSON"):
        life.checkpoints.commit({}, offsets=Offsets(), facts={"at": float("nan")}, **fields)
    sections = {"good": Section(), "bad": Section(values={"at": float("nan")})}
    with pytest.raises(ValueError, match="JSON"):
        life.checkpoints.commit(sections, offsets=Offsets(), facts={}, **fields)

    assert names(tmp_path) == before
    life.end()


def test_a_directory_that_vanished_is_told_in_one_line(tmp_path: Path) -> None:
    life = Life(tmp_path / "state")
    life.end()
    shutil.rmtree(tmp_path / "state")
    (tmp_path / "state").write_bytes(b"")

    with pytest.raises(StateError) as raised:
        life.commit(1)

    assert "\n" not in str(raised.value)


class Generations(RuleBasedStateMachine):
    """Commits, kills, take-overs and paused owners against a list of what must be there."""

    @initialize()
    def start(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="generations-"))
        self.model: list[tuple[GenerationName, int]] = []  # the ancestry, oldest first
        self.damaged: set[GenerationName] = set()
        self.used: set[int] = set()
        self.paused: list[Life] = []
        self.last_value = 0
        self.life = Life(self.directory)

    def next_value(self) -> int:
        self.last_value += 1
        return self.last_value

    def record(self, name: GenerationName, value: int) -> None:
        assert name.number not in self.used
        self.used.add(name.number)
        self.model = [*self.model[-2:], (name, value)]  # as many as are retained

    def whole(self) -> list[tuple[GenerationName, int]]:
        return [entry for entry in self.model if entry[0] not in self.damaged]

    def go_on(self, generation: int | None = None) -> None:
        self.life = Life(self.directory, generation)
        if generation is None and self.model:
            while self.model[-1][0] in self.damaged:
                self.model.pop()
        assert value_of(self.life.recovered) == (self.model[-1][1] if self.model else None)
        if self.life.recovered is not None:
            assert self.life.recovered.name == self.model[-1][0]

    @rule()
    def commit(self) -> None:
        value = self.next_value()
        self.record(self.life.commit(value), value)

    @rule(step=st.integers(1, 6))
    def die_at(self, step: int) -> None:
        value = self.next_value()

        def body() -> None:
            self.life.checkpoints._on_step = kill_at(step)
            self.life.commit(value)

        assert run_in_child(body) == -signal.SIGKILL
        self.life.end()
        if step >= 5:
            number = self.life.checkpoints._last_number + 1
            self.record(GenerationName(self.life.tenure.term, number), value)
        self.go_on()

    @rule()
    def die_idle(self) -> None:
        self.life.end()
        self.go_on()

    @rule()
    def die_taking_over(self) -> None:
        self.life.end()

        def body() -> None:
            durable.write = die
            Life(self.directory)

        assert run_in_child(body) == (-signal.SIGKILL if self.model else 0)
        self.go_on()

    @precondition(lambda self: len(self.paused) < 3)
    @rule()
    def pause_and_take_over(self) -> None:
        self.life.end()
        self.paused.append(self.life)
        self.go_on()

    @precondition(lambda self: self.paused)
    @rule(data=st.data(), blind=st.booleans())
    def a_paused_owner_goes_on(self, data: st.DataObject, blind: bool) -> None:
        old = data.draw(st.sampled_from(self.paused))
        if not blind:
            with pytest.raises(Superseded):
                old.commit(self.next_value())
            return
        old.checkpoints._tenure = BlindTenure(self.directory, old.tenure.term, "", None)
        collect = old.checkpoints._collect
        if data.draw(st.booleans()):
            old.checkpoints._collect = lambda: None
        old.commit(self.next_value())
        old.checkpoints._tenure = old.tenure
        old.checkpoints._collect = collect
        if data.draw(st.booleans()):
            self.die_idle()

    @precondition(lambda self: len(self.whole()) >= 2 and self.model[-1] in self.whole())
    @rule(data=st.data())
    def damage_the_newest(self, data: st.DataObject) -> None:
        name = self.model[-1][0]
        part = data.draw(st.sampled_from(["manifest.json", "shard-000.safetensors"]))
        path = self.directory / "checkpoints" / str(name) / part
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 0x80
        path.write_bytes(content)
        self.damaged.add(name)
        if data.draw(st.booleans()):
            self.die_idle()

    @precondition(lambda self: len(self.whole()) >= 2)
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.whole()))[0]
        self.life.end()
        self.model = [entry for entry in self.model if entry[0].number <= name.number]
        self.go_on(name.number)

    def teardown(self) -> None:
        self.die_idle()
        self.life.end()
        shutil.rmtree(self.directory)


Generations.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestGenerations = Generations.TestCase
