"""The run of the tests itself: without a broker, with a broken one, and with a swallowed error."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent.parent
NEEDS_BROKER = "tests/streamer/sources/test_kafka.py::test_a_missing_topic_is_named"

PLANTED_BROKER = """
from deploy.broker import broker

def start(self):
    raise broker.{error}("planted")

broker.Broker.start = start
"""

PLANTED_THREAD = """
import threading

def test_a_thread_that_dies():
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
"""


def run_pytest(*arguments: str, path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in {"CI", "LIVEVEC_TEST_BROKER"}}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command,
        cwd=PROJECT,
        env={**kept, "PYTHONPATH": str(path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "ci", "outcome"),
    [
        ("BrokerUnavailable", "true", "1 skipped"),
        ("BrokerFailed", "", "1 skipped"),
        ("BrokerFailed", "true", "1 error"),
    ],
)
def test_only_a_broker_that_can_be_had_and_does_not_start_fails_and_only_in_ci(
    tmp_path, error, ci, outcome
):
    (tmp_path / "planted.py").write_text(PLANTED_BROKER.format(error=error))

    run = run_pytest("-p", "planted", NEEDS_BROKER, path=tmp_path, CI=ci)

    assert outcome in run.stdout
    assert (run.returncode == 0) == (outcome == "1 skipped")
    assert "broker: none: planted" in run.stdout


def test_an_error_in_a_thread_fails_the_test_that_swallowed_it(tmp_path):
    planted = tmp_path / "test_planted.py"
    planted.write_text(PLANTED_THREAD)

    run = run_pytest("-c", str(PROJECT / "pyproject.toml"), str(planted), path=tmp_path)

    assert run.returncode == 1
    assert "ZeroDivisionError" in run.stdout
