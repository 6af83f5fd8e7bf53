"""`livevec serve` as a process beside `livevec run`: queries, probes, and swaps."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from tests.system.runs import Livevec, append_csv, clicks, wait_for, write_csv

N = 20_000


@contextmanager
def client_of(livevec: Livevec) -> Iterator[httpx.Client]:
    """Run a service over the state of `livevec`, and a client of it."""
    livevec.configure({"serving": {"port": 0, "refresh_seconds": 0.05}})
    address = livevec.start("serve").event("service_listening")["address"]
    with httpx.Client(base_url=address, timeout=10.0) as client:
        yield client


@pytest.fixture(scope="module")
def learned(tmp_path_factory, compiled_kernels) -> Iterator[tuple[Livevec, httpx.Client]]:
    """Return a run that has ended and a client of a service over it, which no test changes."""
    one = Livevec(tmp_path_factory.mktemp("learned"))
    try:
        learned_from(one, clicks(N))
        with client_of(one) as client:
            yield one, client
    finally:
        one.close()


@pytest.fixture
def client(livevec) -> Iterator[Callable[[], httpx.Client]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(client_of(livevec))


def learned_from(livevec, rows):
    """Run over `rows`; return their file."""
    path = write_csv(livevec.directory / "clicks.csv", rows)
    livevec.read_from(path)
    assert livevec.run().code == 0
    return path


def test_a_service_answers_from_what_a_run_has_published(learned):
    livevec, client = learned

    index = client.get("/v1/index").json()
    near = client.get("/v1/items/guitar: Copper capo 26/neighbors", params={"limit": 5}).json()
    item = client.get("/v1/items/guitar: Copper capo 26").json()
    by_id = client.post("/v1/query", json={"query": item["id"], "limit": 5}).json()
    by_vector = client.post("/v1/query", json={"query": item["vector"], "limit": 6}).json()
    session = client.post("/v1/session/query", json={"items": [item["id"]], "limit": 5}).json()
    unknown = client.get("/v1/items/no such item/neighbors")

    assert index["version"] == "v0001-000000000001"
    assert index["n_items"] == livevec.version()["n_items"]
    assert index["space_id"] == livevec.version()["space_id"]
    assert index["offsets"] == [["clicks.csv", 0, N]]
    assert set(index["kinds"]) == {"ivf", "lsh"}
    assert len(item["vector"]) == index["dim"] == 64
    assert [len(one["points"]) for one in (near, by_id, session)] == [5, 5, 5]
    assert near["points"] == by_id["points"]
    assert near["index"]["generation"] == livevec.version()["generation"]
    # A cosine of 1, shrunk by how little is known of an item: n / (n + 1).
    scores = {one["id"]: one["score"] for one in by_vector["points"]}
    assert scores[item["id"]] == pytest.approx(item["clicks"] / (item["clicks"] + 1), abs=1e-5)
    assert item["id"] not in {one["id"] for one in session["points"]}
    assert unknown.status_code == 404
    assert unknown.headers["content-type"] == "application/problem+json"
    assert "no such item" in unknown.json()["detail"]


def test_probes_and_metrics_tell_that_it_serves(learned):
    livevec, client = learned

    answers = {path: client.get(path) for path in ("/healthz", "/readyz", "/metrics")}

    assert {answer.status_code for answer in answers.values()} == {200}
    assert answers["/readyz"].json()["version"] == "v0001-000000000001"
    lines = answers["/metrics"].text.splitlines()
    assert "livevec_served_version_number 1.0" in lines
    assert f"livevec_served_items {livevec.version()['n_items']:.1f}" in lines


def test_a_version_that_a_later_run_publishes_is_swapped_in(livevec, client):
    rows = clicks(N)
    path = learned_from(livevec, rows[: N // 2])
    asked = client()
    before = asked.get("/v1/index").json()
    append_csv(path, rows[N // 2 :])
    assert livevec.run().code == 0

    def swapped():
        index = asked.get("/v1/index").json()
        return index if index["version"] != before["version"] else None

    after = wait_for(swapped, "the second version")

    assert before["version"] == "v0001-000000000001"
    assert after["version"] == "v0002-000000000002"
    assert after["previous_version"] == before["version"]
    assert after["space_id"] == before["space_id"]
    assert after["n_items"] > before["n_items"]
    assert after["facts"]["ledger"]["clicks"] == N


def test_a_service_waits_for_the_first_version(livevec, client):
    asked = client()
    waiting = asked.get("/readyz")
    index = asked.get("/v1/index")
    health = asked.get("/healthz")
    learned_from(livevec, clicks(N))

    wait_for(lambda: asked.get("/readyz").status_code == 200, "the first version")

    assert (waiting.status_code, index.status_code, health.status_code) == (503, 503, 200)
    assert "nothing has been published" in waiting.json()["detail"]
    assert asked.get("/v1/index").json()["version"] == "v0001-000000000001"


@pytest.mark.slow
def test_three_sessions_over_five_items_can_be_asked(livevec, client):
    sessions = {"ann": "abc", "bob": "bcd", "eve": "cde"}
    learned_from(
        livevec,
        [
            {"user_id": user, "item_id": item, "ts": 1_767_225_600_000 + 1000 * at}
            for user, items in sessions.items()
            for at, item in enumerate(items)
        ],
    )
    asked = client()

    near = asked.get("/v1/items/c/neighbors").json()

    assert {one["id"] for one in near["points"]} == set("abde")
    assert asked.get("/v1/index").json()["serving"] == "exact"


def test_a_sigterm_ends_the_service_with_0(livevec):
    livevec.configure({"serving": {"port": 0}})
    running = livevec.start("serve")
    running.event("service_listening")

    ended = running.terminated()

    assert ended.code == 0
    assert ended.complaints == []
