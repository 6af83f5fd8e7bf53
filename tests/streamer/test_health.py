import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from streamer.errors import ConfigError
from streamer.health import Health, monitoring_app
from streamer.http import HttpServer


@pytest.fixture
def health(manual_clock):
    return Health(manual_clock, stalled_seconds=30.0)


def test_a_start_that_takes_long_is_no_stall(health, manual_clock):
    manual_clock.advance(3600)

    assert health.stall() is None
    assert health.unready() == "starting"


def test_a_loop_that_does_not_turn_is_a_stall(health, manual_clock):
    health.ready()
    health.turn()
    manual_clock.advance(29.9)
    before = health.stall()
    manual_clock.advance(0.2)

    assert before is None
    assert "30 s" in health.stall()


def test_a_drain_is_not_ready_and_no_stall(health, manual_clock):
    health.turn()
    health.not_ready("draining")
    manual_clock.advance(60)

    assert health.stall() is None
    assert health.unready() == "draining"


def test_probes_and_metrics_are_answered_and_nothing_else(health):
    registry = CollectorRegistry()
    Counter("livevec_test", "A test's", registry=registry).inc(3)
    server = HttpServer(monitoring_app(registry, health), "127.0.0.1", 0, "metrics.port")
    server.start()
    try:
        starting = httpx.get(f"{server.address}/readyz")
        health.ready()
        answers = {
            path: httpx.get(f"{server.address}{path}")
            for path in ("/readyz", "/healthz", "/metrics", "/")
        }
    finally:
        server.stop()

    assert (starting.status_code, starting.text) == (503, "starting\n")
    assert answers["/readyz"].status_code == answers["/healthz"].status_code == 200
    assert "livevec_test_total 3.0" in answers["/metrics"].text
    assert answers["/"].status_code == 404


def test_a_port_in_use_names_its_setting(health):
    app = monitoring_app(CollectorRegistry(), health)
    first = HttpServer(app, "127.0.0.1", 0, "metrics.port")
    port = int(first.address.rsplit(":", 1)[1])
    try:
        with pytest.raises(ConfigError, match=rf"metrics\.port: port {port} .* is in use"):
            HttpServer(app, "127.0.0.1", port, "metrics.port")
    finally:
        first.stop()
