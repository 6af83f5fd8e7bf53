import threading

import numpy as np
import pytest

from state import durable, index, lease, recovery
from state.checkpoint import Checkpoints
from state.errors import NoSpace, Superseded
from state.offsets import Offsets
from state.publication import Publications
from state.versions import open_version, read_current
from streamer import config as settings
from streamer.deadline import Deadline
from streamer.pipeline import Pipeline, Start
from streamer.publishing import publisher
from streamer.publishing.beside import Beside
from streamer.publishing.publisher import RETRY_SECONDS, Publisher
from streamer.sources.dead_letters import DeadLetters
from streamer.sources.simulated import SimulatedClicks, TrafficSettings


class Running:
    """A pipeline and its publisher over one state directory, as the daemon composes them."""

    def __init__(self, directory, clock, **sections):
        self.config = settings.load(
            None, store={"directory": directory, "max_items": 5000}, **sections
        )
        self.clock = clock
        self.hold = lease.hold(directory)
        tenure = self.hold.begin_term(None)
        self.checkpoints = Checkpoints(directory, tenure, self.config.checkpoint.retain)
        self.checkpoints.adopt(None)
        publications = Publications(self.config.published, tenure, self.config.index.retain)
        publications.adopt(None)
        self.letters = DeadLetters(directory / "dead-letters.jsonl", 10**6, 1.0)
        self.pipeline = Pipeline(self.config, self.letters, clock, Start({}, Offsets(), "space"))
        self.publisher = Publisher(
            self.config, self.pipeline, self.checkpoints, publications, clock
        )
        self.source = SimulatedClicks(TrafficSettings(), clock)
        self.source.seek(Offsets(), {})
        self.publisher.begin(is_new=True)

    def learn(self, n):
        self.pipeline.step(self.source, 0.0, n)

    def settle(self):
        """Tick until nothing is under way beside the stream."""
        for _ in range(10_000):
            self.publisher.tick()
            beside = (self.publisher._writer, self.publisher._builder)
            if not any(one.is_busy for one in beside):
                return
            for one in beside:
                if one.is_busy:
                    one._thread.join(0.05)
        raise AssertionError

    def close(self):
        self.letters.close()
        self.hold.release()


@pytest.fixture
def run(tmp_path, manual_clock):
    running = []

    def start(**sections):
        running.append(Running(tmp_path / "state", manual_clock, **sections))
        return running[-1]

    yield start
    for one in running:
        one.close()


def committed_clicks(directory):
    found = recovery.newest(directory, settings.load(None, store={"max_items": 5000}).fingerprint())
    return found.manifest.facts["ledger"]["clicks"]


def test_a_new_space_is_durable_before_its_first_click(run, tmp_path):
    running = run()

    assert committed_clicks(tmp_path / "state") == 0
    assert running.publisher.uncommitted == 0


def test_a_generation_is_committed_after_so_many_clicks(run, tmp_path):
    running = run(checkpoint={"every_clicks": 1000, "interval_seconds": 1e6})

    running.learn(999)
    running.settle()
    before = committed_clicks(tmp_path / "state")
    running.learn(1)
    running.settle()

    assert before == 0
    assert committed_clicks(tmp_path / "state") == 1000


def test_a_generation_is_committed_after_so_many_seconds_if_a_click_came(run, tmp_path):
    running = run(checkpoint={"every_clicks": 10**7, "interval_seconds": 30.0})

    running.clock.advance(31)
    running.settle()
    quiet = running.checkpoints.newest
    running.learn(10)
    running.settle()

    assert quiet.number == 1
    assert committed_clicks(tmp_path / "state") == 10


def test_a_position_that_moves_without_a_click_is_committed_too(run, tmp_path, monkeypatch):
    """Aborted clicks are passed and not read: without it a lag would stay for good."""
    running = run(checkpoint={"interval_seconds": 30.0})
    running.learn(10)
    running.clock.advance(31)
    running.settle()
    first = running.checkpoints.newest.number
    (partition,) = running.source.position()
    behind = Offsets({partition: running.source.position()[partition] + 501})
    monkeypatch.setattr(running.source, "position", lambda: behind)

    running.clock.advance(29)
    running.settle()
    early = running.checkpoints.newest.number
    running.clock.advance(2)
    running.settle()
    due = running.checkpoints.newest.number
    running.clock.advance(31)
    running.settle()
    running.publisher.finish(Deadline(running.clock, 10.0), publish=False)

    assert (early, due, running.checkpoints.newest.number) == (first, first + 1, first + 1)
    assert running.publisher.committed.offsets == behind


def test_the_end_commits_a_position_that_has_moved_without_a_click(run, monkeypatch):
    running = run()
    running.pipeline.begin_at(running.source)
    (partition,) = running.source.position()
    monkeypatch.setattr(running.source, "position", lambda: Offsets({partition: 501}))

    running.publisher.finish(Deadline(running.clock, 10.0), publish=False)

    assert running.publisher.committed.offsets == Offsets({partition: 501})


def test_the_first_version_follows_the_first_clicks_and_the_next_waits(run):
    running = run(
        checkpoint={"every_clicks": 100}, index={"every_clicks": 1000, "interval_seconds": 1e6}
    )

    versions = []
    running.publisher.on_publish = lambda one: versions.append((one.clicks, one.n_items))
    for _ in range(12):
        running.learn(100)
        running.settle()

    assert [clicks for clicks, _ in versions] == [100, 1100]


def test_a_version_is_a_function_of_its_generation_and_not_of_later_clicks(run, monkeypatch):
    running = run(checkpoint={"every_clicks": 500}, index={"every_clicks": 500})
    items_of, begun, go_on = index.published_items, threading.Event(), threading.Event()

    def slow(sections):
        begun.set()
        assert go_on.wait(30)
        return items_of(sections)

    monkeypatch.setattr(index, "published_items", slow)
    running.learn(500)
    while not begun.is_set():
        running.publisher.tick()
        begun.wait(0.01)
    running.learn(400)
    assert items_of(running.pipeline.cut().sections).clicks.sum() == 900
    go_on.set()
    running.settle()

    generation = running.publisher.published.generation
    name = read_current(running.config.published)
    version = open_version(running.config.published, name, "ivf")
    directory = running.config.store.directory
    expected = items_of(recovery.load(directory, generation).sections)
    assert version.manifest["generation"] == str(generation)
    assert version.items.ids() == expected.ids()
    assert version.items.clicks.sum() == 500
    assert np.array_equal(version.items.vectors, expected.vectors)


def test_finish_commits_and_publishes_what_is_left(run, tmp_path):
    running = run()
    running.learn(700)

    running.publisher.finish(Deadline(running.clock, 60.0), publish=True)

    assert committed_clicks(tmp_path / "state") == 700
    assert running.publisher.published.clicks == 700


def test_finish_does_not_publish_where_it_is_not_asked(run):
    running = run()
    running.learn(700)

    running.publisher.finish(Deadline(running.clock, 60.0), publish=False)

    assert read_current(running.config.published) is None


def test_a_full_disk_is_tried_again_and_reading_waits_meanwhile(run, tmp_path, monkeypatch):
    running = run(checkpoint={"every_clicks": 100, "max_uncommitted": 250})
    written = durable.write_section

    def full(path, section):
        raise NoSpace(str(path))

    monkeypatch.setattr(durable, "write_section", full)
    running.learn(100)
    running.settle()
    running.learn(200)
    waits = running.publisher.must_wait
    monkeypatch.setattr(durable, "write_section", written)
    running.settle()
    too_soon = committed_clicks(tmp_path / "state")
    running.clock.advance(RETRY_SECONDS + 0.1)
    running.settle()

    assert waits
    assert too_soon == 0
    assert committed_clicks(tmp_path / "state") == 300
    assert not running.publisher.must_wait


def test_a_failure_is_told_once_until_a_commit_has_succeeded(run, monkeypatch):
    running = run(checkpoint={"every_clicks": 100})
    written, told = durable.write_section, []
    monkeypatch.setattr(publisher.log, "error", lambda event, **said: told.append(event))

    def full(path, section):
        raise NoSpace(str(path))

    for _ in range(2):
        monkeypatch.setattr(durable, "write_section", full)
        running.learn(100)
        for _ in range(3):
            running.settle()
            running.clock.advance(RETRY_SECONDS + 0.1)
        trouble = running.publisher.trouble
        monkeypatch.setattr(durable, "write_section", written)
        running.settle()

    assert told == ["commit_failed"] * 2
    assert trouble.startswith("nothing is committed: ")
    assert running.publisher.trouble is None
    assert running.publisher.uncommitted == 0


def test_where_letters_fill_what_may_wait_reading_pauses_and_a_commit_is_due(run, monkeypatch):
    running = run(checkpoint={"every_clicks": 10**6, "interval_seconds": 1e6})
    running.learn(10)
    running.settle()
    quiet = running.publisher.committed.clicks
    monkeypatch.setattr(DeadLetters, "is_full", True)

    waits = running.publisher.must_wait
    running.settle()

    assert (quiet, waits) == (0, True)
    assert running.publisher.committed.clicks == 10


def test_a_superseded_term_is_told_on_the_streams_thread(run, tmp_path):
    running = run(checkpoint={"every_clicks": 100})
    running.hold.release()
    other = lease.hold(tmp_path / "state")
    other.begin_term(running.checkpoints.newest)
    running.learn(100)

    with pytest.raises(Superseded):
        running.settle()
    other.release()


def test_work_beside_hands_over_its_result_once():
    beside = Beside("test")
    going = threading.Event()
    beside.start(lambda: going.wait(10) and 42)

    early = beside.take()
    going.set()
    late = beside.take(10)

    assert (early, late, beside.take()) == (None, 42, None)
    assert not beside.is_busy


def test_work_beside_hands_over_its_error():
    beside = Beside("test")
    beside.start(lambda: 1 // 0)

    with pytest.raises(ZeroDivisionError):
        beside.take(10)
    assert not beside.is_busy
