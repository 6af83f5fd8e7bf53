"""What the daemon does at a start; its life as a process is tried in tests/system."""

import pytest

from state import lease
from state.deaths import APPLYING, Deaths
from state.errors import StateError, Superseded
from state.offsets import Offsets, Partition
from streamer.config import load
from streamer.daemon import Daemon
from streamer.errors import BrokerError, DeadLetterLimit
from streamer.sources.dead_letters import FILE_NAME
from streamer.standby import enter


@pytest.mark.parametrize("is_superseded", [False, True])
def test_dead_letters_are_cut_back_only_while_the_term_holds(tmp_path, manual_clock, is_superseded):
    config = load(None, store={"directory": tmp_path, "max_items": 100})
    daemon = Daemon(config, lambda: None, manual_clock)
    entered = enter(config, None, None)
    path = tmp_path / FILE_NAME
    path.write_bytes(b"of the successor\n")
    if is_superseded:
        hold = lease.overtake(tmp_path, lease.last_sign(tmp_path))
        hold.begin_term(None)
        with pytest.raises(Superseded):
            daemon._build(entered)
        hold.release()
    else:
        daemon._build(entered)

    assert path.read_bytes() == (b"of the successor\n" if is_superseded else b"")
    daemon._close()
    entered.leave()


def test_the_dead_letters_of_a_contested_directory_are_another_file(tmp_path, manual_clock):
    config = load(None, store={"directory": tmp_path, "max_items": 100})
    paused = lease.hold(tmp_path)
    paused.begin_term(None)
    daemon = Daemon(config, lambda: None, manual_clock)
    hold = lease.overtake(tmp_path, lease.last_sign(tmp_path))
    with (tmp_path / FILE_NAME).open("ab") as theirs:
        entered = enter(config, None, _Ready(hold))
        daemon._build(entered)
        theirs.write(b"late\n")

    assert (tmp_path / FILE_NAME).read_bytes() == b""
    daemon._close()
    entered.leave()
    paused.release()


@pytest.mark.parametrize("error", [StateError, BrokerError, DeadLetterLimit, ValueError])
def test_an_expected_error_in_a_batch_is_no_death_and_a_bug_is_one(
    tmp_path, manual_clock, monkeypatch, error
):
    config = load(None, store={"directory": tmp_path, "max_items": 100})
    daemon = Daemon(config, lambda: None, manual_clock)

    def die(*_):
        entered = enter(config, None, None)
        daemon._closers.append(entered.leave)
        daemon._build(entered)
        daemon._deaths.note(APPLYING, Partition("clicks", 0), 5, 9)
        raise error

    monkeypatch.setattr(daemon, "_start", die)
    with pytest.raises(error):
        daemon.run()
    hold = lease.hold(tmp_path)
    deaths = Deaths.begin(tmp_path, hold.begin_term(None), Offsets())

    assert len(deaths.counted) == (error is ValueError)
    deaths.close()
    hold.release()


class _Ready:
    """A standby that need not wait."""

    def __init__(self, hold):
        self.wait = lambda: hold
