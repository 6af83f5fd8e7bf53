"""Answers equal the formula over all items, and versions swap without a failed query."""

import errno
import os
import threading
from pathlib import Path

import faiss
import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from state.index import BuiltIndex, build
from state.manifest import GenerationName
from streamer.clock import SystemClock
from streamer.errors import InvalidQuery, NotReady, UnknownItem
from streamer.metrics import ServingMetrics
from streamer.serving.ranking import Options
from streamer.serving.searcher import Searcher
from streamer.settings.process import Serving
from tests.state.catalogue import SMALL, Publisher, catalogue, items_of

B = 0.1  # of sessions, the default


def searcher_over(publisher, **settings):
    metrics = ServingMetrics(CollectorRegistry())
    return Searcher(publisher.published, Serving(**settings), SystemClock(), metrics)


@pytest.fixture(scope="module")
def items():
    return catalogue(600, dim=16)


@pytest.fixture(scope="module")
def published(items, tmp_path_factory):
    publisher = Publisher(tmp_path_factory.mktemp("state"))
    publisher.publish(1, items, build(items, SMALL))
    return publisher


@pytest.fixture(scope="module", params=["ivf", "lsh"])
def loaded(request, published):
    searcher = searcher_over(published, kind=request.param)
    searcher.refresh()
    return searcher.loaded()


def by_formula(items, direction, kappa=0.0, b=0.0, left_out=()):
    """Score every item in float64 as the blueprint's Semantics say, best first."""
    n = items.clicks.astype("f8")
    scores = items.vectors.astype("f8") @ np.asarray(direction, "f8") * n / (n + kappa)
    scores += b * np.log(1 + items.popularity[:, 0].astype("f8"))
    scores[list(left_out)] = -np.inf
    order = np.argsort(-scores, kind="stable")
    return order, scores[order]


def assert_answers(answer, order, scores):
    assert answer.rows.tolist() == order.tolist()
    np.testing.assert_allclose(answer.scores, scores, atol=2e-6)


def test_neighbours_are_cosines_shrunk_by_clicks_without_the_item_itself(loaded, items):
    answer = loaded.neighbors(b"item-3", Options(limit=7))

    order, scores = by_formula(items, items.vectors[3], kappa=1.0, left_out=[3])
    assert_answers(answer, order[:7], scores[:7])
    assert answer.ids()[0] == b"item-%d" % order[0]


def test_a_vector_of_any_length_is_a_direction(loaded, items):
    answer = loaded.query(items.vectors[3] * np.float32(40), Options(limit=7))

    order, scores = by_formula(items, items.vectors[3], kappa=1.0)
    assert_answers(answer, order[:7], scores[:7])


@pytest.mark.parametrize("is_exact", [False, True])
def test_a_session_is_its_last_five_items_the_last_one_heaviest(loaded, items, is_exact):
    session = [9, 8, 20, 4, 5, 6, 7]
    ids = [b"item-%d" % row for row in session]
    q = sum(0.5**j * items.vectors[row].astype("f8") for j, row in enumerate([7, 6, 5, 4, 20]))

    answer = loaded.session(ids, 0.5, Options(limit=9, is_exact=is_exact))

    order, scores = by_formula(items, q / np.linalg.norm(q), b=B, left_out=session)
    assert_answers(answer, order[:9], scores[:9])


def test_unknown_items_of_a_session_are_passed_over(loaded):
    known = loaded.session([b"item-1", b"item-2"], 0.4, Options())

    mixed = loaded.session([b"new", b"item-1", b"newer", b"item-2", b"newest"], 0.4, Options())

    assert mixed.rows.tolist() == known.rows.tolist()
    assert mixed.scores.tolist() == known.scores.tolist()


@pytest.mark.parametrize("session", [[], [b"new"]])
def test_a_session_of_unknown_items_gets_the_most_popular(loaded, items, session):
    answer = loaded.session(session, 0.4, Options(limit=5))

    assert answer.rows.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(answer.scores, B * np.log(1 + items.clicks[:5]), rtol=1e-6)


def test_a_session_of_unknown_items_without_popularity_gets_nothing(loaded):
    assert loaded.session([b"new"], 0.4, Options(popularity=0.0)).ids() == []


def test_popularity_brings_in_what_is_not_near(loaded, items):
    answer = loaded.session([b"item-1"], 0.4, Options(limit=5, popularity=100.0))

    order, _ = by_formula(items, items.vectors[1], b=100.0, left_out=[1])
    assert answer.rows.tolist() == order[:5].tolist() == [0, 2, 3, 4, 5]


def test_examples_pull_and_push_and_are_left_out(loaded, items):
    answer = loaded.recommend([b"item-1", b"item-2"], [b"item-9"], Options(limit=6))

    v = items.vectors.astype("f8")
    q = (v[1] + v[2]) - v[9]
    order, scores = by_formula(items, q / np.linalg.norm(q), kappa=1.0, left_out=[1, 2, 9])
    assert_answers(answer, order[:6], scores[:6])


def test_excluded_items_offsets_and_thresholds_cut_the_same_ranking(loaded, items):
    order, scores = by_formula(items, items.vectors[3], kappa=1.0, left_out=[3])
    exclude = [b"item-%d" % order[0], b"item-%d" % order[2], b"never heard of"]
    floor = float(scores[5] + scores[6]) / 2

    answer = loaded.neighbors(
        b"item-3", Options(limit=10, offset=1, exclude=exclude, score_threshold=floor)
    )

    assert answer.rows.tolist() == order[[3, 4, 5]].tolist()


def test_pages_put_together_are_the_whole(loaded):
    whole = loaded.neighbors(b"item-3", Options(limit=40))

    pages = [loaded.neighbors(b"item-3", Options(limit=10, offset=at)) for at in (0, 10, 20, 30)]

    assert np.concatenate([page.rows for page in pages]).tolist() == whole.rows.tolist()


def test_more_than_there_are_is_all_of_them_once(loaded, items):
    answer = loaded.neighbors(b"item-3", Options(limit=1000, is_exact=True))

    assert sorted(answer.rows.tolist()) == [row for row in range(len(items)) if row != 3]


def test_probing_every_list_is_exact(published, items):
    searcher = searcher_over(published, kind="ivf", candidates=1)
    searcher.refresh()
    options = Options(limit=200, n_probed=1 << 20)

    answer = searcher.loaded().query(items.vectors[5], options)

    # Cosines are ordered by the index; shrinkage may only move what is already found.
    found = np.argsort(-(items.vectors @ items.vectors[5]))[:200]
    assert sorted(answer.rows.tolist()) == sorted(found.tolist())


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda v: v.neighbors(b"new", Options()), UnknownItem),
        (lambda v: v.recommend([b"item-1"], [b"new"], Options()), UnknownItem),
        (lambda v: v.recommend([], [], Options()), InvalidQuery),
        (lambda v: v.recommend([b"item-1"] * 2, [b"item-1"], Options(limit=1)), None),
        (lambda v: v.query(np.ones(15, "f4"), Options()), InvalidQuery),
        (lambda v: v.query(np.zeros(16, "f4"), Options()), InvalidQuery),
        (lambda v: v.query(np.full(16, np.inf, "f4"), Options()), InvalidQuery),
        (lambda v: v.query(np.full(16, 3e38, "f4"), Options()), None),
    ],
)
def test_what_cannot_be_answered_is_an_error_and_nothing_else_is(loaded, ask, error):
    if error is None:
        assert np.isfinite(ask(loaded).scores).all()
    else:
        with pytest.raises(error):
            ask(loaded)


def test_an_empty_version_answers_emptily(tmp_path):
    publisher = Publisher(tmp_path)
    publisher.publish(1, catalogue(0))
    searcher = searcher_over(publisher)
    searcher.refresh()

    loaded = searcher.loaded()

    assert loaded.session([b"a"], 0.4, Options()).ids() == []
    assert loaded.query(np.ones(8, "f4"), Options(popularity=1.0)).ids() == []
    with pytest.raises(UnknownItem):
        loaded.neighbors(b"a", Options())


def test_before_the_first_version_it_says_that_it_waits(tmp_path):
    searcher = searcher_over(Publisher(tmp_path))

    assert not searcher.refresh()
    with pytest.raises(NotReady, match="nothing has been published"):
        searcher.loaded()


def test_a_new_version_is_swapped_in_once(tmp_path):
    publisher = Publisher(tmp_path)
    searcher = searcher_over(publisher)
    first = publisher.publish(1)
    searcher.refresh()
    second = publisher.publish(2)

    with capture_logs() as logs:
        swaps = [searcher.refresh() for _ in range(3)]

    assert swaps == [True, False, False]
    assert searcher.loaded().version.name == second
    assert searcher.loaded().previous == str(first)
    assert [(line["event"], line["version"]) for line in logs] == [("version_swapped", str(second))]


def refuse_for_recall(publisher):
    items = catalogue(40)
    poor = build(items, SMALL)["exact"]
    recall = {"click_weighted": 0.79, "uniform": 0.9}
    publisher.publish(2, items, {"ivf": BuiltIndex("ivf", poor.index, {"nlist": 1}, recall)})


def refuse_for_damage(publisher):
    name = publisher.publish(2)
    path = publisher.published / str(name) / "exact.faiss"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00\x01")


def refuse_for_term(publisher):
    publisher.publish(2)
    (publisher.published / "terms" / "0002").write_text('{"restored": null}')


def refuse_for_garbage(publisher):
    publisher.publish(2)
    (publisher.published / "CURRENT").write_text("")


def refuse_for_kind(publisher):
    items = catalogue(40)
    publisher.publish(2, items, {"lsh": build(items, SMALL)["exact"]})


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (refuse_for_recall, "recall"),
        (refuse_for_damage, "damaged"),
        (refuse_for_term, "superseded"),
        (refuse_for_garbage, "damaged"),
        (refuse_for_kind, "unusable"),
    ],
)
def test_a_bad_version_is_refused_once_and_the_old_one_keeps_serving(tmp_path, spoil, reason):
    publisher = Publisher(tmp_path)
    searcher = searcher_over(publisher)
    first = publisher.publish(1)
    searcher.refresh()
    spoil(publisher)

    with capture_logs() as logs:
        swaps = [searcher.refresh() for _ in range(3)]

    assert swaps == [False, False, False]
    assert searcher.loaded().version.name == first
    assert [(line["event"], line["reason"]) for line in logs] == [("version_refused", reason)]
    refused = searcher.metrics.registry.get_sample_value(
        "livevec_version_refusals_total", {"reason": reason}
    )
    assert refused == 1


@pytest.mark.parametrize("part", ["manifest.json", "vectors.safetensors", "exact.faiss"])
def test_what_passes_is_tried_again_at_every_look_and_told_once(tmp_path, monkeypatch, part):
    publisher = Publisher(tmp_path)
    searcher = searcher_over(publisher)
    second = publisher.publish(1)
    faults = [errno.EMFILE, errno.EMFILE, errno.EACCES, errno.EIO, errno.EMFILE]
    left, read = list(faults), Path.read_bytes

    def failing(path):
        if path.name == part and left:
            fault = left.pop(0)
            raise OSError(fault, os.strerror(fault))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    with capture_logs() as logs:
        swaps = [searcher.refresh() for _ in range(len(faults) + 1)]

    assert swaps == [False] * len(faults) + [True]
    assert searcher.loaded().version.name == second
    refusals = [line["error"] for line in logs if line["event"] == "version_refused"]
    assert len(refusals) == 3
    for told, fault in zip(refusals, (errno.EMFILE, errno.EACCES, errno.EIO), strict=True):
        assert os.strerror(fault) in told


def test_a_whole_index_that_cannot_be_mapped_is_tried_again(tmp_path, monkeypatch):
    publisher = Publisher(tmp_path)
    publisher.publish(1)
    searcher = searcher_over(publisher)

    def full(path, flags):
        message = "could not open: Too many open files"
        raise RuntimeError(message)

    with monkeypatch.context() as patched:
        patched.setattr(faiss, "read_index", full)
        assert not searcher.refresh()
    assert searcher.refresh()


def test_after_a_refusal_the_next_good_version_serves(tmp_path):
    publisher = Publisher(tmp_path)
    searcher = searcher_over(publisher)
    refuse_for_damage(publisher)
    searcher.refresh()
    with pytest.raises(NotReady, match=r"no version of .* can serve: version v0001"):
        searcher.loaded()

    third = publisher.publish(3)
    searcher.refresh()

    assert searcher.loaded().version.name == third


def test_queries_never_fail_while_versions_swap_and_numbers_never_go_back(tmp_path):
    publisher = Publisher(tmp_path, retain=2)
    catalogues = [catalogue(n, dim=8, seed=n) for n in (400, 450, 40)]
    builds = [build(items, SMALL) for items in catalogues]
    publisher.publish(1, catalogues[0], builds[0])
    searcher = searcher_over(publisher, refresh_seconds=0.001)
    searcher.start()
    errors, backwards, counts, stop = [], [], [], threading.Event()

    def ask():
        seen = asked = 0
        while not stop.is_set():
            try:
                answer = searcher.loaded().session([b"item-1", b"item-7"], 0.4, Options())
                assert len(answer.ids()) == 10
                number = answer.version.version.name.number
            except (AssertionError, ArithmeticError, LookupError, RuntimeError) as error:
                errors.append(error)
                break
            if number < seen:
                backwards.append((seen, number))
            seen, asked = number, asked + 1
        counts.append((seen, asked))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    last = None
    for number in range(2, 32):
        last = publisher.publish(number, catalogues[number % 3], builds[number % 3])
    searcher.close()
    searcher.refresh()
    stop.set()
    for thread in threads:
        thread.join()

    assert (errors, backwards) == ([], [])
    assert searcher.loaded().version.name == last
    assert searcher.metrics.registry.get_sample_value("livevec_version_swaps_total") > 5
    assert all(asked > 20 for _, asked in counts)


def test_a_service_never_answers_from_a_withdrawn_line(tmp_path):
    publisher = Publisher(tmp_path)
    publisher.publish(1)
    publisher.publish(2)
    publisher.hold.release()
    searcher = searcher_over(publisher)
    searcher.refresh()

    successor = Publisher(tmp_path, GenerationName(1, 1))
    searcher.refresh()

    assert searcher.loaded().version.manifest["generation"] == "0001-000000000001"
    third = successor.publish(3)
    searcher.refresh()
    assert searcher.loaded().version.name == third


def test_ids_are_bytes_of_any_kind(tmp_path):
    ids = [b"a/b", "zoë 1".encode(), b"", b"\xff"]
    publisher = Publisher(tmp_path)
    publisher.publish(1, items_of(ids, np.eye(4), np.array([4, 3, 2, 1])))
    searcher = searcher_over(publisher)
    searcher.refresh()

    assert [searcher.loaded().row(one) for one in ids] == [0, 1, 2, 3]
