"""The HTTP reference service, as a process or a thread: it listens, watches for versions, stops."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import structlog
from prometheus_client import CollectorRegistry

from streamer.clock import SystemClock
from streamer.config import Config
from streamer.errors import ConfigError, NotReady
from streamer.http import HttpServer
from streamer.metrics import ServingMetrics
from streamer.serving.routes import create_app
from streamer.serving.searcher import Searcher
from streamer.settings.process import Serving

_FORCED = 1


class QueryService:
    """HTTP over a searcher: `run` in the calling thread, or `start` and `close` beside it.

    The address is taken when the service is made: from then on connections queue, and
    `address` has the real port. Raises `ConfigError` when it cannot be had.
    """

    def __init__(self, searcher: Searcher, settings: Serving) -> None:
        self._searcher = searcher
        app = create_app(searcher, settings)
        self._server = HttpServer(app, settings.host, settings.port, "serving.port")

    @property
    def address(self) -> str:
        """Where it listens, as a URL."""
        return self._server.address

    def run(self) -> None:
        """Answer until `request_stop`; then let the requests that have begun end."""
        self._searcher.start()
        try:
            self._server.run()
        finally:
            self.close()

    def start(self) -> None:
        """Answer from a thread of its own until `close`."""
        self._searcher.start()
        self._server.start()

    def request_stop(self, *, is_forced: bool = False) -> None:
        """Ask `run` to end; returns at once, and may be called by a signal handler."""
        self._server.request_stop(is_forced=is_forced)

    def close(self) -> None:
        """Stop answering, wait until it has stopped, release the address. Idempotent."""
        self._server.stop()
        self._searcher.close()


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


@contextmanager
def _signals(service: QueryService) -> Iterator[list[int]]:
    seen: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        seen.append(number)
        service.request_stop(is_forced=len(seen) > 1)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield seen
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
