"""A place for the processes of one test; the kernels are compiled before the first of them."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer

import streamer.daemon  # noqa: F401 - registers every kernel
from kernels import policy, sgns
from tests.system.runs import Livevec
from tests.system.topic import N_PARTITIONS


@pytest.fixture(scope="session")
def compiled_kernels() -> None:
    sgns.train_tiles(64)
    policy.compile_all()


@pytest.fixture
def livevec(tmp_path: Path, compiled_kernels: None) -> Iterator[Livevec]:
    one = Livevec(tmp_path)
    yield one
    one.close()


@pytest.fixture(scope="module")
def admin(broker):
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap) as client:
        yield client


@pytest.fixture
def producer(broker):
    with KafkaProducer(bootstrap_servers=broker.bootstrap) as one:
        yield one


@pytest.fixture
def topic(admin) -> str:
    name = f"clicks-{uuid.uuid4().hex}"
    admin.create_topics({name: {"num_partitions": N_PARTITIONS}}, wait_for_metadata=True)
    return name


@pytest.fixture
def over_kafka(livevec, broker, topic):
    livevec.configure(
        {
            "source.kafka": {
                "bootstrap_servers": [broker.bootstrap],
                "topics": [topic],
                "group_id": f"group-{topic}",
            },
            # Producers are not in step: a test's partitions may be far apart.
            "sessions": {"lateness_seconds": 3600.0},
            "checkpoint": {"interval_seconds": 0.3},
        }
    )
    return livevec
