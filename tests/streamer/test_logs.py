"""Every line on standard error has one form, whoever writes it."""

import json
import subprocess
import sys

import pytest

LOGS = """
import logging, sys
from streamer.settings.process import Log
from streamer.logs import configure_logs
import structlog
configure_logs(Log(format=sys.argv[1], level=sys.argv[2]))
structlog.get_logger().info("ours", clicks=3)
logging.getLogger("kafka.net").warning("theirs %s", "failed")
logging.getLogger("kafka.net").info("unasked")
try:
    raise ValueError("broken")
except ValueError:
    logging.getLogger("uvicorn.error").exception("it fell")
"""


def written(form, level="info"):
    done = subprocess.run(
        [sys.executable, "-c", LOGS, form, level], capture_output=True, text=True, check=True
    )
    return done.stderr.splitlines()


def test_libraries_log_json_lines_too():
    ours, theirs, fell = (json.loads(line) for line in written("json"))

    assert (ours["event"], ours["clicks"], ours["level"]) == ("ours", 3, "info")
    assert (theirs["event"], theirs["logger"]) == ("theirs failed", "kafka.net")
    assert theirs["level"] == "warning"
    assert "ValueError: broken" in fell["exception"]
    assert all("timestamp" in line for line in (ours, theirs, fell))


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_higher_level_holds_for_libraries_too(form):
    lines = written(form, "error")

    assert not any("theirs" in line or "ours" in line for line in lines)
    assert any("it fell" in line for line in lines)
