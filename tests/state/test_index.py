"""Indexes are functions of the items, reach their recall, and survive their files."""

import dataclasses

import faiss
import numpy as np
import pytest

from state.index import build, published_items
from state.sections import Section
from tests.state.catalogue import SMALL, catalogue, items_of


def shard(ids, inputs, outputs, **columns):
    n = len(ids)
    columns = {
        "clicks": np.ones(n, "i8"),
        "popularity": np.zeros((n, 2)),
        "keys": np.arange(n, dtype="u8"),
        **{name: np.asarray(column) for name, column in columns.items()},
    }
    arrays = {
        "inputs": np.asarray(inputs, "f4"),
        "outputs": np.asarray(outputs, "f4"),
        "id_bytes": np.frombuffer(b"".join(ids), "u1"),
        "id_ends": np.cumsum([len(one) for one in ids], dtype="i8"),
        **columns,
    }
    return Section(arrays)


def sections(*shards, accepted=0, half_lives=(2.0, 4.0)):
    store = Section(values={"accepted": accepted, "half_lives": list(half_lives), "dim": 2})
    return {"store": store} | {f"shard-{i:03d}": one for i, one in enumerate(shards)}


def neighbours_by_sorting(items, row, k=10):
    scores = items.vectors.astype("f8") @ items.vectors[row].astype("f8")
    scores[row] = -2
    return np.argsort(-scores)[:k]


def test_a_published_vector_is_the_direction_of_input_plus_output():
    one = shard([b"a"], [[1.0, 2.0]], [[2.0, 2.0]])

    items = published_items(sections(one))

    np.testing.assert_allclose(items.vectors, [[0.6, 0.8]], rtol=1e-6)
    assert items.vectors.dtype == np.float32


def test_unclicked_directionless_and_non_finite_rows_are_not_published():
    ids = [b"good", b"unclicked", b"zero", b"nan", b"inf", b"huge"]
    inputs = [[1, 0], [1, 0], [1, 1], [np.nan, 1], [np.inf, 0], [3e38, 3e38]]
    outputs = [[0, 1], [0, 1], [-1, -1], [0, 0], [0, 0], [3e38, 0]]
    clicks = np.array([1, 0, 1, 1, 1, 1], "i8")

    items = published_items(sections(shard(ids, inputs, outputs, clicks=clicks)))

    assert items.ids() == [b"good"]


def test_items_of_any_number_of_shards_come_in_the_order_of_their_keys():
    ids, vectors = [b"a", b"", b"long-id", "ü".encode()], np.eye(4)
    keys, clicks = np.array([3, 1, 1 << 63, 2], "u8"), np.array([1, 2, 3, 4])
    whole = shard(ids, vectors, 0 * vectors, keys=keys, clicks=clicks)
    halves = [
        shard(ids[a:b], vectors[a:b], 0 * vectors[a:b], keys=keys[a:b], clicks=clicks[a:b])
        for a, b in ((0, 1), (1, 1), (1, 4))
    ]

    one, several = published_items(sections(whole)), published_items(sections(*halves))

    assert one.ids() == [b"", "ü".encode(), b"a", b"long-id"] == several.ids()
    assert one.clicks.tolist() == [2, 4, 1, 3] == several.clicks.tolist()
    assert one.vectors.tolist() == vectors[[1, 3, 0, 2]].tolist() == several.vectors.tolist()


def test_popularity_is_decayed_to_the_cut_and_never_negative():
    logs = [[3.0, 2.0], [-np.inf, -np.inf]]  # 8 and 4 clicks at position 0

    items = published_items(
        sections(shard([b"a", b"b"], np.eye(2), np.eye(2), popularity=logs), accepted=4)
    )

    assert items.popularity.tolist() == [[2.0, 2.0], [0.0, 0.0]]


def test_a_generation_without_items_gives_an_empty_exact_index():
    items = published_items(sections(shard([], np.zeros((0, 2)), np.zeros((0, 2)))))

    built = build(items, SMALL)

    assert items.vectors.shape[0] == len(items.ids()) == 0
    assert list(built) == ["exact"]
    assert built["exact"].index.ntotal == 0


def test_too_few_items_get_an_exact_index_that_says_why():
    built = build(catalogue(SMALL.min_rows - 1), SMALL)
    enough = build(catalogue(SMALL.min_rows), SMALL)

    assert list(built) == ["exact"]
    assert list(enough) == ["ivf", "lsh"]
    assert built["exact"].reason == "299 items are fewer than index.min_rows 300"
    assert built["exact"].recall == {"click_weighted": 1.0, "uniform": 1.0}


@pytest.mark.parametrize("kind", ["ivf", "lsh"])
@pytest.mark.parametrize("is_stored", [False, True])
def test_the_recall_stated_is_the_recall_found_by_sorting(kind, is_stored, tmp_path):
    items = catalogue(2000, dim=16)
    built = build(items, SMALL)[kind]
    index = built.index
    if is_stored:
        faiss.write_index(index, str(tmp_path / "index"))
        index = faiss.read_index(str(tmp_path / "index"), faiss.IO_FLAG_MMAP_IFC)

    rows = np.random.default_rng(7).integers(2000, size=400)
    _, found = index.search(items.vectors[rows], 11)
    shares = [
        len({*mine.tolist()} & {*neighbours_by_sorting(items, row).tolist()}) / 10
        for row, mine in zip(rows, found, strict=True)
    ]

    assert index.metric_type == faiss.METRIC_INNER_PRODUCT
    assert built.recall["click_weighted"] >= SMALL.recall_target
    assert np.mean(shares) == pytest.approx(built.recall["uniform"], abs=0.03)


@pytest.mark.parametrize("kind", ["ivf", "lsh"])
def test_a_higher_target_searches_wider(kind):
    items = catalogue(2000, dim=16)

    low, high = (
        build(items, dataclasses.replace(SMALL, kinds=(kind,), recall_target=target))[kind]
        for target in (0.3, 1.0)
    )

    width = {"ivf": "nprobe", "lsh": "k_factor"}[kind]
    assert low.parameters[width] < high.parameters[width]
    assert high.recall["click_weighted"] == 1.0


def test_a_target_beyond_reach_searches_everything():
    vectors = np.tile(np.eye(4, dtype="f4"), (100, 1))
    items = items_of([b"%d" % i for i in range(400)], vectors, np.ones(400, "i8"))

    built = build(items, dataclasses.replace(SMALL, recall_target=1.0))

    # Twins are ties: any ten of the hundred are the nearest ten.
    assert {one.recall["uniform"] for one in built.values()} == {1.0}


def test_the_same_items_and_settings_give_the_same_bytes():
    first, second = (
        {
            kind: faiss.serialize_index(one.index)
            for kind, one in build(catalogue(600), SMALL).items()
        }
        for _ in range(2)
    )

    assert first.keys() == second.keys() == {"ivf", "lsh"}
    assert all((first[kind] == second[kind]).all() for kind in first)


def test_ids_of_every_row_are_found_behind_the_ends():
    items = items_of([b"a", b"", b"bcd"], np.eye(3), np.ones(3, "i8"))

    assert items.ids() == [b"a", b"", b"bcd"]
