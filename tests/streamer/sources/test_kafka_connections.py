"""What is told of brokers that cannot be reached or refuse us, against real ones."""

import socket
import threading
import time

import pytest
from kafka.errors import KafkaConnectionError, KafkaError, SaslAuthenticationFailedError

from deploy.broker.broker import PASSWORD, USER
from streamer.errors import BrokerError
from streamer.settings.sources import KafkaSource
from streamer.sources import kafka_connections
from streamer.sources.kafka_causes import cause_of
from streamer.sources.kafka_client import connect
from streamer.sources.kafka_connections import WatchedClient

PATIENCE_SECONDS = 10.0
# Far below the seconds that a hopeless start may take, far above what it needs.
AT_ONCE_SECONDS = 4.0


def settings(*servers: str, seconds: float = PATIENCE_SECONDS, **client) -> KafkaSource:
    return KafkaSource(
        bootstrap_servers=servers, topics=("x",), connect_timeout_seconds=seconds, client=client
    )


def login(mechanism: str, password: str = PASSWORD) -> dict[str, str]:
    return {
        "sasl_mechanism": mechanism,
        "sasl_plain_username": USER,
        "sasl_plain_password": password,
    }


def refusal(asked: KafkaSource) -> str:
    with pytest.raises(BrokerError) as caught:
        connect(asked)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def secured(broker):
    if broker.ca_file is None:
        pytest.skip("the broker of LIVEVEC_TEST_BROKER has no listeners that we know passwords of")
    return broker


@pytest.fixture
def addresses(secured) -> dict[str, str]:
    return {
        "PLAINTEXT": secured.bootstrap,
        "SSL": secured.ssl_bootstrap,
        "SASL_PLAINTEXT": secured.sasl_bootstrap,
        "SASL_SSL": secured.sasl_ssl_bootstrap,
    }


def trusting(secured, protocol: str) -> dict[str, str]:
    ca = {"ssl_cafile": str(secured.ca_file)} if protocol.endswith("SSL") else {}
    return {"security_protocol": protocol, **ca}


@pytest.mark.kafka
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_the_password_decides_whether_we_are_let_in(secured, addresses, protocol, mechanism):
    known = trusting(secured, protocol)
    begun = time.monotonic()

    consumer = connect(settings(addresses[protocol], **known, **login(mechanism)))
    consumer.close()
    told = refusal(settings(addresses[protocol], **known, **login(mechanism, "wrong-one")))

    assert time.monotonic() - begun < AT_ONCE_SECONDS
    assert f"a broker at {addresses[protocol]} " in told
    assert "found that the user name or the password is refused (Authentication failed" in told
    assert told.endswith("correct source.kafka.client.sasl_plain_username or sasl_plain_password")
    assert "wrong-one" not in told


@pytest.mark.kafka
def test_a_private_ca_is_trusted_where_it_is_named_and_only_there(secured, addresses):
    begun = time.monotonic()

    consumer = connect(settings(addresses["SSL"], **trusting(secured, "SSL")))
    told = refusal(settings(addresses["SSL"], security_protocol="SSL"))

    assert time.monotonic() - begun < AT_ONCE_SECONDS
    assert consumer.last_cause() is None
    consumer.close()
    assert "found an untrusted certificate (certificate verify failed: " in told
    assert told.endswith("name the CA that has signed it in source.kafka.client.ssl_cafile")


@pytest.mark.kafka
def test_a_name_that_the_certificate_does_not_hold_is_refused(secured, addresses):
    server = addresses["SSL"].replace("127.0.0.1", "127.1")

    told = refusal(settings(server, **trusting(secured, "SSL")))

    assert "found a certificate of another name (" in told
    assert "source.kafka.bootstrap_servers" in told


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("ours", "theirs", "found", "remedy"),
    [
        ("PLAINTEXT", "SSL", "an answer that is not Kafka's", "to SSL or SASL_SSL"),
        ("SASL_PLAINTEXT", "SASL_SSL", "an answer that is not Kafka's", "to SSL or SASL_SSL"),
        ("SASL_PLAINTEXT", "PLAINTEXT", "a port without SASL", "to PLAINTEXT or SSL"),
        ("SASL_SSL", "SSL", "a port without SASL", "to PLAINTEXT or SSL"),
    ],
)
def test_a_port_of_another_protocol_is_told_at_once(
    secured, addresses, ours, theirs, found, remedy
):
    begun = time.monotonic()

    told = refusal(settings(addresses[theirs], **trusting(secured, ours), **login("PLAIN")))

    assert time.monotonic() - begun < AT_ONCE_SECONDS
    assert f"found {found}" in told
    assert f"set source.kafka.client.security_protocol {remedy}, or name another port" in told


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("ours", "theirs", "found"),
    [
        ("SSL", "PLAINTEXT", "a port that does not speak TLS"),
        ("PLAINTEXT", "SASL_PLAINTEXT", "a broker that hangs up"),
        ("SSL", "SASL_SSL", "a broker that hangs up"),
    ],
)
def test_what_may_be_a_broker_that_starts_is_told_when_the_time_is_up(
    secured, addresses, ours, theirs, found
):
    told = refusal(settings(addresses[theirs], seconds=0.4, **trusting(secured, ours)))

    assert f"found {found}" in told
    assert "security_protocol" in told


@pytest.mark.kafka
def test_a_mechanism_that_is_not_enabled_is_named_as_the_fault(secured, addresses):
    client = {"security_protocol": "SASL_PLAINTEXT", **login("SCRAM-SHA-256")}

    told = refusal(settings(addresses["SASL_PLAINTEXT"], **client))

    assert "found that the sasl_mechanism is not enabled there" in told


@pytest.mark.kafka
def test_one_server_that_refuses_us_does_not_keep_us_from_another(secured, addresses):
    servers = (addresses["SSL"], addresses["PLAINTEXT"])

    connect(settings(*servers)).close()


def test_several_servers_are_told_apart():
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
        servers = (f"127.0.0.1:{port}", "no-such-host.invalid:9092")

        # Servers are drawn by lot: many attempts, so that each has its turn.
        often = {"reconnect_backoff_ms": 10, "reconnect_backoff_max_ms": 10}
        told = refusal(settings(*servers, seconds=1.0, **often))

    assert f"at 127.0.0.1:{port} nobody who listens there (111 ECONNREFUSED); " in told
    assert "at no-such-host.invalid:9092 a name without an address (Name or service not" in told


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
def test_where_nobody_answers_a_start_ends_in_time(protocol):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()

        told = refusal(
            settings(
                f"127.0.0.1:{silent.getsockname()[1]}", seconds=0.3, security_protocol=protocol
            )
        )

        assert time.monotonic() - begun < AT_ONCE_SECONDS
    assert "found no answer (" in told


def test_a_name_server_that_is_silent_does_not_hold_up_a_start(monkeypatch):
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(PATIENCE_SECONDS))
    monkeypatch.setattr(kafka_connections, "LOOK_UP_SECONDS", 0.2)
    begun = time.monotonic()

    told = refusal(settings("broker.example:9092", seconds=0.3))

    assert time.monotonic() - begun < AT_ONCE_SECONDS
    assert "found a name without an address (no answer about broker.example in 0.2 s)" in told
    answered.set()


def test_who_has_been_let_in_once_goes_on_trying():
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        client = WatchedClient(bootstrap_servers=["{}:{}".format(*unheard.getsockname())])
    refused = SaslAuthenticationFailedError("a password that was changed")
    client.causes.failed("bootstrap-0", refused)

    with pytest.raises(KafkaError, match="every server has refused us"):
        client._manager.get_connection("bootstrap-0")
    client.causes.connected()
    client.causes.failed("bootstrap-0", refused)
    attempt = client._manager.get_connection("bootstrap-0")
    client.poll(timeout_ms=PATIENCE_SECONDS * 1000, future=attempt.close_future)
    client.close()

    assert client.causes.last == cause_of(KafkaConnectionError("111 ECONNREFUSED"))
