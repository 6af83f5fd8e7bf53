"""Real `livevec` processes over a directory of their own, and what they leave in it."""

import csv
import gzip
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from state import recovery
from state.recovery import Recovered
from streamer.clock import SystemClock
from streamer.sources.simulated import SimulatedClicks, TrafficSettings

PROJECT = Path(__file__).resolve().parent.parent.parent
PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.01
_EXPECTED = ("{", "compiling kernels")
COLUMNS = ("user_id", "item_id", "ts")

Row = Mapping[str, str | int]
T = TypeVar("T")


def clicks(n: int, seed: int = 3) -> list[Row]:
    """Return `n` generated clicks, late ones and bots among them."""
    source = SimulatedClicks(TrafficSettings(seed=seed, malformed=0.0), SystemClock())
    return list(source.rows(n))


def write_csv(path: Path, rows: Iterable[Row]) -> Path:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def append_csv(path: Path, rows: Iterable[Row]) -> None:
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.DictWriter(file, COLUMNS).writerows(rows)


def write_json(path: Path, rows: Iterable[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def wait_for(found: Callable[[], T | None], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """Return what `found` returns once it is true, looking again and again until the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        if time.monotonic() > deadline:
            message = f"waited {seconds:.0f} s in vain for {what}"
            raise TimeoutError(message)
        time.sleep(POLL_SECONDS)
    return value


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


@dataclass(frozen=True)
class Ended:
    """What a process has said."""

    code: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads(self.out.splitlines()[-1])

    @property
    def complaints(self) -> list[str]:
        """The lines on standard error that are neither structured log lines nor progress."""
        return [line for line in self.err.splitlines() if not line.startswith(_EXPECTED)]

    def events(self, name: str) -> list[dict[str, Any]]:
        return list(_events(self.err, name))


class Running:
    """A process of livevec whose output goes to files."""

    def __init__(self, place: Path, arguments: Iterable[str], environment: Mapping[str, str]):
        self._out, self._err = place.with_suffix(".out"), place.with_suffix(".err")
        kept = {k: v for k, v in os.environ.items() if not k.startswith("LIVEVEC_")}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streamer", *arguments],
                cwd=PROJECT,
                env={**kept, **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def out(self) -> str:
        return self._out.read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        return self._err.read_text(encoding="utf-8")

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log lines of that name so far."""
        return list(_events(self.err, name))

    def event(self, name: str) -> dict[str, Any]:
        """Wait for the first log line of that name."""

        def found() -> dict[str, Any] | None:
            has_ended = self.has_ended()
            one = next(_events(self._err.read_text(encoding="utf-8"), name), None)
            assert one is not None or not has_ended, self._err.read_text(encoding="utf-8")
            return one

        return wait_for(found, f"the log line {name!r}")

    def send(self, *numbers: signal.Signals) -> None:
        for number in numbers:
            self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)

    def ended(self, seconds: float = PATIENCE_SECONDS) -> Ended:
        code = self.process.wait(seconds)
        return Ended(code, self.out, self._err.read_text(encoding="utf-8"))

    def terminated(self) -> Ended:
        self.send(signal.SIGTERM)
        return self.ended()


@dataclass
class Livevec:
    """One state directory, one configuration file, and the processes over them."""

    directory: Path
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    started: list[Running] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def config(self) -> Path:
        return self.directory / "livevec.toml"

    def configure(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """Add to the settings; a table is named by its path, as in `source.files`."""
        for table, values in settings.items():
            self.settings[table] = {**self.settings.get(table, {}), **values}

    def read_from(self, *paths: Path, **settings: Any) -> None:
        self.configure({"source.files": {"paths": [str(path) for path in paths], **settings}})

    def start(self, *arguments: str) -> Running:
        """Start a command over the configuration as it is now."""
        base: dict[str, dict[str, Any]] = {
            "store": {"directory": str(self.state), "max_items": 20_000},
            "metrics": {"port": 0},
            "log": {"format": "json"},
        }
        merged = {
            table: {**base.get(table, {}), **self.settings.get(table, {})}
            for table in {**base, **self.settings}
        }
        self.config.write_text(_toml(merged), encoding="utf-8")
        command, *rest = arguments or ("run", "--json")
        return self.start_bare(command, "--config", str(self.config), *rest)

    def start_bare(self, *arguments: str) -> Running:
        """Start a command without any configuration."""
        place = self.directory / f"process-{next(self._numbers):02d}"
        running = Running(place, arguments, self.environment)
        self.started.append(running)
        return running

    def run(self, *arguments: str) -> Ended:
        """Run a command, by default `run --json`, to its end."""
        return self.start(*arguments).ended()

    def close(self) -> None:
        for one in self.started:
            if not one.has_ended():
                one.kill()

    def committed(self) -> int:
        """Return how many clicks the generation that CURRENT names has read, 0 without one."""
        pointer = recovery.read_pointer(self.state)
        if pointer is None:
            return 0
        path = self.state / "checkpoints" / str(pointer.name) / "manifest.json"
        try:
            manifest = json.loads(path.read_bytes())
        except FileNotFoundError:  # collected between the two reads: a newer one is there
            return self.committed()
        return int(manifest["facts"]["ledger"]["clicks"])

    def newest(self) -> Recovered:
        """Return the generation that CURRENT names, verified."""
        pointer = recovery.read_pointer(self.state)
        assert pointer is not None
        return recovery.load(self.state, pointer.name)

    def version(self) -> dict[str, Any]:
        """Return the manifest of the version that is published."""
        name = (self.state / "published" / "CURRENT").read_text(encoding="ascii").split()[0]
        return json.loads((self.state / "published" / name / "manifest.json").read_bytes())

    def dead_letters(self) -> list[dict[str, Any]]:
        text = (self.state / "dead-letters.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def contents(self) -> dict[str, bytes]:
        """Return the bytes of every file of generations and versions, by path."""
        return {
            str(path.relative_to(self.state)): path.read_bytes()
            for name in ("checkpoints", "published")
            for path in sorted((self.state / name).glob("*-*/*"))
        }


def adds_up(summary: Mapping[str, Any]) -> bool:
    """Tell whether no click vanished."""
    fates = ("applied", "held", "filtered", "dead_lettered")
    return summary["clicks"] == sum(summary[fate] for fate in fates)


def differences(one: Recovered, other: Recovered) -> list[str]:
    """Return where two generations differ in a bit, but for the names of their spaces."""
    found = [] if one.manifest.offsets == other.manifest.offsets else ["offsets"]
    for name in sorted({*one.sections, *other.sections}):
        if name not in one.sections or name not in other.sections:
            found.append(name)
            continue
        ours, theirs = one.sections[name], other.sections[name]
        values = [{k: v for k, v in s.values.items() if k != "space_id"} for s in (ours, theirs)]
        if values[0] != values[1]:
            found.append(f"{name}: {values[0]} and {values[1]}")
        for array in sorted({*ours.arrays, *theirs.arrays}):
            if not _is_same(ours.arrays.get(array), theirs.arrays.get(array)):
                found.append(f"{name}.{array}")
    return found


def _is_same(one: Any, other: Any) -> bool:
    if not isinstance(one, np.ndarray) or not isinstance(other, np.ndarray):
        return False
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def _events(err: str, name: str) -> Iterator[dict[str, Any]]:
    for line in err.splitlines():
        if line.startswith("{") and line.endswith("}"):
            event = json.loads(line)
            if event["event"] == name:
                yield event


def _toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    # Numbers, strings and lists of them are written alike in JSON and TOML.
    return "".join(
        f"[{table}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        for table, values in tables.items()
    )
