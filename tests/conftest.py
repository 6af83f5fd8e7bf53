"""What every test may use: a clock that is set by hand, and one Kafka broker for the whole run.

An error that a thread swallows fails the test: pytest warns, and warnings are errors here.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.broker.broker import Broker, BrokerFailed, BrokerUnavailable, version


class ManualClock:
    """A `streamer.clock.Clock` that goes on when it is told to, and when somebody sleeps."""

    def __init__(self, seconds: float = 1_700_000_000.0) -> None:
        self._start_ms = round(seconds * 1000)
        self._seconds = 0.0  # not since 1970: sleeps of less than 0.2 us would be no time at all

    def now_ms(self) -> int:
        return self._start_ms + round(self._seconds * 1000)

    def monotonic(self) -> float:
        return self._seconds

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        assert seconds >= 0
        self._seconds += seconds


@dataclass(frozen=True)
class RunBroker:
    """Addresses of the run's broker; `sasl_bootstrap` wants PLAIN, livevec, secret.

    It knows the user of `deploy.broker.broker`, too, as `sasl_ssl_bootstrap` does, by PLAIN and
    SCRAM-SHA-512; `ca_file` holds the CA of the two that speak TLS.
    """

    bootstrap: str
    sasl_bootstrap: str | None = None
    ssl_bootstrap: str | None = None
    sasl_ssl_bootstrap: str | None = None
    ca_file: Path | None = None


BROKERS_USED = pytest.StashKey[list[str]]()  # what each process that runs tests has used


@pytest.fixture
def manual_clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="session")
def broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunBroker]:
    """Yield `LIVEVEC_TEST_BROKER`, else a broker of our own; skip where there can be none.

    One that can be had and does not start is a failure where `CI` is true.
    """
    used = request.config.stash.setdefault(BROKERS_USED, [])
    if named := os.environ.get("LIVEVEC_TEST_BROKER"):
        used.append(f"{named} (LIVEVEC_TEST_BROKER)")
        yield RunBroker(named)
        return
    own = None
    try:
        own = _started(tmp_path_factory.mktemp("broker"))
    except BrokerUnavailable as error:
        used.append(f"none: {error}")
        pytest.skip(str(error))
    except BrokerFailed as error:
        used.append(f"none: {error}")
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    used.append(f"Apache Kafka {version()} at {own.bootstrap}, started for this run")
    yield RunBroker(
        own.bootstrap, own.sasl_bootstrap, own.ssl_bootstrap, own.sasl_ssl_bootstrap, own.ca_file
    )
    own.stop()


def _started(directory: Path) -> Broker:
    own = Broker(directory, is_secured=True)
    own.start()
    return own


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In one of several processes, send the brokers to the one that tells of the run."""
    sent: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if sent is not None:
        sent["brokers"] = session.config.stash.get(BROKERS_USED, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    output = getattr(node, "workeroutput", {})  # not of one that died
    node.config.stash.setdefault(BROKERS_USED, []).extend(output.get("brokers", []))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for used in config.stash.get(BROKERS_USED, []):
        terminalreporter.write_line(f"broker: {used}")
