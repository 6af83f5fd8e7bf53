"""Topics of a real broker, producers to them, and sources over them."""

import uuid
from collections.abc import Callable, Iterator

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from state import lease
from state.lease import Tenure
from state.offsets import Offsets
from streamer.clock import SystemClock
from streamer.settings.sources import Clicks, KafkaSource
from streamer.sources.contract import Claim
from streamer.sources.kafka import KafkaClicks
from tests.streamer.sources.opened_files import OPENED


@pytest.fixture(scope="module")
def admin(broker) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    yield client
    client.close()


@pytest.fixture
def new_topic(admin) -> Callable[[int], str]:
    def make(partitions: int = 1) -> str:
        name = f"clicks-{uuid.uuid4().hex}"
        admin.create_topics({name: {"num_partitions": partitions}}, wait_for_metadata=True)
        return name

    return make


@pytest.fixture
def producer(broker) -> Iterator[KafkaProducer]:
    with KafkaProducer(bootstrap_servers=broker.bootstrap) as one:
        yield one


@pytest.fixture
def open_source(broker, new_tenure) -> Iterator[Callable[..., KafkaClicks]]:
    opened = []

    def make(
        *topics: str,
        offsets: Offsets | None = None,
        marks=None,
        claim: Claim | None = None,
        take_group: bool = False,
        **settings,
    ) -> KafkaClicks:
        settings = {"bootstrap_servers": (broker.bootstrap,), "topics": topics, **settings}
        settings = {"group_id": f"group-{uuid.uuid4().hex}", **settings}
        source = KafkaClicks(
            KafkaSource(**settings), Clicks(), SystemClock(), take_group=take_group
        )
        opened.append(source)
        source.claim(claim or Claim("space", new_tenure(), is_fresh=True))
        source.seek(offsets or Offsets(), marks or {})
        return source

    yield make
    for source in opened:
        source.close()


@pytest.fixture
def new_tenure(tmp_path_factory) -> Iterator[Callable[[], Tenure]]:
    held = []

    def make() -> Tenure:
        held.append(lease.hold(tmp_path_factory.mktemp("state")))
        return held[-1].begin_term(None)

    yield make
    for one in held:
        one.release()


@pytest.fixture(autouse=True)
def _close_files():
    yield
    while OPENED:
        OPENED.pop().close()
