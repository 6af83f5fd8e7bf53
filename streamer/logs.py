"""Structured log lines on standard error, and progress for people who wait."""

import logging
import sys
from collections.abc import Callable
from typing import TextIO

import structlog

from streamer.clock import Clock
from streamer.settings.process import Log

QUIET_SECONDS = 1.5
# kafka-python warns at each attempt to reach a broker that is away; we tell it once ourselves.
KAFKA_HIDDEN = logging.CRITICAL
# Below that it writes down what it sends, the password among it.
KAFKA_SHOWN = logging.INFO


def configure_logs(settings: Log) -> None:
    """Send every log line of this process to standard error, for people or as JSON."""
    level = getattr(logging, settings.level.upper())
    is_json = settings.format == "json"
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if is_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if is_json:
        shared.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    of_libraries = logging.StreamHandler(sys.stderr)
    of_libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *shared,
                renderer,
            ]
        )
    )
    logging.basicConfig(handlers=[of_libraries], level=max(level, logging.WARNING))
    logging.getLogger("kafka").setLevel(KAFKA_SHOWN if settings.level == "debug" else KAFKA_HIDDEN)
    # Whose errors are no weather: the loop itself has failed.
    logging.getLogger("kafka.net.selector").setLevel(logging.ERROR)


def kernel_progress(stream: TextIO, clock: Clock) -> Callable[[int, int, str], None]:
    """Return a callback that shows which kernel is being compiled, once that takes a while.

    Kernels that come out of the cache go by unseen. At a terminal it is one line.
    """
    begun = clock.monotonic()

    def show(done: int, total: int, name: str) -> None:
        if clock.monotonic() - begun < QUIET_SECONDS:
            return
        line = f"compiling kernels, once on this machine: {done + 1}/{total} {name}"
        if stream.isatty():
            stream.write(f"\r\x1b[K{line}" + ("\r\x1b[K" if done + 1 == total else ""))
        else:
            stream.write(f"{line}\n")
        stream.flush()

    return show
