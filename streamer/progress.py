"""How far long work has got: a bar at a terminal, a line now and then elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from streamer.clock import Clock

Show = Callable[[int], None]

BAR_SECONDS = 0.1  # between two looks of the bar
LINE_SECONDS = 5.0  # and between two lines


@contextmanager
def progress(stream: TextIO, clock: Clock, total: int, what: str) -> Iterator[Show]:
    """Yield what is to be told how many of `total` records are done, as often as one likes."""
    if not stream.isatty():
        yield _seldom(clock, LINE_SECONDS, _lines(stream, clock, total, what))
        return
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(file=stream)) as bar:
        task = bar.add_task(what, total=total)

        def show(done: int) -> None:
            bar.update(task, completed=done)

        yield _seldom(clock, BAR_SECONDS, show)


def _lines(stream: TextIO, clock: Clock, total: int, what: str) -> Show:
    begun = clock.monotonic()

    def show(done: int) -> None:
        rate = done / max(clock.monotonic() - begun, 1e-9)
        stream.write(f"{what}: {done:,} of {total:,} records, {rate:,.0f}/s\n")
        stream.flush()

    return show


def _seldom(clock: Clock, seconds: float, show: Show) -> Show:
    """Return a `show` that passes on one call in so many seconds."""
    shown_at = clock.monotonic()

    def maybe(done: int) -> None:
        nonlocal shown_at
        if clock.monotonic() - shown_at >= seconds:
            shown_at = clock.monotonic()
            show(done)

    return maybe
