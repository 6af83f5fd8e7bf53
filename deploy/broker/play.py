"""A local Apache Kafka in the foreground, with a topic to play with.

`python -m deploy.broker.play` in the project's directory, or `make broker`.
"""

import os
import signal
import socket
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from kafka import KafkaAdminClient

from deploy.broker.broker import Broker, BrokerFailed, BrokerUnavailable, version

DEFAULT_PORT = 9092
TOPIC = "clicks"
PARTITIONS = 4


def main() -> int:
    """Run a broker in the foreground until Ctrl-C or SIGTERM; `BROKER_PORT` names its port."""
    stopping = threading.Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, lambda *_: stopping.set())
    try:
        with tempfile.TemporaryDirectory(prefix="livevec-broker-") as directory:
            return _run(Broker(Path(directory), _port()), stopping)
    except (BrokerUnavailable, BrokerFailed) as error:
        print(f"broker: {error}", file=sys.stderr)
        return 1


def _run(broker: Broker, stopping: threading.Event) -> int:
    try:
        broker.start()
        _create_topic(broker.bootstrap)
        print(_explain(broker.bootstrap), flush=True)
        while not stopping.wait(0.5):
            if not broker.is_running():
                print("broker: expected it to run until Ctrl-C, found it dead", file=sys.stderr)
                return 1
    finally:
        broker.stop()
    return 0


def _port() -> int:
    """Return the port that was asked for, else Kafka's own, else any that is free."""
    asked = os.environ.get("BROKER_PORT")
    if asked:
        if not asked.isdecimal():
            msg = f"BROKER_PORT: expected a number, found {asked!r}"
            raise BrokerFailed(msg)
        return int(asked)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            probe.bind(("127.0.0.1", DEFAULT_PORT))
            return DEFAULT_PORT
    return 0


def _create_topic(bootstrap: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        admin.create_topics({TOPIC: {"num_partitions": PARTITIONS}}, wait_for_metadata=True)
    finally:
        admin.close()


def _explain(bootstrap: str) -> str:
    return f"""
Apache Kafka {version()} at {bootstrap}, with the topic {TOPIC!r} in {PARTITIONS} partitions.

Produce to it from another terminal in this directory:

.venv/bin/python - <<'END'
import json, time
from kafka import KafkaProducer
producer = KafkaProducer(bootstrap_servers="{bootstrap}")
for n in range(1000):
    user, item = f"u{{n % 50}}", f"i{{n * 7 % 90}}"
    click = {{"user_id": user, "item_id": item, "ts": time.time_ns() // 1_000_000}}
    producer.send("{TOPIC}", key=user.encode(), value=json.dumps(click).encode())
producer.close()
END

Learn from it: `.venv/bin/livevec run --config kafka.toml`, where kafka.toml holds

[source.kafka]
bootstrap_servers = ["{bootstrap}"]
topics = ["{TOPIC}"]

Ctrl-C stops the broker and forgets everything it holds.
"""


if __name__ == "__main__":
    sys.exit(main())
