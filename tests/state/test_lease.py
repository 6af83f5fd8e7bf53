import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state import durable, lease
from state.errors import DamagedPointer, DirectoryTaken, StateError, Superseded
from state.lease import Lineage
from state.manifest import GenerationName
from tests.state.children import die, run_in_child, start_child, wait

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def _start_and_wait_forever(directory: Path, ready: int) -> None:
    lease.hold(directory).begin_term(None)
    os.write(ready, b"!")
    while True:
        time.sleep(60)


def test_a_second_start_is_refused_while_the_first_lives_and_not_after_its_kill(
    tmp_path: Path,
) -> None:
    readable, ready = os.pipe()
    child = start_child(lambda: _start_and_wait_forever(tmp_path, ready))
    os.read(readable, 1)

    with pytest.raises(DirectoryTaken, match=f"term 1, pid {child};"):
        lease.hold(tmp_path)
    os.kill(child, 9)
    wait(child)
    held = lease.hold(tmp_path)

    assert held.begin_term(None).term == 2
    held.release()
    os.close(readable)
    os.close(ready)


def test_a_start_that_has_not_begun_its_term_holds_the_directory_too(tmp_path: Path) -> None:
    first = lease.hold(tmp_path)
    first.begin_term(None)
    first.release()

    second = lease.hold(tmp_path)
    with pytest.raises(DirectoryTaken, match="term 1"):
        lease.hold(tmp_path)

    second.release()
    second.release()
    lease.hold(tmp_path).release()


@pytest.mark.parametrize("earlier_terms", [0, 1])
def test_of_several_starters_exactly_one_wins(tmp_path: Path, earlier_terms: int) -> None:
    for _ in range(earlier_terms):
        held = lease.hold(tmp_path)
        held.begin_term(None)
        held.release()
    gate, opened = os.pipe()
    over, ended = os.pipe()

    def race() -> None:
        os.close(opened)
        os.close(ended)
        os.read(gate, 1)
        try:
            lease.hold(tmp_path).begin_term(None)
        except DirectoryTaken:
            os._exit(4)
        os.read(over, 1)  # the winner lives until all have tried

    children = [start_child(race) for _ in range(6)]
    os.close(opened)
    lost = [wait_for_any(children) for _ in range(5)]
    os.close(ended)
    won = [wait_for_any(children)]

    assert lost == [4] * 5
    assert won == [0]
    assert lease.terms(tmp_path) == list(range(1, earlier_terms + 2))
    os.close(gate)
    os.close(over)


def wait_for_any(children: list[int]) -> int:
    child, status = os.waitpid(-1, 0)
    assert child in children
    return os.waitstatus_to_exitcode(status)


def test_a_term_is_locked_before_it_can_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    link = os.link

    def watched(source: Path, target: Path) -> None:
        link(source, target)
        with pytest.raises(DirectoryTaken):
            lease.hold(tmp_path)
        seen.append(target.name)

    monkeypatch.setattr(os, "link", watched)
    held = lease.hold(tmp_path)
    held.begin_term(None)

    assert seen == ["0001"]
    held.release()


def test_a_starter_that_saw_no_term_does_not_follow_a_quicker_one(tmp_path: Path) -> None:
    slow, quick = lease.hold(tmp_path), lease.hold(tmp_path)
    quick.begin_term(None)

    with pytest.raises(DirectoryTaken, match=f"term 1, pid {os.getpid()}"):
        slow.begin_term(None)

    assert lease.terms(tmp_path) == [1]
    quick.release()


def test_a_start_that_locks_a_term_too_late_sees_the_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = lease.hold(tmp_path)
    quick.begin_term(None)
    lock = durable.lock

    def paused_before(path: Path) -> int | None:
        monkeypatch.undo()
        quick.begin_term(None)
        return lock(path)

    monkeypatch.setattr(durable, "lock", paused_before)
    with pytest.raises(DirectoryTaken, match="term 2"):
        lease.hold(tmp_path)

    quick.release()


def test_a_kill_while_a_term_is_made_leaves_no_term(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", die)

    assert run_in_child(lambda: lease.hold(tmp_path).begin_term(None)) == -9

    assert lease.terms(tmp_path) == []
    lease.hold(tmp_path).release()


def test_a_term_says_what_it_restored_and_who_began_it(tmp_path: Path) -> None:
    held = lease.hold(tmp_path)
    held.begin_term(None)
    (tmp_path / "checkpoints" / "0001-000000000007").mkdir(parents=True)
    (tmp_path / "checkpoints" / "0001-000000000009.tmp").mkdir()
    tenure = held.begin_term(GenerationName(1, 7))
    held.release()

    line = json.loads((tmp_path / "terms" / "0002").read_bytes())
    assert line == {
        "restored": "0001-000000000007",
        "last_number": 9,
        "pid": os.getpid(),
        "run": tenure.run,
    }
    assert re.fullmatch("[0-9a-f]{8}", tenure.run)
    assert Lineage.read(tmp_path) == Lineage({1: None, 2: GenerationName(1, 7)})


def test_a_tenure_ends_when_a_newer_term_exists(tmp_path: Path) -> None:
    held = lease.hold(tmp_path)
    old = held.begin_term(None)
    old.check()
    new = held.begin_term(None)

    with pytest.raises(Superseded, match=r"term 1 .* superseded by term 2"):
        old.check()

    new.check()
    held.release()


@pytest.mark.parametrize("is_made_anew", [False, True])
def test_a_tenure_ends_when_its_state_directory_is_removed(
    tmp_path: Path, is_made_anew: bool
) -> None:
    directory = tmp_path / "state"
    held = lease.hold(directory)
    tenure = held.begin_term(None)
    tenure.check()
    shutil.rmtree(directory)
    other = lease.hold(directory) if is_made_anew else None
    if other is not None:
        newer = other.begin_term(None)
        assert newer.term == tenure.term
        newer.check()

    with pytest.raises(Superseded, match=r"terms/0001': .*; .* stop this process") as raised:
        tenure.check()

    assert "\n" not in str(raised.value)
    held.release()
    if other is not None:
        other.release()


def test_a_renewal_changes_the_sign_of_life_of_its_own_term_alone(tmp_path: Path) -> None:
    assert lease.last_sign(tmp_path) is None
    old, new = lease.hold(tmp_path), lease.hold(tmp_path)
    old.renew()  # nothing is there to be renewed
    old.begin_term(None)
    before = lease.last_sign(tmp_path)

    old.renew()
    after = lease.last_sign(tmp_path)
    new = lease.overtake(tmp_path, after)
    new.begin_term(None)
    of_the_newer = lease.last_sign(tmp_path)
    old.renew()

    assert before is not None
    assert after is not None
    assert before.term == after.term == 1
    assert before != after
    assert of_the_newer is not None
    assert of_the_newer.term == 2
    assert lease.last_sign(tmp_path) == of_the_newer
    old.release()
    old.renew()
    new.release()


def test_a_directory_is_taken_from_a_process_that_holds_it_and_gives_no_sign(
    tmp_path: Path,
) -> None:
    paused = lease.hold(tmp_path)
    old = paused.begin_term(None)
    sign = lease.last_sign(tmp_path)
    assert sign is not None

    hold = lease.overtake(tmp_path, sign)
    new = hold.begin_term(None)

    assert (hold.is_contested, new.term) == (True, 2)
    with pytest.raises(Superseded, match="superseded by term 2"):
        old.check()
    with pytest.raises(DirectoryTaken, match="term 2"):
        lease.hold(tmp_path)
    paused.release()
    with pytest.raises(DirectoryTaken, match="term 2"):
        lease.hold(tmp_path)
    assert hold.begin_term(None).term == 3
    hold.release()
    lease.hold(tmp_path).release()


@pytest.mark.parametrize("by", ["a renewal", "another standby"])
def test_no_directory_is_taken_that_has_given_a_sign_meanwhile(tmp_path: Path, by: str) -> None:
    paused = lease.hold(tmp_path)
    paused.begin_term(None)
    sign = lease.last_sign(tmp_path)
    assert sign is not None
    hold, other = lease.overtake(tmp_path, sign), lease.overtake(tmp_path, sign)
    if by == "a renewal":
        paused.renew()
    else:
        other.begin_term(None)

    with pytest.raises(DirectoryTaken, match="held by a living process, term 1"):
        hold.begin_term(None)

    assert lease.terms(tmp_path) == ([1] if by == "a renewal" else [1, 2])
    for one in (paused, hold, other):
        one.release()


def test_a_term_knows_the_runs_of_its_directory_and_no_others(tmp_path: Path) -> None:
    hold, elsewhere = lease.hold(tmp_path / "a"), lease.hold(tmp_path / "b")
    first, other = hold.begin_term(None), elsewhere.begin_term(None)
    second = hold.begin_term(None)
    (tmp_path / "a" / "terms" / "0003").write_bytes(b'{"restored": null}')

    assert second.wrote(1, first.run)
    assert second.wrote(2, second.run)
    assert not second.wrote(1, second.run)
    assert not second.wrote(1, other.run)
    assert not second.wrote(3, "")
    assert not second.wrote(4, second.run)
    assert first.run != second.run
    hold.release()
    elsewhere.release()


def test_a_late_owner_does_not_rename_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = durable.create

    def paused_before(path: Path, content: bytes) -> None:
        monkeypatch.undo()
        lease.name_owner(tmp_path, "the successor's")
        create(path, content)

    monkeypatch.setattr(durable, "create", paused_before)
    lease.name_owner(tmp_path, "late")

    assert lease.read_owner(tmp_path) == "the successor's"


def test_terms_go_on_from_generations_whose_terms_were_lost(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "0007-000000000042").mkdir(parents=True)

    held = lease.hold(tmp_path)

    assert held.begin_term(None).term == 8
    held.release()


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"[]", b"{}", b'{"restored": 3}', b'{"restored": "0002-000000000001"}'],
)
def test_a_torn_term_says_what_to_write(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "terms").mkdir()
    (tmp_path / "terms" / "0002").write_bytes(content)

    with pytest.raises(DamagedPointer, match=r"terms/0002': expected JSON .* write") as raised:
        Lineage.read(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_state_directory_that_is_a_file_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"")

    for path in (tmp_path / "state", tmp_path / "state" / "below"):
        with pytest.raises(StateError, match="expected a directory, found a file"):
            lease.hold(path)


def test_what_a_term_wrote_beyond_what_its_successor_restored_is_void() -> None:
    lineage = Lineage({1: None, 2: GenerationName(1, 5), 3: GenerationName(2, 7)})

    void = {
        (t, n) for t in (1, 2, 3) for n in range(1, 12) if lineage.is_void(GenerationName(t, n))
    }

    assert void == {(1, n) for n in range(6, 12)} | {(2, n) for n in range(8, 12)}


def test_a_start_from_nothing_voids_all_before_it() -> None:
    lineage = Lineage({1: None, 2: None})

    assert lineage.is_void(GenerationName(1, 1))
    assert not lineage.is_void(GenerationName(2, 2))


def test_a_rollback_to_a_void_generation_makes_it_count_again() -> None:
    lineage = Lineage({1: None, 2: GenerationName(1, 5), 3: GenerationName(1, 6)})

    assert not lineage.is_void(GenerationName(1, 6))
    assert lineage.is_void(GenerationName(1, 7))
    assert lineage.is_void(GenerationName(2, 7))


def _terms_of(directory: Path, restored: Mapping[int, str | None]) -> None:
    (directory / "terms").mkdir(parents=True)
    for term, base in restored.items():
        (directory / "terms" / f"{term:04d}").write_text(json.dumps({"restored": base}))


def test_terms_from_which_nothing_came_are_collected_but_for_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "KEPT_TERMS", 3)
    base = "0002-000000000005"
    _terms_of(tmp_path, {1: None, 2: None, **dict.fromkeys(range(3, 9), base)})

    lease.collect_terms(tmp_path)

    assert lease.terms(tmp_path) == [2, 6, 7, 8]
    assert list((tmp_path / "terms").glob("*.tmp")) == []


def test_a_torn_term_beside_the_ancestry_stops_no_start(tmp_path: Path) -> None:
    _terms_of(tmp_path, {1: None, 2: None, 3: "0001-000000000004"})
    (tmp_path / "terms" / "0002").write_bytes(b"")

    assert Lineage.read(tmp_path).restored.keys() == {1, 3}


HISTORIES = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 5)), max_size=6)


@given(HISTORIES)
@settings(max_examples=100, deadline=None)
def test_collecting_terms_changes_nothing_in_what_is_void(history: list[tuple[int, int]]) -> None:
    restored, names = {}, list[GenerationName]()
    head: GenerationName | None = None
    for term, (commits, choice) in enumerate(history, start=1):
        restored[term] = head and str(head)
        names += [GenerationName(term, len(names) + n) for n in range(1, commits + 1)]
        head = names[choice % len(names)]
    with TemporaryDirectory() as made, pytest.MonkeyPatch.context() as patch:
        directory = Path(made)
        patch.setattr(lease, "KEPT_TERMS", 1)
        _terms_of(directory, restored)
        everything = Lineage({term: lease._restored(directory, term) for term in restored})
        before = [everything.is_void(name) for name in names]

        lease.collect_terms(directory)

        assert [Lineage.read(directory).is_void(name) for name in names] == before
        assert lease.terms(directory)[-1:] == list(restored)[-1:]


@given(HISTORIES)
@settings(max_examples=100, deadline=None)
def test_a_generation_is_void_iff_no_chain_of_restores_leads_to_it(
    history: list[tuple[int, int]],
) -> None:
    """Each term commits some, then the next restores one at random: follow the parents."""
    restored: dict[int, GenerationName | None] = {}
    parents: dict[GenerationName, GenerationName | None] = {}
    head: GenerationName | None = None
    for term, (commits, choice) in enumerate(history, start=1):
        restored[term] = head
        for _ in range(commits):
            name = GenerationName(term, len(parents) + 1)
            parents[name], head = head, name
        ancestry = list(parents)
        head = ancestry[choice % len(ancestry)]
    if history:
        last = [name for name in parents if name.term == len(history)][-1]
        counted = {last}
        while parent := parents[min(counted, key=lambda name: name.number)]:
            counted.add(parent)

        lineage = Lineage(restored)
        assert {name for name in parents if not lineage.is_void(name)} == counted
