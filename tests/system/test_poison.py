"""A click that ends the process, however often it is started: a dead letter after three deaths."""

import pytest

from tests.system.runs import adds_up, clicks, differences, write_json

pytestmark = [pytest.mark.crash, pytest.mark.slow]

N = 4000
AT = {1500: "poison-of-the-trainer", 2500: "poison-of-the-decoder"}
# What a bug in a kernel would do: the process ends where it meets a certain item.
PLANTED = """
import os, signal
import streamer.pipeline, streamer.sources.json_clicks as json_clicks
apply, parse = streamer.pipeline.Pipeline._apply_from, json_clicks.JsonDecoder._parse

def applying(self, batch, rest, partition, begin):
    for start, length in zip(rest.starts, rest.lengths):
        if bytes(rest.data[start : start + length]) == b"poison-of-the-trainer":
            raise RuntimeError("a bug")
    return apply(self, batch, rest, partition, begin)

def parsing(self, records, columns):
    for start, length in zip(records.starts, records.lengths):
        if b"poison-of-the-decoder" in bytes(records.buffer[start : start + max(length, 0)]):
            os.kill(os.getpid(), signal.SIGSEGV)
    return parse(self, records, columns)

streamer.pipeline.Pipeline._apply_from = applying
json_clicks.JsonDecoder._parse = parsing
"""


def test_clicks_that_end_the_process_are_quarantined_and_all_others_trained(livevec):
    rows = clicks(N)
    poisoned = [{**row, "item_id": AT.get(at, row["item_id"])} for at, row in enumerate(rows)]
    livevec.read_from(write_json(livevec.directory / "clicks.jsonl", poisoned))
    livevec.configure({"checkpoint": {"interval_seconds": 0.2}})
    (livevec.directory / "sitecustomize.py").write_text(PLANTED)
    livevec.environment["PYTHONPATH"] = str(livevec.directory)

    runs = [livevec.run()]
    while runs[-1].code != 0:
        runs.append(livevec.run())
        assert len(runs) < 10, runs[-1].err
    again = livevec.run("run", "--json", "--generation", "1")

    assert [run.code for run in runs] == [-11] * 3 + [70] * 3 + [0]
    for run in (runs[-1], again):
        assert run.summary["clicks"] == N
        assert run.summary["dead_lettered_by_reason"] == {"poison": 2}
        assert adds_up(run.summary)
    letters = livevec.dead_letters()
    assert sorted((one["offset"], one["reason"]) for one in letters) == [
        (at, "poison") for at in AT
    ]
    assert all(AT[one["offset"]] in one["raw"] for one in letters)
    told = [one["offset"] for run in runs for one in run.events("click_quarantined")]
    assert sorted(told) == sorted(AT)
    assert differences(_without(livevec, rows), livevec.newest()) == []


def _without(livevec, rows):
    """Train the same clicks where the poisonous lines are no clicks; they count as poison there."""
    calm = type(livevec)(livevec.directory / "calm")
    calm.directory.mkdir()
    path = write_json(calm.directory / "clicks.jsonl", rows)
    lines = path.read_text().splitlines()
    for at in AT:
        lines[at] = "{"
    path.write_text("\n".join(lines) + "\n")
    calm.read_from(path)
    assert calm.run().code == 0
    newest = calm.newest()
    counts = newest.sections["ledger"].values["dead_lettered"]
    counts["poison"] = counts.pop("malformed")
    return newest
