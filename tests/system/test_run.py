"""`livevec run` over files, as a process: what it reads, leaves behind and goes on from."""

import shutil
import signal
import time

import httpx
import pytest

from state.offsets import Partition
from tests.system.runs import (
    adds_up,
    append_csv,
    clicks,
    wait_for,
    write_csv,
    write_json,
)

N = 6000
SLOW = {"source": {"max_clicks_per_second": 2000.0}}


def facts(run) -> dict[str, object]:
    return {name: fact for name, fact in run.summary.items() if name != "clicks_per_second"}


@pytest.mark.parametrize(
    "name",
    [
        "clicks.csv",
        pytest.param("clicks.csv.gz", marks=pytest.mark.slow),
        pytest.param("clicks.jsonl", marks=pytest.mark.slow),
    ],
)
def test_a_file_is_read_committed_and_published_and_a_second_run_changes_nothing(
    livevec, name, record_property
):
    path = livevec.directory / name
    (write_json if name.endswith(".jsonl") else write_csv)(path, clicks(N))
    livevec.read_from(path)

    first = livevec.run()
    written = livevec.contents()
    second = livevec.run()

    assert (first.code, second.code) == (0, 0)
    assert first.complaints == second.complaints == []
    assert first.summary["clicks"] == N
    assert first.summary["held"] == 0
    assert first.summary["filtered"] > 0
    assert adds_up(first.summary)
    manifest = livevec.newest().manifest
    assert manifest.offsets == {Partition(name, 0): N}
    assert [row[:3] for row in manifest.facts["pairs"]] == [[name, 0, first.summary["pairs"]]]
    assert livevec.version()["generation"] == first.summary["generation"]
    assert livevec.version()["n_items"] <= first.summary["items"] > 1000
    assert set(first.summary["recall_at_10"]) == {"ivf", "lsh"}
    assert facts(second) == facts(first)
    (polling,) = second.events("polling")
    record_property("seconds_to_the_first_poll", polling["seconds"])
    assert livevec.contents() == written


def test_what_is_appended_is_read_by_the_next_run(livevec):
    rows = clicks(N)
    path = write_csv(livevec.directory / "clicks.csv", rows[: N // 2])
    livevec.read_from(path)

    first = livevec.run()
    space = livevec.version()["space_id"]
    append_csv(path, rows[N // 2 :])
    second = livevec.run()

    assert [one.summary["clicks"] for one in (first, second)] == [N // 2, N]
    assert adds_up(second.summary)
    (restored,) = second.events("restored")
    assert restored["position"] == [f"clicks.csv[0]:{N // 2}"]
    assert livevec.version()["space_id"] == space
    assert livevec.version()["facts"]["ledger"]["clicks"] == N
    assert second.summary["generation"] == livevec.version()["generation"]


@pytest.mark.slow
def test_a_file_that_was_replaced_is_refused_and_the_first_one_goes_on_when_it_is_back(livevec):
    rows = clicks(N)
    path = write_csv(livevec.directory / "clicks.csv", rows[: N // 2])
    livevec.read_from(path)
    livevec.run()
    written = livevec.contents()
    path.rename(livevec.directory / "aside.csv")
    write_csv(path, rows[N // 2 :] + rows)

    refused = livevec.run()
    after = livevec.contents()
    (livevec.directory / "aside.csv").replace(path)
    append_csv(path, rows[N // 2 :])
    run = livevec.run()

    assert refused.code == 2
    (complaint,) = refused.complaints
    assert f"clicks.csv: expected the file whose first {N // 2} lines have been read" in complaint
    assert after == written
    assert run.code == 0
    assert run.summary["clicks"] == N
    assert adds_up(run.summary)


@pytest.mark.slow
def test_a_version_that_is_missing_is_published_by_the_next_run(livevec):
    livevec.read_from(write_csv(livevec.directory / "clicks.csv", clicks(N)))
    first = livevec.run()
    shutil.rmtree(livevec.state / "published")

    second = livevec.run()

    assert second.code == 0
    assert second.summary["generation"] == first.summary["generation"]
    assert livevec.version()["generation"] == first.summary["generation"]


@pytest.mark.slow
def test_other_settings_of_the_index_are_published_by_the_next_run(livevec):
    livevec.read_from(write_csv(livevec.directory / "clicks.csv", clicks(N)))
    livevec.run()
    livevec.configure({"index": {"kinds": ["lsh"]}})

    run = livevec.run()

    assert run.code == 0
    assert set(livevec.version()["indexes"]) == set(run.summary["recall_at_10"]) == {"lsh"}


def test_the_daemon_tells_its_health_and_counts_what_this_process_has_read(livevec):
    rows = clicks(N)
    path = write_csv(livevec.directory / "clicks.csv", rows[:1000])
    livevec.read_from(path, follow=True)
    livevec.configure({"checkpoint": {"interval_seconds": 0.1}})
    first = livevec.start()
    wait_for(lambda: livevec.committed() == 1000, "the first clicks")
    first.terminated()
    append_csv(path, rows[1000:])

    running = livevec.start()
    address = running.event("metrics_listening")["address"]
    wait_for(lambda: livevec.committed() == N, "the others")
    with httpx.Client(base_url=address, timeout=10.0) as client:
        probes = [client.get(route).status_code for route in ("/healthz", "/readyz")]
        wait_for(
            lambda: f"livevec_clicks_read_total {N - 1000:.1f}" in client.get("/metrics").text,
            "the count of the clicks that this process has read",
        )
        lines = client.get("/metrics").text.splitlines()
    run = running.terminated()

    assert probes == [200, 200]
    assert f"livevec_items {run.summary['items']:.1f}" in lines
    assert "livevec_term 2.0" in lines
    assert run.summary["clicks"] == N


def test_several_files_are_read_one_after_the_other(livevec):
    rows = clicks(N)
    first = write_csv(livevec.directory / "monday.csv.gz", rows[: N // 2])
    second = write_json(livevec.directory / "tuesday.jsonl", rows[N // 2 :])
    livevec.read_from(first, second)

    run = livevec.run()

    assert run.code == 0
    assert adds_up(run.summary)
    offsets = {Partition("monday.csv.gz", 0): N // 2, Partition("tuesday.jsonl", 0): N // 2}
    assert livevec.newest().manifest.offsets == offsets


def test_three_sessions_over_five_items_get_an_exact_index_that_says_so(livevec):
    sessions = {"ann": "abc", "bob": "bcd", "eve": "cde"}
    rows = [
        {"user_id": user, "item_id": item, "ts": 1_767_225_600_000 + 1000 * at}
        for user, items in sessions.items()
        for at, item in enumerate(items)
    ]
    livevec.read_from(write_csv(livevec.directory / "few.csv", rows))

    run = livevec.run()

    assert run.code == 0
    assert (run.summary["clicks"], run.summary["applied"], run.summary["items"]) == (9, 9, 5)
    version = livevec.version()
    assert version["n_items"] == 5
    assert list(version["indexes"]) == ["exact"]
    assert "5" in version["indexes"]["exact"]["reason"]
    assert run.summary["recall_at_10"] == {"exact": 1.0}


def test_following_waits_for_lines_and_a_sigterm_commits_them(livevec):
    rows = clicks(3000)
    path = write_csv(livevec.directory / "clicks.csv", rows[:1000])
    livevec.read_from(path, follow=True)
    livevec.configure({"checkpoint": {"interval_seconds": 0.1}})

    following = livevec.start()
    wait_for(lambda: livevec.committed() == 1000, "the first thousand clicks")
    append_csv(path, rows[1000:2500])
    wait_for(lambda: livevec.committed() == 2500, "the clicks that were appended")
    append_csv(path, rows[2500:])
    wait_for(lambda: livevec.committed() == 3000, "the clicks that were appended again")
    run = following.terminated()

    assert run.code == 0
    assert run.complaints == []
    assert run.summary["clicks"] == livevec.committed() == 3000
    assert adds_up(run.summary)
    (draining,) = run.events("draining")
    assert draining["reason"] == "told to stop"


def test_a_sigterm_in_the_stream_commits_every_click_that_was_read(livevec):
    path = write_csv(livevec.directory / "clicks.csv", clicks(20_000))
    livevec.read_from(path)
    livevec.configure({**SLOW, "checkpoint": {"interval_seconds": 0.3}})

    running = livevec.start()
    wait_for(lambda: livevec.committed() > 0, "the first generation")
    run = running.terminated()

    assert run.code == 0
    assert run.complaints == []
    assert 0 < run.summary["clicks"] < 20_000
    assert adds_up(run.summary)
    assert livevec.committed() == run.summary["clicks"]
    assert livevec.newest().manifest.offsets == {Partition("clicks.csv", 0): run.summary["clicks"]}


@pytest.mark.slow
def test_a_sigterm_while_an_index_is_built_ends_cleanly_and_leaves_no_half_version(livevec):
    n = 60_000
    rows = [{"user_id": f"u{at % 500}", "item_id": f"i{at}", "ts": at * 100} for at in range(n)]
    livevec.read_from(write_csv(livevec.directory / "clicks.csv", rows), follow=True)
    livevec.configure({"store": {"max_items": n}, "checkpoint": {"every_clicks": n}})

    running = livevec.start()
    wait_for(lambda: livevec.committed() == n, "the generation that is published first")
    assert running.event("building_indexes")["items"] == n
    # Into the middle of the clustering: there, a thread that Python ends aborts the process.
    time.sleep(0.5)
    run = running.terminated()

    assert run.events("version_published") == []  # else the build was too quick for this test
    assert run.code == 0
    assert run.complaints == []
    assert list((livevec.state / "published").glob("v*")) == []
    livevec.configure({"source.files": {"follow": False}})
    again = livevec.run()
    assert again.summary["clicks"] == n
    assert livevec.version()["generation"] == again.summary["generation"]


@pytest.mark.slow
def test_a_sigterm_before_the_first_click_drains_too(livevec):
    livevec.read_from(write_csv(livevec.directory / "clicks.csv", []), follow=True)

    running = livevec.start()
    running.event("started_afresh")
    run = running.terminated()

    assert run.code == 0
    assert run.summary["clicks"] == 0


def test_a_second_signal_ends_the_process_at_once(livevec):
    livevec.read_from(write_csv(livevec.directory / "clicks.csv", clicks(1000)), follow=True)

    running = livevec.start()
    running.event("started_afresh")
    # Stopped, it finds both signals waiting when it goes on: no drain is quick enough between.
    running.send(signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT)
    run = running.ended()

    assert run.code == 1
    assert run.complaints == ["forced by a second signal"]
    assert run.events("drained") == []
