"""An ASGI application on an address, served from a thread beside the caller's."""

import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from streamer.errors import ConfigError

_BACKLOG = 2048
_GRACE_SECONDS = 5


class HttpServer:
    """Listens from its construction on; answers between `start` and `stop`.

    Raises `ConfigError` when the address cannot be had; `setting` names the port's setting.
    """

    def __init__(self, app: Any, host: str, port: int, setting: str) -> None:
        self._socket = _listen(host, port, setting)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        self._server = _Server(config)
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """Where it listens, as a URL; the port is the true one, even if 0 was asked for."""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> None:
        """Begin to answer, on a thread of its own; returns at once."""
        self._thread = threading.Thread(target=self.run, name="livevec-http", daemon=True)
        self._thread.start()

    def run(self) -> None:
        """Answer on the calling thread until `stop`."""
        self._server.run(sockets=[self._socket])

    def request_stop(self, *, is_forced: bool = False) -> None:
        """Ask `run` to end; returns at once, and may be called by a signal handler.

        Forced, it does not wait for the requests that have begun.
        """
        self._server.should_exit = True
        self._server.force_exit = self._server.force_exit or is_forced

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """Finish what is being answered and release the address. Idempotent."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(timeout_seconds)
            self._thread = None
        self._socket.close()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process: uvicorn would raise them again when it is done."""
        yield


def _listen(host: str, port: int, setting: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            msg = (
                f"{setting}: port {port} on {host!r} is in use; "
                f"stop what listens there, or set {setting} to another port (0 takes a free one)"
            )
        else:
            msg = f"{setting}: cannot listen on {host!r} port {port}: {error.strerror or error}"
        raise ConfigError(msg) from error
    return listener
