"""The HTTP reference service, as a process or a thread: it listens, watches for versions, stops."""

import errno
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import structlog
import uvicorn
from prometheus_client import CollectorRegistry

from streamer.clock import SystemClock
from streamer.config import Config, Serving
from streamer.errors import ConfigError, NotReady
from streamer.metrics import ServingMetrics
from streamer.serving.routes import create_app
from streamer.serving.searcher import Searcher

_BACKLOG = 2048
_GRACE_SECONDS = 5
_FORCED = 1


class QueryService:
    """HTTP over a searcher: `run` in the calling thread, or `start` and `close` beside it.

    The address is taken when the service is made: from then on connections queue, and `port`
    is the real one. Raises `ConfigError` when it cannot be had.
    """

    def __init__(self, searcher: Searcher, settings: Serving) -> None:
        self._searcher = searcher
        self._socket = _listen(settings.host, settings.port)
        self.host = settings.host
        self.port = int(self._socket.getsockname()[1])
        self._server = _Server(
            uvicorn.Config(
                create_app(searcher, settings),
                access_log=False,
                lifespan="off",
                log_config=None,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """Where it listens, as a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def run(self) -> None:
        """Answer until `stop`; then let the requests that have begun end."""
        self._searcher.start()
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._searcher.close()
            self._socket.close()

    def start(self) -> None:
        """Answer from a thread of its own until `close`."""
        self._thread = threading.Thread(target=self.run, name="queries", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask `run` to end; returns at once, and may be called from a signal handler."""
        self._server.should_exit = True

    def force(self) -> None:
        """Ask `run` to end without waiting for the requests that have begun."""
        self._server.should_exit = self._server.force_exit = True

    def close(self) -> None:
        """Stop answering, and wait until it has stopped. Idempotent."""
        self.stop()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._socket.close()


def serve(config: Config) -> int:
    """Answer queries over what `config.published` holds until SIGTERM or SIGINT.

    Returns the exit code: 0, or 1 when a second signal did not wait for open requests. Called
    from the main thread. Raises `ConfigError` when the address or the directory cannot be used.
    """
    log = structlog.get_logger()
    if config.published.exists() and not config.published.is_dir():
        message = f"{str(config.published)!r}: expected a directory of versions, found a file; "
        raise ConfigError(message + "set publish.directory")
    metrics = ServingMetrics(CollectorRegistry())
    searcher = Searcher(config.published, config.serving, SystemClock(), metrics)
    service = QueryService(searcher, config.serving)
    with _signals(service) as seen:
        searcher.refresh()
        log.info("service_listening", address=service.address, directory=str(config.published))
        try:
            searcher.loaded()
        except NotReady as error:
            log.warning("service_waiting", reason=str(error))
        service.run()
    log.info("service_stopped", signals=len(seen))
    return 0 if len(seen) < 2 else _FORCED


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process: uvicorn raises them again when it is done."""
        yield


@contextmanager
def _signals(service: QueryService) -> Iterator[list[int]]:
    seen: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        seen.append(number)
        if len(seen) == 1:
            service.stop()
        else:
            service.force()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield seen
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _listen(host: str, port: int) -> socket.socket:
    listening = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        if listening is not None:
            listening.close()
        if error.errno == errno.EADDRINUSE:
            message = f"serving.port: port {port} is in use by another process; "
            raise ConfigError(message + "choose another with serving.port") from error
        message = f"serving.host: cannot listen on {host!r} port {port}: {error.strerror}; "
        raise ConfigError(message + "choose another with serving.host and serving.port") from error
    return listening
