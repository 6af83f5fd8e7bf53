"""Commands and exit codes; no logic."""

import importlib.metadata
import inspect
import json
import os
import sys
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import typer

from state.errors import StateError
from streamer import config as settings
from streamer import demo as demonstration
from streamer.clock import SystemClock
from streamer.config import Config
from streamer.daemon import Daemon, stop_on_signals
from streamer.errors import BrokerError, ConfigError, DeadLetterLimit
from streamer.evaluation import command as evaluation
from streamer.evaluation.report import as_table as as_figures
from streamer.heap import fill_array_cache, return_large_arrays
from streamer.logs import configure_logs, kernel_progress
from streamer.replay.options import ReplayOptions
from streamer.replay.replay import Replay
from streamer.serving.app import serve as serve_queries
from streamer.settings.presets import PRESETS, Preset, as_toml
from streamer.sources.opening import check_source, open_source

STANDARD_OUTPUT, STANDARD_ERROR = 1, 2
EXIT_STOPPED, EXIT_CONFIG, EXIT_BROKER, EXIT_STATE, EXIT_DEAD_LETTERS, EXIT_BUG = 1, 2, 3, 4, 5, 70

app = typer.Typer(
    name="livevec",
    help="Item embeddings that learn from live clicks and are never stale.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="TOML file with the settings; see the README."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the summary as one JSON object, as the last line.")
]


@app.command()
def run(
    config: ConfigFile = None,
    generation: Annotated[
        int | None, typer.Option(help="Go on from this generation instead of the newest.")
    ] = None,
    take_group: Annotated[
        bool,
        typer.Option("--take-group", help="Write over what others have committed to our group."),
    ] = False,
    standby: Annotated[
        bool, typer.Option("--standby", help="Wait while another holds the state, then take over.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Learn from the configured source until it ends or a SIGTERM comes."""
    if standby and generation is not None:
        msg = "--standby: expected no --generation beside it, found both; roll back by itself first"
        raise ConfigError(msg)
    loaded = settings.load(config)
    configure_logs(loaded.log)
    clock = SystemClock()
    daemon = Daemon(
        loaded,
        partial(open_source, loaded, clock, take_group=take_group),
        clock,
        generation=generation,
        is_standby=standby,
        on_progress=kernel_progress(sys.stderr, clock),
    )
    stop_on_signals(daemon.stop)
    summary = daemon.run()
    print(json.dumps(summary) if as_json else _as_table(summary))


@app.command()
def serve(config: ConfigFile = None) -> None:
    """Answer queries over HTTP from the versions that a daemon publishes."""
    loaded = settings.load(config)
    configure_logs(loaded.log)
    raise typer.Exit(serve_queries(loaded))


@app.command()
def demo(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the query service.")] = 8080,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="End by itself, so long after the first click.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Watch vectors learn from generated traffic: no Kafka, no configuration, no internet."""
    summary = demonstration.run(port, seconds, is_quiet=as_json)
    print(json.dumps(summary) if as_json else _as_table(summary))


def replay(**given: Any) -> None:
    """Put repaired dead letters back into Kafka, or publish a file of clicks there."""
    options = ReplayOptions(**given)
    loaded = settings.load(options.config)
    configure_logs(loaded.log)
    one = Replay(loaded, options, SystemClock())
    stop_on_signals(one.stop)
    summary = one.run()
    print(json.dumps(summary) if options.as_json else _as_table(summary))
    if one.is_stopped:
        raise typer.Exit(EXIT_STOPPED)


# The command takes an option for each field.
replay.__signature__ = inspect.signature(ReplayOptions)  # type: ignore[attr-defined]
app.command()(replay)


@app.command()
def evaluate(
    events: Annotated[Path, typer.Argument(help="CSV or JSON lines of clicks, in order of time.")],
    config: ConfigFile = None,
    tests: Annotated[int, typer.Option(min=1, help="Clicks that are ranked; or all there are.")] = (
        20_000
    ),
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Give the baselines a wider grid of settings.")
    ] = False,
) -> None:
    """Rank clicks before they are trained: how good the vectors are, beside co-occurrence counts.

    Prints a table and, as the last line, one JSON object.
    """
    loaded = settings.load(config)
    configure_logs(loaded.log)
    found = evaluation.run(loaded, events, tests, SystemClock(), sweep=sweep)
    print(f"{as_figures(found)}\n{json.dumps(found)}")


@app.command("check-config")
def check_config(config: ConfigFile = None) -> None:
    """Print the effective settings, or every fault in them."""
    loaded: Config = settings.load(config)
    check_source(loaded)
    print(json.dumps(loaded.public(), indent=2))


@app.command()
def presets(
    name: Annotated[
        Preset | None, typer.Argument(help="One of them; all of them by default.")
    ] = None,
) -> None:
    """Print the TOML that each preset of the clicks' mapping stands for."""
    print("\n\n".join(as_toml(one) for one in ([name] if name else PRESETS)))


@app.command()
def version() -> None:
    """Print the version of livevec."""
    print(importlib.metadata.version("livevec"))


def main() -> None:
    """Run a command; every expected error is one line and an exit code."""
    _open_what_is_closed()
    return_large_arrays()
    fill_array_cache()
    try:
        app(standalone_mode=True)
    except SystemExit as end:
        _leave(end.code if isinstance(end.code, int) else 0)
    except ConfigError as error:
        _fail(EXIT_CONFIG, *error.faults)
    except BrokerError as error:
        _fail(EXIT_BROKER, str(error))
    except StateError as error:
        _fail(EXIT_STATE, str(error))
    except DeadLetterLimit as error:
        _fail(EXIT_DEAD_LETTERS, str(error))
    finally:
        sys.excepthook = _on_bug  # not sooner: typer sets one of its own while it runs


def _open_what_is_closed() -> None:
    """Put the null device where a standard stream was closed, before a file gets its number."""
    while (null := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        pass
    os.close(null)
    sys.stdout = sys.stdout or os.fdopen(STANDARD_OUTPUT, "w")
    sys.stderr = sys.stderr or os.fdopen(STANDARD_ERROR, "w")


def _fail(code: int, *lines: str) -> None:
    for line in lines:
        print(f"livevec: {line}", file=sys.stderr)
    _leave(code)


def _leave(code: int) -> None:
    """Exit at once: a build beside the stream that is inside FAISS would abort a slow farewell."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


def _on_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Tell an error that nobody expected; threads that still run do not keep the process."""
    traceback.print_exception(kind, error, trace)
    print("livevec: a bug; report it with the lines above", file=sys.stderr)
    _leave(EXIT_BUG)


def _as_table(summary: dict[str, Any]) -> str:
    width = max(len(name) for name in summary)
    return "\n".join(f"{name:<{width}}  {_as_text(value)}" for name, value in summary.items())


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_as_text(one)}" for key, one in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
