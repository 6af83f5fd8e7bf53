"""Who takes over from a process that may go on leaves nothing behind whose commit has returned."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from state import lease, recovery, succession
from state.errors import DirectoryTaken, StateError, Superseded
from state.lease import Hold
from tests.state.lives import FINGERPRINT, Life, restored_value, value_of


@pytest.fixture
def paused(tmp_path: Path) -> Iterator[Life]:
    life = Life(tmp_path)
    life.commit(1)
    yield life
    life.end()


def overtake(directory: Path) -> Hold:
    sign = lease.last_sign(directory)
    assert sign is not None
    return lease.overtake(directory, sign)


def when_begun(monkeypatch: pytest.MonkeyPatch, act: object) -> None:
    """Do `act` just before the next term begins."""
    begin = Hold.begin_term

    def begin_later(hold: Hold, restored: object) -> object:
        monkeypatch.undo()
        act()
        return begin(hold, restored)

    monkeypatch.setattr(Hold, "begin_term", begin_later)


def test_a_contested_directory_is_gone_on_from_where_it_stands(
    tmp_path: Path, paused: Life
) -> None:
    new = Life(tmp_path, hold=overtake(tmp_path))

    assert value_of(new.recovered) == 1
    assert new.tenure.term == 2
    with pytest.raises(Superseded):
        paused.commit(2)
    new.commit(3)
    new.end()
    assert restored_value(tmp_path) == 3


@pytest.mark.parametrize("n_commits", [1, 2, 5])
def test_a_commit_that_returned_before_the_term_began_is_gone_on_from(
    tmp_path: Path, paused: Life, monkeypatch: pytest.MonkeyPatch, n_commits: int
) -> None:
    """It comes while we read, from a process that renews its lease too late to be seen."""

    def go_on() -> None:
        for value in range(2, 2 + n_commits):
            paused.commit(value)

    when_begun(monkeypatch, go_on)
    new = Life(tmp_path, hold=overtake(tmp_path))

    assert value_of(new.recovered) == 1 + n_commits
    assert new.tenure.term == 3
    new.commit(10)
    new.end()
    assert restored_value(tmp_path) == 10


def test_a_commit_that_came_is_not_gone_on_from_where_a_generation_was_named(
    tmp_path: Path, paused: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    when_begun(monkeypatch, lambda: paused.commit(2))
    new = Life(tmp_path, generation=1, hold=overtake(tmp_path))

    assert value_of(new.recovered) == 1
    new.end()
    assert restored_value(tmp_path) == 1


def test_what_is_collected_while_it_is_read_is_read_anew(
    tmp_path: Path, paused: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = recovery.newest

    def read_too_late(*arguments: object) -> object:
        monkeypatch.undo()
        for value in range(2, 7):
            paused.commit(value)
        message = "what was there is gone"
        raise StateError(message)

    assert newest is recovery.newest
    monkeypatch.setattr(recovery, "newest", read_too_late)
    new = Life(tmp_path, hold=overtake(tmp_path))

    assert value_of(new.recovered) == 6
    new.end()


def test_a_fault_that_is_nobodys_is_told(
    tmp_path: Path, paused: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoints" / "CURRENT").write_bytes(b"")

    with pytest.raises(StateError, match="CURRENT"):
        succession.succeed(tmp_path, overtake(tmp_path), FINGERPRINT)

    paused.hold.renew()


def test_a_process_that_gives_a_sign_while_we_read_keeps_its_directory(
    tmp_path: Path, paused: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    when_begun(monkeypatch, paused.hold.renew)

    with pytest.raises(DirectoryTaken):
        Life(tmp_path, hold=overtake(tmp_path))

    paused.commit(2)
    assert lease.terms(tmp_path) == [1]


@pytest.mark.parametrize("step", [4, 5, 6])
def test_a_commit_that_returns_is_never_void(tmp_path: Path, paused: Life, step: int) -> None:
    """A take-over falls between any two of its acts: it returns, or is not told to have."""
    lives: list[Life] = []

    def taken_over(reached: int) -> None:
        if reached == step:
            lives.append(Life(tmp_path, hold=overtake(tmp_path)))

    paused.checkpoints._on_step = taken_over
    with pytest.raises(Superseded):
        paused.commit(2)

    (new,) = lives
    assert value_of(new.recovered) == (1 if step == 4 else 2)
    new.end()
