"""Whose the group's offsets are: ours, those of another space, of a copy, of nobody."""

import time
import uuid

import pytest
from kafka.structs import OffsetAndMetadata, TopicPartition

from state.errors import Superseded
from state.lease import Hold
from state.offsets import Offsets, Partition
from streamer.errors import BrokerError
from streamer.sources.contract import Claim
from streamer.sources.kafka_group import Writer
from tests.streamer.sources.topics import PATIENCE_SECONDS, click, read, send

pytestmark = pytest.mark.kafka


@pytest.fixture
def group() -> str:
    return f"group-{uuid.uuid4().hex}"


@pytest.fixture
def topic(new_topic, producer) -> str:
    name = new_topic()
    send(producer, name, map(click, range(10)))
    return name


@pytest.fixture
def written(admin, group, topic):
    """Return what the group holds of the topic, once it is what a condition wants."""

    def look(wanted):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            found = admin.list_group_offsets({group: [TopicPartition(topic, 0)]})[group]
            one = found.get(TopicPartition(topic, 0))
            if one is not None and wanted(one):
                return one
            assert time.monotonic() < deadline, one

    return look


def commit(admin, group, topic, offset, metadata):
    found = {TopicPartition(topic, 0): OffsetAndMetadata(offset, metadata, -1)}
    admin.alter_group_offsets(group, found)


def test_the_group_shows_who_has_committed(group, topic, open_source, new_tenure, written):
    tenure = new_tenure()
    source = open_source(topic, group_id=group, claim=Claim("blue", tenure, is_fresh=True))

    source.publish_position(Offsets({Partition(topic, 0): 3, Partition("x.csv", 0): 9}))
    source.publish_position(Offsets({Partition(topic, 0): 7, Partition("x.csv", 0): 9}))

    found = written(lambda one: one.offset == 7)
    assert Writer.parse(found.metadata) == ("blue", 1, tenure.run)


@pytest.mark.parametrize(
    "metadata", ["livevec space=red term=1 run=ab", "livevec space=blue term=9 run=ab", ""]
)
def test_a_fresh_start_leaves_a_group_alone_that_somebody_has_used(
    metadata, admin, group, topic, open_source, new_tenure, written
):
    open_source(topic, group_id=group).publish_position(Offsets({Partition(topic, 0): 1}))
    written(lambda one: one.offset == 1)
    commit(admin, group, topic, 5, metadata)

    claim = Claim("blue", new_tenure(), is_fresh=True)
    with pytest.raises(BrokerError, match=r"another daemon .* --take-group"):
        open_source(topic, group_id=group, claim=claim)
    taken = open_source(topic, group_id=group, claim=claim, take_group=True)
    taken.publish_position(Offsets({Partition(topic, 0): 2}))

    assert Writer.parse(written(lambda one: one.offset == 2).metadata).space_id == "blue"


@pytest.mark.parametrize(
    "metadata",
    [
        "livevec space=red term=1 run=ab",
        "livevec space=blue term=1 run=ab",
        "livevec space=blue term=2 run=ab",
    ],
    ids=["another space", "a copy of the state", "a copy that went on"],
)
def test_another_daemon_on_the_group_is_noticed_before_a_commit(
    metadata, admin, group, topic, open_source, new_tenure, written
):
    claim = Claim("blue", new_tenure(), is_fresh=True)
    source = open_source(topic, group_id=group, claim=claim)
    source.publish_position(Offsets({Partition(topic, 0): 1}))
    written(lambda one: one.offset == 1)
    commit(admin, group, topic, 5, metadata)

    source.publish_position(Offsets({Partition(topic, 0): 2}))
    with pytest.raises(BrokerError, match=f"written by '{metadata}': another daemon"):
        read(source, lambda: False)

    assert written(lambda one: True).offset == 5


def test_what_an_earlier_run_of_ours_writes_late_is_written_over(
    admin, group, topic, open_source, new_tenure, written
):
    tenure = new_tenure()
    first = open_source(topic, group_id=group, claim=Claim("blue", tenure, is_fresh=True))
    first.publish_position(Offsets({Partition(topic, 0): 1}))
    late = written(lambda one: one.offset == 1)
    first.close()
    second = hold_again(tenure).begin_term(None)
    source = open_source(topic, group_id=group, claim=Claim("blue", second, is_fresh=False))
    source.publish_position(Offsets({Partition(topic, 0): 8}))
    written(lambda one: one.offset == 8)

    commit(admin, group, topic, 5, late.metadata)
    source.publish_position(Offsets({Partition(topic, 0): 9}))

    assert Writer.parse(written(lambda one: one.offset == 9).metadata) == ("blue", 2, second.run)


def test_what_an_administrator_moves_is_written_over(
    admin, group, topic, open_source, new_tenure, written
):
    source = open_source(topic, group_id=group)
    source.publish_position(Offsets({Partition(topic, 0): 8}))
    written(lambda one: one.offset == 8)
    commit(admin, group, topic, 0, "")

    source.publish_position(Offsets({Partition(topic, 0): 9}))

    assert written(lambda one: one.offset == 9).metadata != ""


def test_a_superseded_run_commits_nothing_and_ends(group, topic, open_source, new_tenure, written):
    tenure = new_tenure()
    source = open_source(topic, group_id=group, claim=Claim("blue", tenure, is_fresh=True))
    source.publish_position(Offsets({Partition(topic, 0): 1}))
    written(lambda one: one.offset == 1)
    hold_again(tenure).begin_term(None)

    source.publish_position(Offsets({Partition(topic, 0): 2}))
    with pytest.raises(Superseded):
        read(source, lambda: False)

    assert written(lambda one: True).offset == 1


def hold_again(tenure):
    """Take the directory of a tenure as a stand-by does whose owner is stopped."""
    return Hold(tenure._directory, tenure.term + 1, None)
