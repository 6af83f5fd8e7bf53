"""Kills while clicks flow through a real Kafka, and whether each click was trained exactly once.

    python -m tests.system.chaos --kills 100 --clicks 1000000 --seed 1

A third of the SIGKILLs strike within a second of the first step of a restore, the others inside
the stream, after a new generation; brokers are killed and started again, and standbys take over
from daemons that are killed or paused. What must come of it is computed from the topic itself,
from the specification (`tests/oracles.py`). Prints what happened, a verdict, and one line of JSON;
exits with 1 if a click was lost, trained twice, or is nowhere.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from deploy.broker.broker import Broker
from state.offsets import Offsets
from state.recovery import Recovered
from tests.system.runs import Livevec, Running, adds_up, differences, wait_for
from tests.system.topic import Topic, Truth, truth_of

GRACE_SECONDS = 120.0
RESTORE_SECONDS = 1.0
TAKE_OVER_SECONDS = 60.0  # the machine may be slow; what it took is told
CODECS = ("gzip", "snappy", "lz4", "zstd")
SECONDS_OF_A_LIFE = 3.0  # for which clicks are produced while one lives

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How a run is disturbed; every setting of livevec not named here is the default."""

    kills: int = 100
    clicks: int = 1_000_000
    partitions: int = 8
    broker_restarts: int = 5
    take_overs: int = 3
    interval_seconds: float = 0.5  # between two generations
    codecs: Sequence[str | None] = (None,)  # partitions take them in turn
    aborted: int = 0  # clicks of transactions that are aborted, besides
    seed: int = 1


@dataclass
class Tally:
    """What has happened."""

    kills: int = 0
    kills_inside: int = 0
    kills_in_restore: int = 0
    broker_restarts: int = 0
    take_over_seconds: list[float] = field(default_factory=list)
    paused_exits: list[int] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """What came of it all.

    `lost` and `trained_twice` are sessions with fewer or more pairs than they should have, and
    clicks that the ledger has fewer or more. Take-overs come on top of the kills.
    """

    clicks: int
    kills: int
    kills_inside: int
    accounted: int
    trained_twice: int
    lost: int
    pairs_equal: bool
    seconds: float
    kills_in_restore: int
    broker_restarts: int
    take_over_seconds: list[float]
    paused_exits: list[int]
    differences: list[str]
    exit_code: int

    @property
    def is_right(self) -> bool:
        return (
            self.exit_code == 0
            and self.accounted == self.clicks
            and not (self.lost or self.trained_twice or self.differences)
            and self.pairs_equal
            and all(code == 4 for code in self.paused_exits)
        )


class Chaos:
    """One state directory over one topic, and what disturbs them."""

    def __init__(self, plan: Plan, directory: Path, tell: Tell) -> None:
        self._plan = plan
        self._tell = tell
        self._rng = random.Random(plan.seed)
        self._directory = directory
        self._broker = Broker(_made(directory / "broker"))
        self._broker.start()
        self._topic = Topic(
            self._broker.bootstrap, "clicks", plan.partitions, plan.codecs, plan.seed
        )
        self._livevec = self._over_the_topic("livevec")
        self._paused: list[Running] = []
        self.tally = Tally()

    def run(self) -> Verdict:
        begun = time.monotonic()
        try:
            self._disturb()
            code, summary = self._finish()
            truth = truth_of(self._topic)
            different = self._different_from_calm()
        finally:
            self.close()
        newest = self._livevec.newest()
        return self._judged(newest, summary, truth, different, code, time.monotonic() - begun)

    def close(self) -> None:
        self._livevec.close()
        self._topic.close()
        self._broker.stop()

    def _over_the_topic(self, name: str) -> Livevec:
        one = Livevec(_made(self._directory / name))
        one.configure(
            {
                "source.kafka": {
                    "bootstrap_servers": [self._broker.bootstrap],
                    "topics": ["clicks"],
                    "group_id": name,
                },
                # Sessions must not close because a partition is quiet: the wall clock decides that.
                "sessions": {"idle_timeout_seconds": 1e6},
                "training": {"audit": True},
                "clicks": {"max_dead_letters": self._plan.clicks},
                "checkpoint": {"interval_seconds": self._plan.interval_seconds},
                "index": {"interval_seconds": 5.0},
            }
        )
        return one

    def _disturb(self) -> None:
        """Live and die as planned, clicks flowing meanwhile."""
        plan, rng = self._plan, self._rng
        numbers = list(range(plan.kills))
        in_restore = set(rng.sample(numbers[1:], plan.kills // 3)) if plan.kills > 3 else set()
        others = [number for number in numbers if number not in in_restore]
        take_overs = set(rng.sample(others[1:], plan.take_overs)) if plan.take_overs else set()
        restarts = Counter(rng.choice(others) for _ in range(plan.broker_restarts))
        share = plan.clicks / (plan.kills + 1)
        seconds = SECONDS_OF_A_LIFE
        active = self._livevec.start()
        self._topic.abort(plan.aborted // 2)
        for number in numbers:
            # A life that is taken over leaves half of its clicks to the standby: had it committed
            # them all, the standby would never commit one.
            lived = 0.5 if number in take_overs else 1.0
            self._topic.produce_until(int(share * (number + lived)), share / seconds)
            if number in in_restore:
                self._kill_in_restore(number, active)
                active = self._livevec.start()
                continue
            began = self._wait_inside(active)
            for _ in range(restarts[number]):
                self._restart_broker()
            if number in take_overs:
                active = self._take_over(number, active)
                self._topic.produce_until(int(share * (number + 1)), share / seconds)
                began = self._wait_inside(active)
            self.tally.kills_inside += self._is_inside(active, began)
            self.tally.kills += 1
            active.kill()
            self._say(number, "inside the stream, after a new generation")
            active = self._livevec.start()
        self._topic.abort(plan.aborted - plan.aborted // 2)
        self._topic.produce_until(plan.clicks, float("inf"))
        self._active = active

    def _wait_inside(self, active: Running) -> int:
        """Wait until this life has committed a generation, and a random moment more."""
        began = _begun(active)
        wait_for(
            lambda: active.has_ended() or self._livevec.committed() > began,
            f"a generation of more than {began} clicks",
            GRACE_SECONDS,
        )
        time.sleep(self._rng.random() * self._plan.interval_seconds)
        return began

    def _is_inside(self, active: Running, began: int) -> bool:
        return not active.has_ended() and self._livevec.committed() > began

    def _kill_in_restore(self, number: int, active: Running) -> None:
        """Kill within a second of the first step of a restore, which follows the compilation."""
        active.event("kernels_compiled")
        time.sleep(self._rng.random() * RESTORE_SECONDS)
        self.tally.kills += 1
        self.tally.kills_in_restore += not active.has_ended()
        active.kill()
        self._say(number, "within a second of the first step of a restore")

    def _restart_broker(self) -> None:
        self._broker.kill()
        self._broker.start()
        self.tally.broker_restarts += 1
        self._tell(f"           broker killed and started again ({self.tally.broker_restarts})")

    def _take_over(self, number: int, active: Running) -> Running:
        """Kill or pause a daemon whose standby waits; return the standby once it has restored."""
        standby = self._livevec.start("run", "--standby", "--json")
        standby.event("standing_by")
        is_paused = bool(self._rng.getrandbits(1)) or not self._paused
        struck = time.monotonic()
        if is_paused:
            active.send(signal.SIGSTOP)
            self._paused.append(active)
        else:
            active.kill()
        standby.event("restored")
        self.tally.take_over_seconds.append(round(time.monotonic() - struck, 2))
        how = "paused" if is_paused else "killed"
        self._say(number - 1, f"{how}; a standby took over in {self.tally.take_over_seconds[-1]} s")
        return standby

    def _finish(self) -> tuple[int, dict[str, Any]]:
        """Let the paused go on, and the last one read to the end; stop it."""
        for one in self._paused:
            one.send(signal.SIGCONT)
            self.tally.paused_exits.append(one.ended(TAKE_OVER_SECONDS).code)
        ends = self._topic.ends()
        wait_for(
            lambda: self._active.has_ended() or _has_read_to(self._livevec, ends),
            "the end of the topic",
            GRACE_SECONDS,
        )
        ended = self._active.terminated()
        self.tally.complaints += ended.complaints
        return ended.code, ended.summary

    def _different_from_calm(self) -> list[str]:
        """With one partition, compare every bit with a run that was never disturbed."""
        if self._plan.partitions > 1:
            return []
        calm = self._over_the_topic("calm")
        running, ends = calm.start(), self._topic.ends()
        wait_for(lambda: _has_read_to(calm, ends), "the calm run")
        running.terminated()
        return differences(calm.newest(), self._livevec.newest())

    def _judged(
        self,
        newest: Recovered,
        summary: dict[str, Any],
        truth: Truth,
        different: list[str],
        code: int,
        seconds: float,
    ) -> Verdict:
        found = _pairs_of(newest)
        sessions = truth.sessions.keys() | found.keys()
        pairs = [(truth.sessions.get(one, (0, 0)), found.get(one, (0, 0))) for one in sessions]
        letters = Counter((one["partition"], one["offset"]) for one in self._letters())
        if letters != Counter(truth.malformed):
            different = [*different, "dead letters"]
        if not adds_up(summary) or summary["applied"] != _clicks_of_rows(newest):
            different = [*different, "the ledger"]
        by_partition = {row[1]: (row[2], int(row[3], 16)) for row in newest.manifest.facts["pairs"]}
        is_equal = by_partition == truth.partitions and all(a == b for a, b in pairs)
        tally = asdict(self.tally)
        tally.pop("complaints")
        return Verdict(
            clicks=truth.clicks,
            accounted=summary["clicks"] if adds_up(summary) else -1,
            trained_twice=sum(found[0] > wanted[0] for wanted, found in pairs)
            + max(0, summary["clicks"] - truth.clicks),
            lost=sum(found[0] < wanted[0] for wanted, found in pairs)
            + max(0, truth.clicks - summary["clicks"]),
            pairs_equal=is_equal,
            seconds=round(seconds, 1),
            differences=different,
            exit_code=code,
            **tally,
        )

    def _letters(self) -> list[dict[str, Any]]:
        return self._livevec.dead_letters()

    def _say(self, number: int, where: str) -> None:
        self._tell(f"kill {number + 1:>3}: {self._livevec.committed():>10,} committed, {where}")


def _begun(active: Running) -> int:
    """Return how many clicks had been read when this life began."""
    for name in ("restored", "started_afresh"):
        found = next(iter(active.events(name)), None)
        if found is not None:
            return int(found["clicks"])
    wait_for(
        lambda: active.has_ended() or active.events("restored") or active.events("started_afresh"),
        "the restore",
        GRACE_SECONDS,
    )
    assert not active.has_ended(), active.err
    return _begun(active)


def _has_read_to(livevec: Livevec, ends: Offsets) -> bool:
    return livevec.committed() > 0 and livevec.newest().manifest.offsets == ends


def _pairs_of(newest: Recovered) -> dict[int, tuple[int, int]]:
    """Return (count, sum) of the pairs of each session that has one."""
    arrays = newest.sections["pairs"].arrays
    rows = zip(*(arrays[name].tolist() for name in ("keys", "counts", "sums")), strict=True)
    return {key: (count, total) for key, count, total in rows if count}


def _clicks_of_rows(newest: Recovered) -> int:
    shards = [one for name, one in newest.sections.items() if name.startswith("shard-")]
    return int(sum(shard.arrays["clicks"].sum() for shard in shards))


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--clicks", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--partitions", type=int, default=8, help="1: compares every bit, too")
    parser.add_argument("--broker-restarts", type=int, default=5)
    parser.add_argument("--take-overs", type=int, default=3)
    parser.add_argument("--codecs", nargs="+", choices=CODECS, default=(None,))
    parser.add_argument("--aborted", type=int, default=0, help="clicks of aborted transactions")
    plan = replace(Plan(), **vars(parser.parse_args()))
    with tempfile.TemporaryDirectory(prefix="livevec-chaos-") as directory:
        verdict = Chaos(plan, Path(directory), lambda line: print(line, flush=True)).run()
    print(
        f"{verdict.kills} kills, {verdict.kills_inside} inside the stream after a new generation, "
        f"{verdict.kills_in_restore} in a restore; every click is "
        f"{'trained exactly once' if verdict.is_right else 'NOT TRAINED EXACTLY ONCE'}"
    )
    print(json.dumps(asdict(verdict)))
    return 0 if verdict.is_right else 1


if __name__ == "__main__":
    sys.exit(_main())
