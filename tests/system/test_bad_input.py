"""What is wrong from outside ends in one clear line and an exit code, and nothing is lost."""

import re
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from state.offsets import Partition
from tests.system.runs import (
    PROJECT,
    adds_up,
    append_csv,
    clicks,
    differences,
    flip_byte,
    wait_for,
    write_csv,
)

N = 3000
MALFORMED = {
    5: (b'{"user_id": "u", "item', "malformed"),
    17: (b'{"user_id": "u", "ts": 1767225600000}', "no_item"),
    18: (b'{"item_id": "i", "ts": 1767225600000}', "no_user"),
    40: (b'{"user_id": "u", "item_id": "i", "ts": "soon"}', "bad_time"),
    41: (b'{"user_id": "u", "item_id": "\xff", "ts": 1767225600000}', "not_utf8"),
}


def refused(ended, code: int) -> str:
    """Return the one line with which a run was refused."""
    assert ended.code == code, ended.err
    assert len(ended.complaints) == 1, ended.err
    assert ended.complaints[0].startswith("livevec: ")
    assert "Traceback" not in ended.err
    assert not ended.out
    return ended.complaints[0]


def lines_of_json(n: int, broken: dict[int, bytes]) -> bytes:
    """Return `n` lines of clicks, of which some are replaced."""
    click = b'{"user_id":"u%d","item_id":"i%d","ts":%d}'
    lines = [broken.get(at, click % (at % 50, at % 300, 1_767_225_600_000 + at)) for at in range(n)]
    return b"\n".join(lines) + b"\n"


@contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    """Let no process that is started meanwhile write a larger file, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def with_clicks(livevec):
    livevec.read_from(write_csv(livevec.directory / "clicks.csv", clicks(N)))
    return livevec


@pytest.mark.slow
def test_malformed_lines_become_dead_letters_and_nothing_is_lost(livevec):
    path = livevec.directory / "clicks.jsonl"
    path.write_bytes(lines_of_json(1000, {at: raw for at, (raw, _) in MALFORMED.items()}))
    livevec.read_from(path)

    run = livevec.run()

    assert run.code == 0
    assert run.complaints == []
    assert run.summary["clicks"] == 1000
    assert run.summary["dead_lettered"] == len(MALFORMED)
    assert adds_up(run.summary)
    letters = livevec.dead_letters()
    assert [(one["topic"], one["partition"]) for one in letters] == [("clicks.jsonl", 0)] * 5
    assert {one["offset"]: one["reason"] for one in letters} == {
        at: reason for at, (_, reason) in MALFORMED.items()
    }
    assert letters[0]["raw"] == MALFORMED[5][0].decode()
    assert all(one["detail"] for one in letters)


def test_too_many_dead_letters_stop_the_run_and_commit_nothing(livevec):
    path = livevec.directory / "clicks.jsonl"
    path.write_bytes(lines_of_json(1000, {at: b"what?" for at in range(300, 450)}))
    livevec.read_from(path)

    line = refused(livevec.run(), 5)

    assert "expected at most 100 or 0.01" in line
    assert "clicks.max_dead_letters" in line
    assert "malformed at clicks.jsonl[0] offset " in line
    assert livevec.committed() == 0


@pytest.mark.slow
def test_a_producer_that_was_mended_is_read_after_too_many_dead_letters(livevec):
    path = livevec.directory / "clicks.jsonl"
    path.write_bytes(lines_of_json(1000, {at: b"what?" for at in range(300, 450)}))
    livevec.read_from(path)
    refused(livevec.run(), 5)

    path.write_bytes(lines_of_json(1000, {}))
    run = livevec.run()

    assert run.code == 0
    assert (run.summary["clicks"], run.summary["dead_lettered"]) == (1000, 0)
    assert livevec.dead_letters() == []


@pytest.mark.slow
@pytest.mark.crash
def test_dead_letters_that_were_rotated_away_begin_a_file_that_holds_each_new_one_once(livevec):
    broken = [*range(5), *range(1000, 3000, 10)]
    path = livevec.directory / "clicks.jsonl"
    lines = lines_of_json(3000, {at: b"what?" for at in broken}).splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:1000]))
    livevec.read_from(path)
    livevec.configure({"clicks": {"max_dead_letter_share": 0.1}})
    livevec.run()
    letters = livevec.state / "dead-letters.jsonl"
    kept = letters.stat().st_size
    letters.rename(livevec.directory / "dead-letters.1")
    path.write_bytes(b"".join(lines))

    livevec.configure({"source": {"max_clicks_per_second": 2000.0}})
    running = livevec.start()
    wait_for(
        lambda: letters.exists() and letters.stat().st_size > kept, "a longer file than before"
    )
    running.kill()
    run = livevec.run()

    assert run.code == 0
    assert [one["offset"] for one in livevec.dead_letters()] == broken[5:]


@pytest.mark.slow
@pytest.mark.crash
def test_dead_letters_come_once_though_a_killed_run_reads_their_lines_again(livevec):
    broken = set(range(3, 4000, 50))
    path = livevec.directory / "clicks.jsonl"
    path.write_bytes(lines_of_json(4000, {at: b"what?" for at in broken}))
    livevec.read_from(path)
    livevec.configure(
        {
            "source": {"max_clicks_per_second": 2000.0},
            "checkpoint": {"interval_seconds": 0.4},
            "clicks": {"max_dead_letter_share": 0.1},
        }
    )

    running = livevec.start()
    wait_for(lambda: 0 < livevec.committed() < 4000, "a generation in the stream")
    kept = livevec.newest().manifest.facts["dead_letters_bytes"]
    letters = livevec.state / "dead-letters.jsonl"
    wait_for(lambda: letters.stat().st_size > kept, "a dead letter behind the generation")
    running.kill()
    run = livevec.run()

    assert run.code == 0
    assert run.summary["dead_lettered"] == len(broken)
    assert [one["offset"] for one in livevec.dead_letters()] == sorted(broken)


def test_every_fault_of_a_configuration_is_reported_with_its_path(with_clicks):
    with_clicks.configure(
        {
            "sessions": {"gap_seconds": -30},
            "training": {"dims": 64},
            "checkpoint": {"retain": "three"},
        }
    )

    ended = with_clicks.run()

    assert ended.code == 2
    assert len(ended.complaints) == 3
    assert all(line.startswith("livevec: ") for line in ended.complaints)
    text = "\n".join(sorted(ended.complaints))
    assert "checkpoint.retain: " in text
    assert "found 'three'" in text
    assert "sessions.gap_seconds: " in text
    assert "found -30" in text
    assert "training.dims: no such setting" in text
    assert not with_clicks.state.exists()


def test_a_misspelt_section_in_the_environment_is_an_error(with_clicks):
    with_clicks.environment["LIVEVEC_STOER__MAX_ITEMS"] = "5"

    line = refused(with_clicks.run(), 2)

    assert "LIVEVEC_STOER__MAX_ITEMS" in line
    assert "LIVEVEC_STORE__" in line


def test_the_environment_comes_before_the_file(with_clicks):
    with_clicks.environment["LIVEVEC_STORE__MAX_ITEMS"] = "7"

    run = with_clicks.run()

    assert run.summary["items"] == 7
    assert run.summary["filtered_by_reason"]["store_full"] > 0
    assert adds_up(run.summary)


def test_kafka_behind_files_that_never_end_is_refused(with_clicks):
    kafka = {"bootstrap_servers": ["127.0.0.1:1"], "topics": ["clicks"]}
    with_clicks.configure({"source.kafka": kafka, "source.files": {"follow": True}})

    line = refused(with_clicks.run(), 2)

    assert line == (
        "livevec: source: expected files that end before kafka begins, found files.follow = true"
    )


def test_no_source_at_all_says_what_to_add(livevec):
    assert "[source.files]" in refused(livevec.run(), 2)


def test_a_configuration_that_is_not_there_is_named(livevec):
    livevec.directory.joinpath("clicks.csv").write_text("user_id,item_id,ts\n")

    ended = livevec.run("run", "--config", "/nowhere/livevec.toml")

    assert "/nowhere/livevec.toml" in refused(ended, 2)


def test_a_file_that_does_not_exist_is_named(livevec):
    livevec.read_from(livevec.directory / "no.csv")

    line = refused(livevec.run(), 2)

    assert str(livevec.directory / "no.csv") in line


def test_a_missing_column_is_named_beside_those_that_were_found(livevec):
    path = livevec.directory / "clicks.csv"
    path.write_text("visitor,item_id,ts\nann,a,1\n")
    livevec.read_from(path)

    line = refused(livevec.run(), 2)

    assert "user_id" in line
    assert all(column in line for column in ("visitor", "item_id", "ts"))


@pytest.mark.slow
def test_a_damaged_newest_generation_falls_back_to_the_one_before_and_loses_nothing(livevec):
    rows = clicks(N)
    path = write_csv(livevec.directory / "clicks.csv", rows[: N // 2])
    livevec.read_from(path)
    livevec.run()
    append_csv(path, rows[N // 2 :])
    livevec.run()
    whole = livevec.newest()
    flip_byte(livevec.state / "checkpoints" / str(whole.name) / "shard-000.safetensors")

    run = livevec.run()

    assert run.code == 0
    (passed_over,) = run.events("generation_passed_over")
    assert str(whole.name) in passed_over["reason"]
    assert "shard-000" in passed_over["reason"]
    (restored,) = run.events("restored")
    assert restored["clicks"] == N // 2
    assert run.summary["clicks"] == N
    assert differences(livevec.newest(), whole) == []


@pytest.mark.slow
@pytest.mark.parametrize("way_out", ["the line", "the option"])
def test_an_empty_current_is_an_error_that_says_what_to_do(with_clicks, way_out):
    with_clicks.run()
    whole = with_clicks.newest()
    current = with_clicks.state / "checkpoints" / "CURRENT"
    current.write_bytes(b"")

    line = refused(with_clicks.run(), 4)
    told = re.search(r"write the line '(.*?)' into it, or start once with (.*)$", line)
    assert str(current) in line
    assert told is not None
    if way_out == "the line":
        current.write_text(told[1] + "\n")
        run = with_clicks.run()
    else:
        run = with_clicks.run("run", "--json", *told[2].split())

    assert run.code == 0
    assert run.summary["clicks"] == N
    assert with_clicks.newest().sections.keys() == whole.sections.keys()
    assert differences(with_clicks.newest(), whole) == []


@pytest.mark.slow
def test_a_generation_that_is_not_there_is_named_beside_those_that_are(with_clicks):
    with_clicks.run()
    number = with_clicks.newest().name.number

    line = refused(with_clicks.run("run", "--generation", "99"), 4)

    assert "expected checkpoint generation 99" in line
    assert str(number) in line


@pytest.mark.slow
@pytest.mark.parametrize("n_bytes", [60_000, 240_000], ids=["of a generation", "of a version"])
def test_a_disk_too_full_is_one_line_and_the_next_run_makes_up_for_it(with_clicks, n_bytes):
    # So many shards that no part of a generation is as large as the vectors of a version.
    with_clicks.configure({"store": {"n_shards": 16}})
    with largest_file(n_bytes):
        line = refused(with_clicks.run(), 4)
    is_committed = with_clicks.committed() == N
    left_behind = list(with_clicks.state.glob("checkpoints/*.tmp"))
    run = with_clicks.run()

    assert "no space left" in line
    assert is_committed == (n_bytes == 240_000)
    assert not left_behind
    assert run.code == 0
    assert run.summary["clicks"] == N
    assert with_clicks.version()["generation"] == run.summary["generation"]


@pytest.mark.slow
@pytest.mark.crash
def test_a_second_daemon_is_refused_while_the_first_lives_and_not_after_its_kill(livevec):
    livevec.read_from(write_csv(livevec.directory / "clicks.csv", clicks(N)), follow=True)
    livevec.configure({"checkpoint": {"interval_seconds": 0.2}})

    first = livevec.start()
    first.event("started_afresh")
    line = refused(livevec.run(), 4)
    wait_for(lambda: livevec.committed() == N, "a generation of the first")
    first.kill()
    next_one = livevec.start()
    next_one.event("restored")
    run = next_one.terminated()

    assert str(livevec.state) in line
    assert f"pid {first.process.pid}" in line
    assert run.code == 0
    assert run.summary["clicks"] == N


def test_a_fixed_setting_that_was_changed_is_named_with_both_values(with_clicks):
    with_clicks.run()
    before = with_clicks.contents()
    with_clicks.configure({"training": {"dim": 32}})

    line = refused(with_clicks.run(), 4)

    assert "training.dim is 32, the state has 64" in line
    assert with_clicks.contents() == before


@pytest.mark.parametrize("place", ["a file", "below a file", "not to be made"])
def test_a_state_directory_that_cannot_be_used_is_one_line(with_clicks, place):
    # Root may write everywhere but into the kernel's own directories.
    directory = {
        "a file": with_clicks.directory / "clicks.csv",
        "below a file": with_clicks.directory / "clicks.csv" / "state",
        "not to be made": Path("/proc/livevec/state"),
    }[place]
    with_clicks.configure({"store": {"directory": str(directory)}})

    line = refused(with_clicks.run(), 4)

    assert str(directory) in line or str(directory.parent) in line


def test_a_directory_instead_of_a_file_of_clicks_is_one_line(livevec):
    directory = livevec.directory / "clicks.csv"
    directory.mkdir()
    livevec.read_from(directory)

    assert str(directory) in refused(livevec.run(), 2)


def test_a_file_that_opens_and_cannot_be_read_is_one_line(livevec):
    livevec.read_from(Path("/proc/self/mem"), format="csv")  # its first page is nobody's

    line = refused(livevec.run(), 2)

    assert "/proc/self/mem: expected a file that can be read" in line


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_error(with_clicks, closed):
    with_clicks.run("check-config")  # writes the configuration
    command = f'exec "{sys.executable}" -m streamer run --config "{with_clicks.config}" {closed}'

    done = subprocess.run(["sh", "-c", command], cwd=PROJECT, check=False)

    assert done.returncode == 0
    assert with_clicks.committed() == N


def test_a_bug_is_told_with_its_trace_and_commits_nothing(with_clicks):
    planted = with_clicks.directory / "sitecustomize.py"
    planted.write_text(
        "from streamer.training.trainer import Trainer\n"
        "Trainer.train = lambda self, tiles, keys: 1 // 0\n"
    )
    with_clicks.environment["PYTHONPATH"] = str(with_clicks.directory)

    run = with_clicks.run()

    assert run.code == 70
    assert "ZeroDivisionError" in run.err
    assert run.complaints[-1].startswith("livevec: a bug")
    assert with_clicks.committed() == 0


@pytest.mark.parametrize(("command", "setting"), [("run", "metrics"), ("serve", "serving")])
def test_a_port_in_use_is_one_line(with_clicks, command, setting):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with_clicks.configure({setting: {"port": port}})

        line = refused(with_clicks.run(command), 2)

    assert f"{setting}.port: port {port}" in line
    assert "in use" in line


def test_a_demo_on_a_port_in_use_is_one_line(livevec):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        running = livevec.start_bare("demo", "--port", str(taken.getsockname()[1]))

        assert "in use" in refused(running.ended(), 2)


@pytest.mark.slow
def test_a_file_that_became_shorter_is_an_error_and_keeps_the_state(with_clicks):
    with_clicks.run()
    before = with_clicks.contents()
    write_csv(with_clicks.directory / "clicks.csv", clicks(10))

    line = refused(with_clicks.run(), 2)

    assert f"expected at least {N} lines" in line
    assert with_clicks.contents() == before


@pytest.mark.slow
def test_a_damaged_file_is_an_error_that_keeps_what_was_committed(livevec):
    path = write_csv(livevec.directory / "clicks.csv.gz", clicks(60_000))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    livevec.read_from(path)
    livevec.configure({"checkpoint": {"every_clicks": 1000}})

    line = refused(livevec.run(), 2)

    assert str(path) in line
    assert livevec.newest().manifest.offsets[Partition("clicks.csv.gz", 0)] > 0
