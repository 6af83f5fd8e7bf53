"""Files first: what lies in Kafka waits, and holds nothing of the history back."""

from state.offsets import Offsets, Partition
from streamer.config import load
from streamer.sources.contract import Lag
from streamer.sources.files import FileSource
from streamer.sources.history import HistoryThenLive
from streamer.sources.simulated import SimulatedClicks, TrafficSettings

LIVE = Partition("clicks", 0)


def test_what_is_live_is_not_to_be_read_before_the_history_has_ended(
    tmp_path, manual_clock, monkeypatch
):
    path = tmp_path / "clicks.csv"
    path.write_text("ts,user_id,session_id,item_id\n0,u,s,a\n1,u,s,b\n")
    config = load(None, source={"files": {"paths": [str(path)]}})
    history = FileSource(config.source.files, config.clicks, manual_clock)
    live = SimulatedClicks(TrafficSettings(), manual_clock)
    monkeypatch.setattr(live, "lag", lambda: Lag(7, {LIVE: 7}))
    both = HistoryThenLive(history, live)
    both.seek(Offsets(), {})

    before = both.lag()
    while not history.is_exhausted():
        both.poll(0.0, 10)
    after = both.lag()
    both.close()

    assert before.by_partition == after.by_partition == {LIVE: 7}
    assert (before.is_readable(LIVE), after.is_readable(LIVE)) == (False, True)
