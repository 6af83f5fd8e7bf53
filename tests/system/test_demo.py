"""`livevec demo`: vectors that become sensible within seconds, and a summary that adds up."""

import json
import signal

import httpx
import pytest

from tests.system.runs import adds_up, wait_for

KEYS = {
    "clicks",
    "applied",
    "held",
    "filtered",
    "dead_lettered",
    "pairs",
    "items",
    "generation",
    "index_version",
    "recall_at_10",
    "same_taste_share",
    "clicks_per_second",
}


def test_the_demo_learns_tastes_and_prints_one_summary(livevec):
    demo = livevec.start_bare("demo", "--seconds", "8", "--json", "--port", "0").ended()

    assert demo.code == 0
    (summary,) = [json.loads(line) for line in demo.out.splitlines()]
    assert summary.keys() >= KEYS
    assert adds_up(summary)
    assert summary["filtered"] > 0
    assert summary["dead_lettered"] > 0
    assert summary["pairs"] > summary["applied"]
    assert set(summary["recall_at_10"]) == {"ivf", "lsh"}
    assert min(summary["recall_at_10"].values()) >= 0.95
    # By chance it is one in 24.
    assert summary["same_taste_share"] >= 0.6
    assert summary["clicks_per_second"] > 1000
    assert "query service on http://127.0.0.1:" in demo.err
    assert "generation" in demo.err
    assert "same taste among ten neighbours" in demo.err
    assert "Traceback" not in demo.err


@pytest.mark.slow
def test_the_demo_answers_queries_until_it_is_told_to_stop(livevec):
    running = livevec.start_bare("demo", "--port", "0")

    def address() -> str | None:
        lines = [line for line in running.out.splitlines() if line.startswith("query service on ")]
        return lines[0].removeprefix("query service on ") if lines else None

    with httpx.Client(base_url=wait_for(address, "the address"), timeout=10.0) as client:
        wait_for(lambda: client.get("/readyz").status_code == 200, "the first version")
        near = client.get("/v1/items/espresso: Ridge grinder 00/neighbors").json()
    running.send(signal.SIGINT)
    ended = running.ended()

    assert len(near["points"]) == 10
    assert ended.code == 0
    assert "Traceback" not in ended.err
    assert "same_taste_share" in ended.out
