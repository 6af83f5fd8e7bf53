"""What is made of brokers that tell of some partitions and not of others."""

import threading

import pytest
from kafka.errors import LeaderNotAvailableError

from state.offsets import Partition
from streamer.sources.kafka_cluster import Topic
from streamer.sources.kafka_watch import AWAY_SECONDS, Watch

A, B, C = (Partition("clicks", number) for number in range(3))


class Cluster:
    """Brokers that tell `offsets` of the partitions which have a leader, and refuse the others.

    It takes two brokers, one of them gone for good, to have a partition without a leader.
    """

    def __init__(self):
        self.topic = Topic("id", (A, B))
        self.offsets = {A: 10, B: 20, C: 30}

    def topics(self, names):
        return dict.fromkeys(names, self.topic)

    def _told(self, partitions):
        assert not set(partitions) & set(self.topic.leaderless), "the client raises"
        return {one: self.offsets[one] for one in partitions}

    begins = ends = stable_ends = _told


@pytest.fixture
def cluster():
    return Cluster()


@pytest.fixture
def watch(cluster, manual_clock):
    return Watch(cluster, ("clicks",), manual_clock)


@pytest.fixture
def begun(watch):
    """Return one that has been started, and looks when it is told to."""
    watch.look()
    watch._thread = threading.Thread()
    return watch


def test_of_a_partition_without_a_leader_the_last_is_believed_and_others_are_looked_at(
    cluster, begun
):
    before = begun.look()
    cluster.topic = Topic("id", (A, B), leaderless=(B,))
    cluster.offsets = {A: 11, B: 21}

    during = begun.look()
    cluster.topic = Topic("id", (A, B))
    after = begun.look()

    assert (before.ends, before.leaderless) == ({A: 10, B: 20}, set())
    assert (during.ends, during.leaderless) == ({A: 11, B: 20}, {B})
    assert during.begins == during.stable_ends == during.ends
    assert during.topics["clicks"].partitions == (A, B)
    assert (after.ends, after.leaderless) == ({A: 11, B: 21}, set())
    assert begun.n_looks == 4


def test_a_partition_that_is_added_is_there_once_it_has_a_leader(cluster, begun):
    cluster.topic = Topic("id", (A, B, C), leaderless=(C,))

    without = begun.look()
    cluster.topic = Topic("id", (A, B, C))
    with_it = begun.look()

    assert without.topics["clicks"].partitions == (A, B)
    assert with_it.topics["clicks"].partitions == (A, B, C)


def test_what_was_known_of_another_topic_of_the_name_is_not_believed(cluster, begun):
    cluster.topic = Topic("another id", (A, B), leaderless=(B,))

    seen = begun.look()

    assert (seen.ends, seen.topics["clicks"].partitions) == ({A: 10}, (A,))


def test_a_start_needs_all_leaders_and_may_try_again(cluster, watch):
    watch.look()
    cluster.topic = Topic("id", (A, B), leaderless=(B,))

    with pytest.raises(LeaderNotAvailableError, match=r"clicks\[1\]") as raised:
        watch.look()

    assert raised.value.retriable


def test_our_own_pause_is_no_silence_of_the_brokers(watch, manual_clock):
    watch.look()
    manual_clock.advance(60.0)  # and nobody asked

    after_a_pause = watch.trouble()
    for _ in range(int(AWAY_SECONDS) + 1):
        manual_clock.advance(1.0)
        silent = watch.trouble()

    assert after_a_pause is None
    assert silent == f"no answer from the brokers for {AWAY_SECONDS + 1:.0f} s: nothing heard"
