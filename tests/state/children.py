"""Real child processes for the tests of what survives a SIGKILL."""

import os
import signal
from collections.abc import Callable
from typing import NoReturn

ACTS = (
    "fsync", "ftruncate", "link", "mkdir", "rename", "replace", "rmdir", "unlink", "write",
)  # fmt: skip


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


def stop_before_act(n: int, number: signal.Signals) -> None:
    """Send this process `number` before its n-th system call that changes what is on the disk."""
    left = [n]

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def stopping(*arguments: object, **options: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), number)
            return call(*arguments, **options)

        return stopping

    for name in ACTS:
        setattr(os, name, counted(getattr(os, name)))


def wait_until_stopped(child: int) -> int | None:
    """Wait until a child is stopped, or has ended; return its exit status then."""
    _, status = os.waitpid(child, os.WUNTRACED)
    return None if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
