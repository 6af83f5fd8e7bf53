"""`livevec evaluate` as a process: a table, and one JSON object as the last line."""

import json

from tests.system.runs import clicks, write_csv


def test_a_file_without_a_configuration_is_evaluated(livevec):
    path = write_csv(livevec.directory / "clicks.csv", clicks(6000))
    ended = livevec.start_bare("evaluate", str(path), "--tests", "300").ended()

    assert ended.code == 0, ended.err
    found = json.loads(ended.out.splitlines()[-1])
    assert found["tests"] == 300
    assert 0 < found["cold_tests"] <= 300
    assert {
        "vectors",
        "vectors_popularity",
        "default",
        "chosen",
        "without_vectors",
        "chosen_1h",
        "chosen_6h",
        "chosen_24h",
        "popularity",
        "co_occurrence",
        "item_knn",
    } == found["results"].keys()
    assert found["results"]["default"]["recall_at_20"] > 0
    ratio, low, high = found["ratios"]["default"]["recall_at_20"]
    assert low <= ratio <= high
    assert "recall@20" in ended.out.splitlines()[0]
    assert not list(livevec.directory.glob("livevec-*"))


def test_a_file_that_is_not_there_is_one_line(livevec):
    ended = livevec.start_bare("evaluate", "nowhere.csv").ended()
    assert ended.code == 2
    assert "nowhere.csv" in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err
