"""SIGKILLs during a run over a file, and whether its end is that of a run never stopped.

    python -m tests.system.kills --data clicks.csv.gz --kills 20 --seconds 60

Prints where each restart began, a verdict, and one line of JSON; exits with 1 if a bit differs.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.system.runs import Livevec, differences, wait_for

GRACE_SECONDS = 300.0


@dataclass(frozen=True)
class Plan:
    """How a run is disturbed; every setting not named here is the default."""

    data: Path
    kills: int
    seconds: float  # of the stream, if it were never stopped
    interval_seconds: float  # between two generations
    sessions: Mapping[str, str | float] = field(default_factory=dict)
    seed: int = 1


@dataclass(frozen=True)
class Life:
    """One process, from its start to its SIGKILL."""

    began_at: int  # clicks that had been read before
    restored: str | None
    committed: int  # clicks in the newest generation that was seen before the kill
    is_inside: bool  # killed in the stream, after a generation of its own


@dataclass(frozen=True)
class Verdict:
    """What came of it all."""

    clicks: int
    lives: tuple[Life, ...]
    last_began_at: int
    took_seconds: float
    exit_code: int
    differences: tuple[str, ...]
    is_space_kept: bool

    @property
    def n_inside(self) -> int:
        return sum(life.is_inside for life in self.lives)

    @property
    def is_equal(self) -> bool:
        return self.exit_code == 0 and not self.differences and self.is_space_kept


def kill_and_compare(
    plan: Plan, directory: Path, tell: Callable[[str], None] = lambda line: None
) -> Verdict:
    """Run once undisturbed and once with kills; compare every bit of the final state."""
    begun = time.monotonic()
    calm = _livevec(plan, directory / "calm")
    summary = calm.run().summary
    n_clicks = int(summary["clicks"])
    tell(f"never stopped: {n_clicks:,} clicks, generation {summary['generation']}")
    disturbed = _livevec(plan, directory / "disturbed")
    rate = n_clicks / plan.seconds
    disturbed.configure({"source": {"max_clicks_per_second": rate}})
    rng = random.Random(plan.seed)
    lives: list[Life] = []
    spaces = set()
    try:
        for number in range(1, plan.kills + 1):
            wanted = int(n_clicks * number / (plan.kills + 1))
            life, space = _live_and_die(disturbed, wanted, rng.random() * plan.interval_seconds)
            lives.append(life)
            spaces.add(space)
            tell(_row(number, life))
        last = disturbed.start()
        restored = last.event("restored")
        tell(f"the last life began at click {restored['clicks']:,}")
        ended = last.ended(plan.seconds + GRACE_SECONDS)
    finally:
        disturbed.close()
    newest = disturbed.newest()
    spaces.add(newest.manifest.facts["space_id"])
    return Verdict(
        n_clicks,
        tuple(lives),
        int(restored["clicks"]),
        time.monotonic() - begun,
        ended.code,
        tuple(differences(calm.newest(), newest)),
        len(spaces) == 1,
    )


def _livevec(plan: Plan, directory: Path) -> Livevec:
    directory.mkdir(parents=True)
    one = Livevec(directory)
    one.read_from(plan.data.absolute())
    one.configure(
        {
            "sessions": plan.sessions,
            "checkpoint": {"interval_seconds": plan.interval_seconds},
            "index": {"interval_seconds": 5.0},
        }
    )
    return one


def _live_and_die(livevec: Livevec, wanted: int, delay_seconds: float) -> tuple[Life, str]:
    """Start; kill at some moment after a new generation holds `wanted` clicks."""
    running = livevec.start()
    event = running.event("restored" if livevec.committed() else "started_afresh")
    began_at = int(event["clicks"])
    target = max(wanted, began_at + 1)
    wait_for(
        lambda: running.has_ended() or livevec.committed() >= target,
        f"a generation of {target} clicks",
        GRACE_SECONDS,
    )
    time.sleep(delay_seconds)  # anywhere between two generations, or in the middle of one
    is_inside = not running.has_ended()
    running.kill()
    committed = livevec.committed()
    life = Life(began_at, event["generation"], committed, is_inside and committed > began_at)
    return life, event["space_id"]


def _row(number: int, life: Life) -> str:
    where = "in the stream, after a new generation" if life.is_inside else "OUTSIDE"
    return (
        f"kill {number:>3}: began at click {life.began_at:>10,} "
        f"(generation {life.restored or '-':>17}), killed with {life.committed:>10,} committed, "
        f"{where}"
    )


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="user_id, item_id, ts in ms")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the undisturbed stream")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds of a generation")
    parser.add_argument("--emission", choices=["early", "on_close"], default="early")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    sessions = {"emission": asked.emission}
    plan = Plan(asked.data, asked.kills, asked.seconds, asked.interval, sessions, asked.seed)
    with tempfile.TemporaryDirectory(prefix="livevec-kills-") as directory:
        verdict = kill_and_compare(plan, Path(directory), lambda line: print(line, flush=True))
    print(
        f"{len(verdict.lives)} kills, {verdict.n_inside} inside the stream after a new generation; "
        f"the final state is {'bit-equal' if verdict.is_equal else 'NOT EQUAL'} to that of a run "
        f"that was never stopped{': ' if verdict.differences else ''}"
        f"{'; '.join(verdict.differences)}"
    )
    facts = {"n_inside": verdict.n_inside, "is_equal": verdict.is_equal, **asdict(verdict)}
    facts["lives"] = [life.began_at for life in verdict.lives]
    print(json.dumps(facts))
    return 0 if verdict.is_equal else 1


if __name__ == "__main__":
    sys.exit(_main())
