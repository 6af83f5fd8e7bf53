"""`livevec run` over SASL and TLS, and without a broker: told by its cause, and no secret shown."""

import json
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from deploy.broker.broker import PASSWORD, USER, Broker
from streamer.settings.sources import KafkaSource
from streamer.sources.kafka_client import connect
from tests.system.runs import Livevec, clicks, wait_for

pytestmark = pytest.mark.kafka

DEADLINE_SECONDS = 10.0
BUSY_SECONDS = 5.0  # the interpreter's own start, on a busy machine
WRONG = "not-the-passw0rd-of-anybody"
N = 300


@pytest.fixture
def secured(broker):
    if broker.ca_file is None:
        pytest.skip("the broker of LIVEVEC_TEST_BROKER has no listeners that we know passwords of")
    return broker


@pytest.fixture
def own_broker(secured, tmp_path) -> Iterator[Broker]:
    """Yield one that may be killed."""
    own = Broker(tmp_path)
    own.start()
    yield own
    own.stop()


@pytest.fixture
def topic(secured) -> str:
    name = f"clicks-{uuid.uuid4().hex}"
    with KafkaAdminClient(bootstrap_servers=secured.bootstrap) as admin:
        admin.create_topics({name: {"num_partitions": 1}}, wait_for_metadata=True)
    with KafkaProducer(bootstrap_servers=secured.bootstrap) as producer:
        for row in clicks(N):
            producer.send(name, value=json.dumps(row).encode())
    return name


def configure(livevec, address: str, topic: str = "clicks", **client) -> None:
    livevec.configure(
        {
            "source.kafka": {"bootstrap_servers": [address], "topics": [topic]},
            "source.kafka.client": client,
            "checkpoint": {"interval_seconds": 0.2},
        }
    )


def login(protocol: str, mechanism: str) -> dict[str, str]:
    return {
        "security_protocol": protocol,
        "sasl_mechanism": mechanism,
        "sasl_plain_username": USER,
    }


def with_secrets(livevec, **client: str) -> Path:
    """Write a file of the client's settings outside the state directory, and name it."""
    path = livevec.directory / "client.toml"
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in client.items()))
    path.chmod(0o600)
    livevec.configure({"source.kafka": {"client_file": str(path)}})
    return path


def shown(livevec, ended, secret: str) -> list[str]:
    """Return where a secret stands in what a process has said or left behind."""
    files = [path for path in livevec.state.rglob("*") if path.is_file()]
    found = [str(path) for path in files if secret.encode() in path.read_bytes()]
    return found + [text for text in (ended.out, ended.err) if secret in text]


@pytest.mark.parametrize(
    ("mechanism", "by_file"),
    [("PLAIN", True), pytest.param("SCRAM-SHA-512", False, marks=pytest.mark.slow)],
)
def test_a_run_over_sasl_and_tls_shows_its_password_nowhere(
    livevec, secured, topic, mechanism, by_file
):
    configure(
        livevec,
        secured.sasl_ssl_bootstrap,
        topic,
        ssl_cafile=str(secured.ca_file),
        **login("SASL_SSL", mechanism),
    )
    livevec.configure({"log": {"level": "debug"}})  # where most is told
    if by_file:
        with_secrets(livevec, sasl_plain_password=PASSWORD)
    else:
        livevec.environment["LIVEVEC_SOURCE__KAFKA__CLIENT__SASL_PLAIN_PASSWORD"] = PASSWORD

    running = livevec.start()
    wait_for(lambda: livevec.committed() == N, "all clicks")
    running.event("version_published")
    ended = running.terminated()

    assert ended.code == 0
    client = livevec.newest().manifest.settings["source"]["kafka"]["client"]
    assert client["sasl_plain_password"] == "***"
    assert client["sasl_plain_username"] == USER
    assert (livevec.state / "published" / "CURRENT").exists()
    assert shown(livevec, ended, PASSWORD) == []


def test_a_wrong_password_is_one_line_at_once_and_is_not_shown(livevec, secured):
    configure(livevec, secured.sasl_bootstrap, **login("SASL_PLAINTEXT", "SCRAM-SHA-512"))
    with_secrets(livevec, sasl_plain_password=WRONG).chmod(0o644)
    begun = time.monotonic()

    ended = livevec.run()

    assert time.monotonic() - begun < DEADLINE_SECONDS + BUSY_SECONDS
    assert ended.code == 3
    (line,) = ended.complaints
    assert "found that the user name or the password is refused" in line
    (warning,) = ended.events("client_file_readable_by_all")
    assert warning["mode"] == "0o644"
    assert shown(livevec, ended, WRONG) == []


def test_check_config_shows_no_secret_and_every_fault(livevec):
    configure(
        livevec,
        "localhost:9093",
        security_protocol="SASL_SSL",
        sasl_mechanism="PLAIN",
        sasl_plain_username=USER,
        sasl_plain_password=WRONG,
        proxy_url=f"http://me:{WRONG}@proxy:3128",
    )

    whole = livevec.run("check-config")
    livevec.configure(
        {"source.kafka.client": {"ssl_cafile": "/no/such.pem", "sasl_plain_pasword": WRONG}}
    )
    faulty = livevec.run("check-config")

    client = json.loads(whole.out)["source"]["kafka"]["client"]
    assert client["sasl_plain_password"] == "***"
    assert client["proxy_url"] == "http://***@proxy:3128"
    assert faulty.code == 2
    misspelt, missing = faulty.complaints
    assert "did you mean sasl_plain_password" in misspelt
    assert "ssl_cafile: expected a PEM file of certificates at '/no/such.pem'" in missing
    assert not shown(livevec, whole, WRONG) + shown(livevec, faulty, WRONG)


def ended_together(directory: Path, cases: Sequence[tuple[str, dict[str, str], str]]):
    """Run each case beside the others; return how each ended, and after how many seconds."""
    begun = time.monotonic()
    with ExitStack() as closed:
        running = []
        for address, client, _ in cases:
            own = Livevec(Path(tempfile.mkdtemp(dir=directory)))
            closed.callback(own.close)
            configure(own, address, **client)
            running.append(own.start())
        return [(one.ended(), time.monotonic() - begun) for one in running]


@pytest.mark.slow
def test_what_is_wrong_at_the_start_is_told_apart_in_time(tmp_path, compiled_kernels, secured):
    tls = {"security_protocol": "SSL", "ssl_cafile": str(secured.ca_file)}
    over_tls = {**login("SASL_SSL", "PLAIN"), "ssl_cafile": tls["ssl_cafile"]}
    in_clear = login("SASL_PLAINTEXT", "PLAIN")
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        nobody = "{}:{}".format(*unheard.getsockname())
        cases = [
            (secured.sasl_bootstrap, {**in_clear, "sasl_plain_password": WRONG}, "the password is"),
            (secured.sasl_ssl_bootstrap, {**over_tls, "sasl_plain_password": WRONG}, "refused"),
            (secured.ssl_bootstrap, {"security_protocol": "SSL"}, "an untrusted certificate"),
            (secured.ssl_bootstrap, {}, "an answer that is not Kafka's"),
            (secured.bootstrap, tls, "a port that does not speak TLS"),
            (nobody, {}, "nobody who listens there"),
            ("no-such-host.invalid:9092", {}, "a name without an address"),
            (secured.bootstrap, {}, "expected topic 'clicks' at "),
        ]
        told = [one for at in (0, 4) for one in ended_together(tmp_path, cases[at : at + 4])]

    for (ended, seconds), (_, _, found) in zip(told, cases, strict=True):
        assert ended.code == 3
        (line,) = ended.complaints
        assert found in line
        assert seconds < DEADLINE_SECONDS + BUSY_SECONDS
        assert WRONG not in ended.out + ended.err


@pytest.mark.slow
@pytest.mark.crash
def test_while_a_broker_is_away_its_cause_is_known_and_the_log_is_not_filled(livevec, own_broker):
    own = own_broker
    with KafkaAdminClient(bootstrap_servers=own.bootstrap) as admin:
        admin.create_topics({"clicks": {"num_partitions": 1}}, wait_for_metadata=True)
    configure(livevec, own.bootstrap)
    running = livevec.start()
    running.event("polling")
    consumer = connect(KafkaSource(bootstrap_servers=(own.bootstrap,), topics=("clicks",)))
    partition = TopicPartition("clicks", 0)
    consumer.assign([partition])
    consumer.seek(partition, 0)

    def cause():
        consumer.poll(100)
        return consumer.last_cause()

    before = cause()
    own.kill()
    away = wait_for(cause, "the cause")
    time.sleep(3.0)  # some attempts to reach it
    own.start()
    wait_for(lambda: cause() is None, "the broker's return")
    with KafkaProducer(bootstrap_servers=own.bootstrap) as producer:
        for row in clicks(N):
            producer.send("clicks", value=json.dumps(row).encode())
    wait_for(lambda: livevec.committed() == N, "all clicks")
    ended = running.terminated()
    consumer.close()

    assert before is None
    assert away.found.startswith(("nobody who listens there", "a broker that hangs up"))
    assert ended.code == 0
    assert ended.complaints == []
    assert '"logger": "kafka' not in ended.err
