"""Real child processes for the tests of what survives a SIGKILL."""

import os
import signal
from collections.abc import Callable
from typing import NoReturn


def die(*_: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def run_in_child(body: Callable[[], object]) -> int:
    """Fork, run `body` there, and return the exit status; negative is the signal it died of."""
    return wait(start_child(body))


def start_child(body: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        body()
        status = 0
    finally:
        os._exit(status)


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
