"""A click that kills the process is a dead letter after three deaths; the others are trained."""

import os
import signal
from itertools import repeat

import numpy as np
import pytest

from state import lease
from state.deaths import Deaths
from state.offsets import Offsets
from streamer.pipeline import MAX_BATCH
from streamer.sources.clicks import POISON
from streamer.sources.json_clicks import JsonDecoder
from tests.state.children import run_in_child
from tests.streamer import streams

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

N = 600


class OneRun:
    """A pipeline over one state directory, each run of which may be killed by planted records."""

    def __init__(self, directory, clock, planted, in_decoding):
        self.config = streams.config(directory)
        self.directory, self.clock = directory, clock
        self.planted, self.in_decoding = planted, in_decoding
        self.records = [one for one in streams.stream(N) if one.partition == 0]

    def begin(self):
        hold = lease.hold(self.directory)
        deaths = Deaths.begin(self.directory, hold.begin_term(None), Offsets())
        hold.release()
        self.pipeline = streams.pipeline(self.config, self.directory, self.clock, deaths=deaths)
        return deaths

    def run(self):
        """Apply the stream in batches of 64, dying wherever a planted record is met."""
        deaths = self.begin()
        decoder = JsonDecoder(self.config.clicks)
        decoder.watch(deaths)
        parse, apply = decoder._parse, self.pipeline._apply_from

        def parsing(records, columns):
            if self.in_decoding:
                self._die_if_planted(records.offsets[records.lengths > 0])
            parse(records, columns)

        def applying(batch, rest, partition, begin):
            if not self.in_decoding:
                self._die_if_planted(batch.offsets[begin : begin + len(rest.keys)])
            return apply(batch, rest, partition, begin)

        decoder._parse, self.pipeline._apply_from = parsing, applying
        for batch in streams.batches(self.config, self.records, repeat(64), decoder=decoder):
            self.pipeline.apply(batch)
        return self.pipeline

    def _die_if_planted(self, offsets):
        if np.isin(offsets, self.planted).any():
            os.kill(os.getpid(), signal.SIGKILL)


def calm(directory, clock, planted):
    """Apply the same stream with the planted records as bytes that are no click."""
    config = streams.config(directory)
    pipeline = streams.pipeline(config, directory, clock)
    records = [
        one._replace(raw=b"{") if one.offset in planted else one
        for one in streams.stream(N)
        if one.partition == 0
    ]
    for batch in streams.batches(config, records, repeat(MAX_BATCH)):
        pipeline.apply(batch)
    return pipeline


@pytest.mark.parametrize("in_decoding", [False, True])
def test_planted_clicks_are_dead_letters_after_three_deaths_each_and_the_others_trained(
    tmp_path, manual_clock, in_decoding
):
    usable = [one.offset for one in streams.stream(N) if one.partition == 0 and streams.parsed(one)]
    planted = [usable[100], usable[130]]
    one_run = OneRun(tmp_path / "poisoned", manual_clock, planted, in_decoding)
    wanted = calm(tmp_path / "calm", manual_clock, planted)

    statuses = []
    while not statuses or statuses[-1] != 0:
        statuses.append(run_in_child(one_run.run))
        assert len(statuses) < 10
    pipeline = one_run.run()  # an older generation restored: the start

    assert statuses == [-signal.SIGKILL] * 6 + [0]
    dead = pipeline.ledger.dead_lettered
    assert dead[POISON] == 2
    assert pipeline.missing == 0
    assert dead.total() == wanted.ledger.dead_lettered.total()
    found, expected = pipeline.cut().sections, wanted.cut().sections
    for name in expected.keys() - {"ledger"}:
        for array in expected[name].arrays:
            ours, theirs = found[name].arrays[array], expected[name].arrays[array]
            assert ours.tobytes() == theirs.tobytes(), (name, array)


def test_a_range_that_is_taken_click_by_click_changes_no_bit(tmp_path, manual_clock):
    one_run = OneRun(tmp_path / "suspected", manual_clock, [], in_decoding=False)
    deaths = one_run.begin()
    for stage in ("decoding", "applying"):
        deaths.note(stage, streams.partition_of(one_run.records[0]), 40, 300)
    deaths.close()

    found = one_run.run().cut().sections

    expected = calm(tmp_path / "calm", manual_clock, []).cut().sections
    assert found.keys() == expected.keys()
    for name, section in expected.items():
        values = {k: v for k, v in section.values.items() if k != "space_id"}
        assert {k: v for k, v in found[name].values.items() if k != "space_id"} == values
        for array in section.arrays:
            assert found[name].arrays[array].tobytes() == section.arrays[array].tobytes()
