"""What every source keeps (`streamer/sources/contract.py`), shown for each implementation.

To put a source under this contract, add it to `IMPLEMENTATIONS`: a name, and a function that
prepares a stream of at least `N_RECORDS` records under a directory and returns a function that
opens a fresh source over it. A stream of several partitions holds exactly `N_RECORDS`.
"""

import gzip
import random
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import zstandard
from kafka import KafkaAdminClient, KafkaProducer

from state.offsets import Offsets
from streamer.clock import Clock, SystemClock
from streamer.settings import sources as config
from streamer.sources.contract import Source
from streamer.sources.files import FileSource
from streamer.sources.kafka import KafkaClicks
from streamer.sources.simulated import SimulatedClicks, TrafficSettings

N_RECORDS = 60
PATIENCE = 200  # polls without a record, before a test gives up

Open = Callable[[], Source]
Prepare = Callable[[Path, Clock], Open]

_CSV = [
    "ts,user_id,session_id,item_id",
    *(f"{i * 10},u{i % 5},s{i % 3},i{i}" for i in range(21)),
    "",
    "nonsense",
    '200,"u","s","it,em"',
    "201,u,s,été",
    "\r",
]
_JSON = [
    *(f'{{"user_id":"u{i % 4}","item_id":{i},"ts":{i}}}' for i in range(32)),
    "",
    "{",
    '{"user_id":"u","item_id":"\\u00e9","ts":"40","x":[]}',
    '{"user_id":"u","item_id":"","ts":41}',
    '{"user_id":"u","item_id":"last","ts":42}',
]


def _files(suffix: str, pack: Callable[[bytes], bytes]) -> Prepare:
    def prepare(directory: Path, clock: Clock) -> Open:
        paths = (directory / f"first.csv{suffix}", directory / f"second.jsonl{suffix}")
        for path, lines in zip(paths, (_CSV, _JSON), strict=True):
            path.write_bytes(pack("\n".join(lines).encode()))
        settings = config.FileSource(paths=paths)
        return lambda: FileSource(settings, config.Clicks(), clock)

    return prepare


def _kafka(bootstrap: str, clock: Clock) -> Open:
    """A topic of two partitions, at a place where every start begins."""
    topic = f"contract-{uuid.uuid4().hex}"
    with closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        admin.create_topics({topic: {"num_partitions": 2}}, wait_for_metadata=True)
    with KafkaProducer(bootstrap_servers=bootstrap) as producer:
        for n in range(N_RECORDS):
            value = _JSON[n % len(_JSON)].encode() if n % 9 else None
            producer.send(topic, key=b"any", value=value, partition=n % 3 // 2)
    settings = config.KafkaSource(bootstrap_servers=(bootstrap,), topics=(topic,))

    def open_at_start() -> Source:
        source = KafkaClicks(settings, config.Clicks(), clock)
        source.seek(Offsets(), {})
        return source

    return open_at_start


def _simulated(directory: Path, clock: Clock) -> Open:
    return lambda: SimulatedClicks(TrafficSettings(limit=N_RECORDS, malformed=0.1), clock)


IMPLEMENTATIONS: dict[str, Prepare] = {
    "files": _files("", lambda data: data),
    "files-gz": _files(".gz", gzip.compress),
    "files-zst": _files(".zst", zstandard.compress),
    "simulated": _simulated,
}


@pytest.fixture(params=[*sorted(IMPLEMENTATIONS), pytest.param("kafka", marks=pytest.mark.kafka)])
def open_source(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    if request.param == "kafka":
        return _kafka(request.getfixturevalue("broker").bootstrap, SystemClock())
    return IMPLEMENTATIONS[request.param](tmp_path, SystemClock())


def _batches(source: Source, cuts: Iterator[int], n: int = N_RECORDS):
    """Yield polls until `n` records have been read; `cuts` says how many to ask for each time."""
    n_read = n_empty = 0
    while n_read < n and not source.is_exhausted():
        batch = source.poll(0.05, min(next(cuts), n - n_read))
        if batch is not None:
            n_read += batch.n_read
            yield batch
        n_empty += batch is None
        assert n_empty < PATIENCE


def _every(n: int) -> Iterator[int]:
    while True:
        yield n


def _rows(batches):
    """Everything a batch says, record by record, for each partition."""
    rows = defaultdict(list)
    for batch in batches:
        columns = zip(
            batch.offsets.tolist(),
            batch.item_starts.tolist(),
            batch.item_lengths.tolist(),
            batch.item_keys.tolist(),
            batch.session_keys.tolist(),
            batch.event_times_ms.tolist(),
            batch.weights.tolist(),
            batch.record_starts.tolist(),
            batch.record_lengths.tolist(),
            strict=True,
        )
        found = [
            (at, batch.buffer[i : i + n].tobytes(), *rest, batch.buffer[r : r + m].tobytes())
            for at, i, n, *rest, r, m in columns
        ]
        found += [(one.offset, one.reason, one.detail, one.raw) for one in batch.dead_letters]
        rows[batch.partition] += sorted(found, key=lambda row: row[0])
    return dict(rows)


def _whole(open_source: Open):
    with closing(open_source()) as source:
        return _rows(_batches(source, _every(1_000_000)))


def test_the_stream_of_this_test_is_long_enough(open_source):
    assert sum(len(rows) for rows in _whole(open_source).values()) == N_RECORDS


@pytest.mark.parametrize("cut", [1, 7, "random"])
def test_where_polls_are_cut_changes_nothing(open_source, cut):
    dice = random.Random(5)
    cuts = iter(lambda: dice.randint(1, 13), 0) if cut == "random" else _every(cut)

    with closing(open_source()) as source:
        assert _rows(_batches(source, cuts)) == _whole(open_source)


def test_each_record_is_counted_once_and_no_poll_reads_more_than_it_may(open_source):
    with closing(open_source()) as source:
        for batch in _batches(source, _every(4)):
            assert 1 <= batch.n_read <= 4
            assert len(batch) + len(batch.dead_letters) + sum(batch.filtered.values()) == (
                batch.n_read
            )


def test_offsets_grow_and_the_position_is_behind_what_was_polled(open_source):
    with closing(open_source()) as source:
        position = dict(source.position())
        for batch in _batches(source, _every(5)):
            offsets = [*batch.offsets, *(letter.offset for letter in batch.dead_letters)]
            assert batch.partition in source.partitions()
            assert (batch.offsets[1:] > batch.offsets[:-1]).all()
            assert min(offsets) >= position.get(batch.partition, 0)
            assert max(offsets) < batch.next_offset
            position[batch.partition] = batch.next_offset
            assert dict(source.position()) == position


def test_a_seek_to_any_position_reads_the_rest(open_source, request):
    whole = _whole(open_source)
    # Brokers take half a second for each start.
    every = 12 if "kafka" in request.node.name else 3
    for n_before in range(0, N_RECORDS + 1, every):
        with closing(open_source()) as source:
            before = _rows(_batches(source, _every(3), n_before)) if n_before else {}
            position, marks = source.position(), source.marks()
        with closing(open_source()) as source:
            source.seek(position, marks)
            assert source.marks() == marks
            after = _rows(_batches(source, _every(11), N_RECORDS - n_before))

        joined = {name: before.get(name, []) + after.get(name, []) for name in whole}
        assert joined == whole


def test_a_seek_to_nowhere_is_a_start(open_source):
    with closing(open_source()) as source:
        source.seek(Offsets(), {})

        assert _rows(_batches(source, _every(9))) == _whole(open_source)


def test_a_paused_source_gives_nothing_and_stays_where_it_is(open_source):
    with closing(open_source()) as source:
        before = list(_batches(source, _every(10), 10))
        position = source.position()
        source.pause()
        source.pause()
        paused = source.poll(0.01, 10)
        held = source.position()
        source.resume()
        source.resume()
        after = list(_batches(source, _every(10), N_RECORDS - 10))

    assert paused is None
    assert held == position
    assert _rows([*before, *after]) == _whole(open_source)


def test_publishing_a_position_moves_nothing(open_source):
    with closing(open_source()) as source:
        before = list(_batches(source, _every(10), 10))
        source.publish_position(source.position())
        after = list(_batches(source, _every(10), N_RECORDS - 10))

    assert _rows([*before, *after]) == _whole(open_source)


def test_an_exhausted_source_says_so_everywhere(open_source):
    with closing(open_source()) as source:
        list(_batches(source, _every(1000)))
        source.poll(0.01, 1)
        if not source.is_exhausted():
            pytest.skip("this source has no end")

        assert source.poll(0.0, 1) is None
        assert set(source.ended()) == set(source.caught_up()) == set(source.partitions())
        assert source.lag().clicks == 0


def test_what_has_ended_is_never_polled_again(open_source):
    with closing(open_source()) as source:
        ended = set(source.ended())
        for batch in _batches(source, _every(2)):
            assert batch.partition not in ended
            assert set(source.ended()) >= ended
            assert set(source.ended()) <= set(source.caught_up())
            ended = set(source.ended())


def test_close_may_be_called_again_and_before_the_first_poll(open_source):
    source = open_source()
    source.close()
    source.close()
    polled = open_source()
    polled.poll(0.05, 1)
    polled.close()
    polled.close()
