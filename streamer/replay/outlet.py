"""Records on their way into Kafka: in order, so many at once, and how far they have got."""

from collections import Counter, deque

from streamer.errors import BrokerError, RecordTooLarge
from streamer.replay.items import Item
from streamer.sources.kafka_producer import DELIVERY_SECONDS, Producer, Sending

TOO_LARGE = "too_large"  # why a record is left that its topic does not take
MOST_RECORDS, MOST_BYTES = 10_000, 32 << 20  # on their way at once


class Outlet:
    """Sends the records of items; `taken` counts them by topic once all replicas have them.

    What its topic does not take for its size is in `refused`.
    """

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._on_way: deque[tuple[Item, Sending]] = deque()
        self._n_bytes = 0
        self.taken: Counter[str] = Counter()
        self.refused: list[Item] = []

    @property
    def on_way(self) -> list[Item]:
        """Items that have been sent, and nobody knows yet whether they have arrived."""
        return [item for item, _ in self._on_way]

    def send(self, item: Item) -> None:
        """Send an item's record; blocks while too many are on their way.

        Raises `BrokerError` when one of those before it is not taken.
        """
        record = item.record
        assert record is not None
        if record.partition not in self._producer.partitions[record.topic]:
            record = record._replace(partition=None)
        self._on_way.append((item, self._producer.send(record)))
        self._n_bytes += len(record.value)
        while self._on_way and self._must_wait():
            self._take_first()

    def flush(self) -> None:
        """Wait until all have arrived. Raises `BrokerError` when one is not taken."""
        while self._on_way:
            self._take_first()

    def settle(self) -> None:
        """Sort out what has arrived of what is on its way, after an error and without waiting."""
        sent, self._on_way = self._on_way, deque()
        for item, sending in sent:
            try:
                self._note_arrival(item, sending, 0.0)
            except BrokerError:
                self._on_way.append((item, sending))

    def _must_wait(self) -> bool:
        is_over = self._on_way[0][1].is_over
        return is_over or len(self._on_way) > MOST_RECORDS or self._n_bytes > MOST_BYTES

    def _take_first(self) -> None:
        item, sending = self._on_way[0]
        self._note_arrival(item, sending, 2 * DELIVERY_SECONDS)  # the client gives it back before
        self._on_way.popleft()

    def _note_arrival(self, item: Item, sending: Sending, seconds: float) -> None:
        assert item.record is not None
        try:
            sending.wait(seconds)
            self.taken[item.record.topic] += 1
        except RecordTooLarge:
            self.refused.append(item)
        self._n_bytes -= len(item.record.value)
