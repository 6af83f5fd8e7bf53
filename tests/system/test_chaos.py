"""Nothing lost, nothing twice, whatever dies; and whether the judge of it would notice."""

import dataclasses
import json

import pytest

from tests.system.chaos import CODECS, Chaos, Plan
from tests.system.topic import Topic

pytestmark = [pytest.mark.kafka, pytest.mark.crash]

CALM = Plan(kills=0, clicks=600, partitions=2, broker_restarts=0, take_overs=0)


@pytest.fixture
def run(broker, tmp_path, compiled_kernels):
    """Run a plan against a broker of its own, where one can be had at all."""
    del broker

    def run(plan: Plan):
        verdict = Chaos(plan, tmp_path, print).run()
        print(verdict)
        return verdict

    return run


@pytest.mark.slow
def test_ten_kills_a_broker_that_dies_and_a_take_over_lose_nothing_and_train_nothing_twice(run):
    verdict = run(Plan(kills=10, clicks=20_000, broker_restarts=1, take_overs=1))

    assert verdict.is_right
    assert verdict.kills == 10
    assert verdict.kills_inside >= 6
    assert verdict.kills_in_restore == 3
    assert verdict.paused_exits == [4]


@pytest.mark.slow
def test_kills_with_each_codec_in_a_partition_of_its_own(run):
    verdict = run(dataclasses.replace(CALM, kills=4, clicks=12_000, partitions=4, codecs=CODECS))

    assert verdict.is_right
    assert verdict.kills_inside >= 2


@pytest.mark.slow
def test_aborted_clicks_are_not_trained_and_one_partition_ends_bit_equal(run):
    plan = Plan(kills=2, clicks=6_000, partitions=1, broker_restarts=0, take_overs=0, aborted=400)

    verdict = run(plan)

    assert verdict.is_right
    assert verdict.clicks == 6_000
    assert verdict.differences == []


def missing_one(records):
    next(records)
    return records


def another_in_its_place(records):
    return iter([_with_item(next(records), "another"), *records])


def _with_item(record, item):
    partition, offset, value = record
    return partition, offset, json.dumps({**json.loads(value), "item_id": item}).encode()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "n_clicks", "found"),
    [
        (missing_one, 599, {"trained_twice"}),
        (another_in_its_place, 600, set()),
    ],
)
def test_one_click_more_or_less_or_another_is_noticed(run, monkeypatch, wrong, n_clicks, found):
    records = Topic.records
    monkeypatch.setattr(Topic, "records", lambda self: wrong(records(self)))

    verdict = run(CALM)

    assert not verdict.is_right
    assert not verdict.pairs_equal
    assert (verdict.accounted, verdict.clicks) == (600, n_clicks)
    assert {name for name in ("lost", "trained_twice") if getattr(verdict, name)} == found
