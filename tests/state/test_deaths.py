"""Three deaths at one click, two at it alone, quarantine it; fewer, or elsewhere, do not."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from state import lease
from state.deaths import APPLYING, DECODING, Deaths, Place, Quarantined
from state.errors import StateError, Superseded
from state.offsets import Offsets, Partition
from tests.state.children import run_in_child

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

CLICKS, OTHERS = Partition("clicks", 0), Partition("clicks", 1)


def begin(directory: Path, position: int = 0, *, is_contested: bool = False) -> Deaths:
    hold = lease.hold(directory)
    try:
        tenure = hold.begin_term(None)
        at = Offsets({CLICKS: position})
        return Deaths.begin(directory, tenure, at, is_contested=is_contested)
    finally:
        hold.release()


def die(directory: Path, offsets: list[int], at: int, stage: str = APPLYING) -> Deaths:
    """Begin, and die in a process of our own when the click at offset `at` is taken."""

    def life() -> None:
        deaths = begin(directory)
        for first, last in deaths.taken(stage, CLICKS, np.array(offsets)):
            if at in offsets[first:last]:
                os.kill(os.getpid(), signal.SIGKILL)

    assert run_in_child(life) == -signal.SIGKILL
    deaths = begin(directory)
    deaths.close()
    return deaths


def test_nothing_that_was_cleared_is_a_death(tmp_path: Path) -> None:
    deaths = begin(tmp_path)
    pieces = list(deaths.taken(APPLYING, CLICKS, np.arange(10)))
    deaths.note(DECODING, CLICKS, 3, 4)
    deaths.clear()
    deaths.close()

    again = begin(tmp_path)

    assert pieces == [(0, 10)]
    assert (again.counted, again.record.places, again.condemned) == ((), {}, ())
    assert not (tmp_path / "deaths.json").exists()
    again.close()


@pytest.mark.parametrize("stage", [DECODING, APPLYING])
def test_a_batch_in_which_the_process_died_is_taken_click_by_click(
    tmp_path: Path, stage: str
) -> None:
    deaths = die(tmp_path, [5, 6, 9, 10], at=9, stage=stage)

    offsets = np.array([2, 3, 5, 9, 10, 11, 12])
    assert deaths.counted == ((Place(stage, CLICKS, 5, 11), 1),)
    assert list(deaths.taken(stage, CLICKS, offsets)) == [(0, 2), (2, 3), (3, 4), (4, 5), (5, 7)]
    assert deaths.alone(stage, CLICKS, offsets) == [2, 3, 4]
    assert list(deaths.taken(stage, OTHERS, offsets)) == [(0, 7)]
    other = APPLYING if stage == DECODING else DECODING
    assert list(deaths.taken(other, CLICKS, offsets)) == [(0, 7)]


def test_no_click_is_no_piece(tmp_path: Path) -> None:
    deaths = die(tmp_path, [5, 6], at=6)

    assert list(deaths.taken(APPLYING, CLICKS, np.array([], "i8"))) == []
    assert deaths.alone(APPLYING, CLICKS, np.array([], "i8")) == []
    assert deaths.refused(CLICKS, np.array([], "i8")) == []


@pytest.mark.parametrize("stage", [DECODING, APPLYING])
def test_the_third_death_quarantines_the_click_and_no_other(tmp_path: Path, stage: str) -> None:
    offsets = [5, 6, 9, 10]
    lives = [die(tmp_path, offsets, at=9, stage=stage) for _ in range(3)]

    assert [life.condemned for life in lives] == [(), (), (Quarantined(CLICKS, 9),)]
    assert lives[2].refused(CLICKS, np.array(offsets)) == [2]
    assert lives[2].refused(OTHERS, np.array(offsets)) == []
    assert lives[1].refused(CLICKS, np.array(offsets)) == []
    later = begin(tmp_path, position=100)
    assert later.refused(CLICKS, np.array(offsets)) == [2]
    assert (later.condemned, later.record.places) == ((), {})
    later.close()


def test_what_is_known_of_offsets_that_are_of_other_clicks_now_is_forgotten(
    tmp_path: Path,
) -> None:
    for at in (3, 9):
        for _ in range(3):
            die(tmp_path, [at], at)
    die(tmp_path, [11, 12], at=12)
    deaths = begin(tmp_path)

    deaths.absolve(OTHERS, 0, "anew")
    before = (
        deaths.refused(CLICKS, np.array([3, 9])),
        deaths.alone(APPLYING, CLICKS, np.array([12])),
    )
    deaths.absolve(CLICKS, 4, "cut back from 20")
    after = [deaths, begin(tmp_path)]

    assert before == ([0, 1], [0])
    for one in after:
        assert one.refused(CLICKS, np.array([3, 9])) == [0]
        assert one.alone(APPLYING, CLICKS, np.array([12])) == []
        one.close()


def test_a_start_that_finds_the_same_log_again_forgets_no_death(tmp_path: Path) -> None:
    """Its position was not committed before the process died: it is cut back once more."""
    for _ in range(3):
        deaths = begin(tmp_path)
        deaths.absolve(CLICKS, 4, "cut back from 20")
        assert deaths.refused(CLICKS, np.array([9])) == []
        deaths.close()
        die(tmp_path, [9], at=9)

    deaths = begin(tmp_path)
    deaths.absolve(CLICKS, 4, "cut back from 20")
    assert deaths.refused(CLICKS, np.array([9])) == [0]
    deaths.absolve(CLICKS, 4, "cut back from 30")
    assert deaths.refused(CLICKS, np.array([9])) == []
    deaths.close()


def test_a_stream_of_single_clicks_needs_three_deaths_too(tmp_path: Path) -> None:
    lives = [die(tmp_path, [7], at=7) for _ in range(3)]

    assert [life.condemned for life in lives] == [(), (), (Quarantined(CLICKS, 7),)]


def test_deaths_at_different_clicks_of_one_batch_quarantine_none(tmp_path: Path) -> None:
    offsets = list(range(100))
    lives = [die(tmp_path, offsets, at=at) for at in (3, 50, 20, 70, 4, 99, 0)]

    assert [life.record.quarantined for life in lives] == [[]] * 7


def test_one_death_at_the_click_alone_is_not_enough_however_often_its_batch_died(
    tmp_path: Path,
) -> None:
    condemned = []
    for first, end in ((5, 9), (4, 10), (7, 8), (7, 8)):
        deaths = begin(tmp_path)
        deaths.note(APPLYING, CLICKS, first, end)
        deaths.close()
        deaths = begin(tmp_path)
        condemned.append(deaths.condemned)
        deaths.close()

    assert condemned == [(), (), (), (Quarantined(CLICKS, 7),)]


def test_a_death_of_another_stage_does_not_count_for_this_one(tmp_path: Path) -> None:
    lives = [die(tmp_path, [7], at=7, stage=stage) for stage in (APPLYING, APPLYING, DECODING)]

    assert lives[-1].record.quarantined == []


def test_a_place_that_was_passed_is_forgotten(tmp_path: Path) -> None:
    die(tmp_path, [5, 6, 9, 10], at=9)
    for position, is_suspected in ((10, True), (11, False), (0, False)):
        deaths = begin(tmp_path, position)
        assert bool(deaths.record.places) == is_suspected
        deaths.close()


def test_a_note_is_counted_once(tmp_path: Path) -> None:
    deaths = begin(tmp_path)
    deaths.note(APPLYING, CLICKS, 5, 9)
    deaths.close()
    note = (tmp_path / "under-way").read_bytes()
    begin(tmp_path).close()
    (tmp_path / "under-way").write_bytes(note)  # as a start leaves it that dies before its own

    again = begin(tmp_path)

    assert again.counted == ()
    assert list(json.loads((tmp_path / "deaths.json").read_bytes())["places"]) == [
        [APPLYING, "clicks", 0, 5, 9, 1]
    ]
    again.close()


def test_the_note_of_a_paused_process_is_no_death_and_its_later_ones_reach_nobody(
    tmp_path: Path,
) -> None:
    paused = begin(tmp_path)
    paused.note(APPLYING, CLICKS, 5, 9)

    successor = begin(tmp_path, is_contested=True)
    paused.note(APPLYING, CLICKS, 20, 30)
    successor.close()
    later = begin(tmp_path)

    assert (successor.counted, later.counted, later.record.places) == ((), (), {})
    paused.close()
    later.close()


def test_a_superseded_start_counts_nothing(tmp_path: Path) -> None:
    hold = lease.hold(tmp_path)
    old = hold.begin_term(None)
    hold.begin_term(None)

    with pytest.raises(Superseded):
        Deaths.begin(tmp_path, old, Offsets())

    assert not (tmp_path / "under-way").exists()
    hold.release()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1, 2]\n", b"{}\n", b"[1]\n" * 2000])
def test_a_note_that_is_none_counts_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "under-way").write_bytes(content)

    deaths = begin(tmp_path)

    assert deaths.counted == ()
    deaths.close()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"places": [1]}'])
def test_counts_that_are_damaged_are_told_with_the_way_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "deaths.json").write_bytes(content)

    with pytest.raises(StateError, match=r"deaths.json': expected .* remove it"):
        begin(tmp_path)


def test_deaths_of_no_directory_note_nothing() -> None:
    none = Deaths()

    assert list(none.taken(APPLYING, CLICKS, np.arange(3))) == [(0, 3)]
    none.note(APPLYING, CLICKS, 1, 2)
    none.clear()
    none.close()
