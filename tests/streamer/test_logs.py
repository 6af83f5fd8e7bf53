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
logging.getLogger("uvicorn").warning("theirs %s", "failed")
logging.getLogger("uvicorn").info("unasked")
logging.getLogger("kafka.net.manager").error("away")
logging.getLogger("kafka.net.manager").info("back")
logging.getLogger("kafka.net.connection").debug("the password")
logging.getLogger("kafka.net.selector").error("it is broken")
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
    ours, theirs, _, fell = (json.loads(line) for line in written("json"))

    assert (ours["event"], ours["clicks"], ours["level"]) == ("ours", 3, "info")
    assert (theirs["event"], theirs["logger"]) == ("theirs failed", "uvicorn")
    assert theirs["level"] == "warning"
    assert "ValueError: broken" in fell["exception"]
    assert all("timestamp" in line for line in (ours, theirs, fell))


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_higher_level_holds_for_libraries_too(form):
    lines = written(form, "error")

    assert not any("theirs" in line or "ours" in line for line in lines)
    assert any("it fell" in line for line in lines)


@pytest.mark.parametrize("level", ["info", "error"])
def test_what_kafka_python_says_of_each_attempt_is_kept_out(level):
    lines = [json.loads(line)["event"] for line in written("json", level)]

    assert not {"away", "back"} & set(lines)
    assert "it is broken" in lines


def test_at_level_debug_kafka_python_is_heard_but_never_what_it_sends():
    lines = [json.loads(line)["event"] for line in written("json", "debug")]

    assert "away" in lines
    assert "back" in lines
    assert "the password" not in lines
