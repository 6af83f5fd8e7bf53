"""The daemon's own HTTP: /metrics, /healthz, /readyz."""

import threading

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from streamer.clock import Clock


class Health:
    """Whether the loop turns, and whether the daemon does its work; shared between threads."""

    def __init__(self, clock: Clock, stalled_seconds: float) -> None:
        self._clock = clock
        self._stalled_seconds = stalled_seconds
        self._lock = threading.Lock()
        self._turned_at: float | None = None
        self._reason: str | None = "starting"

    def turn(self) -> None:
        """Note that the loop has turned."""
        with self._lock:
            self._turned_at = self._clock.monotonic()

    def ready(self) -> None:
        """Note that the state is restored, the kernels compiled and the source at its place."""
        with self._lock:
            self._reason = None

    def not_ready(self, reason: str) -> None:
        """Note why clicks are not being learned."""
        with self._lock:
            self._reason = reason

    def stall(self) -> str | None:
        """Return why the process should be restarted, or None; a start may take its time."""
        with self._lock:
            if self._turned_at is None:
                return None
            seconds = self._clock.monotonic() - self._turned_at
        if self._reason == "draining" or seconds < self._stalled_seconds:
            return None
        return f"the loop has not turned for {seconds:.0f} s"

    def unready(self) -> str | None:
        """Return why clicks are not being learned, or None."""
        with self._lock:
            return self._reason


def monitoring_app(registry: CollectorRegistry, health: Health) -> Starlette:
    """Return the application that answers probes and scrapes."""

    def metrics(request: Request) -> Response:
        del request
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    def healthz(request: Request) -> Response:
        del request
        return _probe(health.stall())

    def readyz(request: Request) -> Response:
        del request
        return _probe(health.unready())

    routes = [Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)]
    return Starlette(routes=routes)


def _probe(fault: str | None) -> Response:
    return PlainTextResponse(
        "ok\n" if fault is None else f"{fault}\n", 200 if fault is None else 503
    )
