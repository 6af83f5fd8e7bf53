"""A mapping finds the click in a record: in JSON, and under the same names in columns of CSV."""

import csv
import io
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.errors import ConfigError
from streamer.settings.sources import Clicks
from streamer.sources import decoding
from streamer.sources.csv_clicks import CsvDecoder
from streamer.sources.json_clicks import JsonDecoder
from tests.streamer.sources.decoded import EVENT, SESSION, USER, clicks, decoded, key, one, reasons


def _record(**members):
    return {"item_id": "a", "user_id": "u", "ts": 5, **members}


def _json(records, **mapping):
    return decoded(JsonDecoder(Clicks(**mapping)), [json.dumps(one).encode() for one in records])


def _csv(records, **mapping):
    header = list(dict.fromkeys(name for record in records for name in record))
    lines = []
    for record in records:
        line = io.StringIO()
        csv.writer(line).writerow(["" if (v := record.get(n)) is None else v for n in header])
        lines.append(line.getvalue().encode())
    return decoded(CsvDecoder(Clicks(**mapping), header, ","), lines)


READ = pytest.mark.parametrize("read", [_json, _csv], ids=["json", "csv"])


@READ
def test_types_weigh_what_they_are_listed_with_and_others_are_filtered(read):
    batch = read(
        [
            _record(kind="view"),
            _record(kind="cart"),
            _record(kind="scroll"),
            _record(kind=None),
            _record(kind=""),
            _record(kind="cart"),
        ],
        type="kind",
        types={"view": 1.0, "cart": 3.0},
    )

    assert [(c.offset, c.weight) for c in clicks(batch)] == [(0, 1.0), (1, 3.0), (5, 3.0)]
    assert batch.filtered == {"unlisted_type": 3}
    assert batch.dead_letters == ()


def test_a_type_that_is_no_word_is_unlisted():
    kinds = [7, True, ["view"], {"view": 1}, 1.5]

    batch = _json([_record(kind=kind) for kind in kinds], type="kind", types={"7": 2, "true": 3})

    assert [(c.offset, c.weight) for c in clicks(batch)] == [(0, 2.0), (1, 3.0)]
    assert batch.filtered == {"unlisted_type": 3}


@READ
def test_a_field_of_types_without_a_list_of_them_changes_nothing(read):
    batch = read([_record(kind="view"), _record(kind=None)], type="kind")

    assert [c.weight for c in clicks(batch)] == [1.0, 1.0]


@READ
def test_records_of_another_kind_are_filtered_before_anything_is_asked_of_them(read):
    batch = read(
        [
            _record(action="click", site="a"),
            _record(action="click", site="b", item_id=""),
            _record(action="identify", site="a", item_id="", user_id=""),
            _record(action="tap", site="c"),
            _record(action=None, site="a"),
        ],
        only={"action": ["click", "tap"], "site": ["a", "b"]},
    )

    assert [c.offset for c in clicks(batch)] == [0]
    assert reasons(batch) == ["no_item"]
    assert batch.filtered == {"other_kind": 3}


@READ
@pytest.mark.parametrize(
    ("mapping", "number", "weight"),
    [
        ({}, 4, 4.0),
        ({}, "2.5", 2.5),
        ({}, 0, 0.1),
        ({}, 1e300, 10.0),
        ({}, 10**400, None),
        ({"weight_range": [0.5, 2]}, 4, 2.0),
        ({"weight_log": True}, 4, math.log(5)),
        ({"weight_log": True}, 0, 0.1),
        ({"weight_log": True, "weight_range": [1, 2]}, 100, 2.0),
        ({"weight_log": True, "weight_range": [1, 2]}, 4, math.log(5)),
        ({}, -1, None),
        ({}, "much", None),
        ({}, "nan", None),
        ({}, "1e999", None),
        ({}, "1_0", None),
        ({}, "", None),
        ({}, None, None),
        ({"weight_default": 2}, None, 2.0),
        ({"weight_default": 0}, None, 0.1),
        ({"weight_default": 1, "weight_log": True}, None, math.log(2)),
        ({"weight_default": 2}, -1, None),
        ({"weight_default": 2}, "much", None),
    ],
)
def test_a_number_is_logged_then_clipped_and_a_bad_one_is_a_dead_letter(
    read, mapping, number, weight
):
    batch = read([_record(rating=number)], weight="rating", **mapping)

    if weight is None:
        assert reasons(batch) == ["bad_weight"]
        assert "'rating'" in batch.dead_letters[0].detail
    else:
        assert one(batch).weight == pytest.approx(weight, rel=1e-6)


@pytest.mark.parametrize("number", [True, [1], {}, {"a": 1}])
def test_what_is_no_number_is_a_bad_weight(number):
    assert reasons(_json([_record(rating=number)], weight="rating")) == ["bad_weight"]


@READ
def test_the_number_multiplies_the_weight_of_the_type(read):
    batch = read(
        [_record(kind="buy", quantity=2), _record(kind="view", quantity=99)],
        type="kind",
        types={"buy": 4, "view": 0.5},
        weight="quantity",
        weight_range=[1, 3],
    )

    assert [c.weight for c in clicks(batch)] == [8.0, 1.5]


@READ
def test_an_item_is_composed_of_fields(read):
    batch = read(
        [
            _record(kind="news", page=7),
            _record(kind="", page=7),
            _record(kind="news", page=None),
            _record(kind="é", page="{x}"),
        ],
        item="{{{kind}:{page}}}",
    )

    assert [c.item for c in clicks(batch)] == ["{news:7}", "{é:{x}}"]
    assert reasons(batch) == ["no_item", "no_item"]
    assert "found none" in batch.dead_letters[0].detail


def test_a_composed_item_is_no_field_of_that_name():
    record = _record(kind="news", page=7, **{"{kind}:{page}": "field"})

    assert one(_json([record], item="{kind}:{page}")).item == "news:7"


def test_a_composed_item_is_at_most_as_long_as_any_other():
    batch = _json([_record(kind="k" * 1000, page="p" * 24)], item="{kind}:{page}")

    assert reasons(batch) == ["long_item"]


@READ
def test_of_several_names_the_first_that_is_there_counts(read):
    batch = read(
        [
            {"user_id": "u", "anonymous": "x", "sku": "a", "page": "p", "at": 1, "seen": 2},
            {"user_id": "", "anonymous": "x", "sku": None, "page": "p", "at": None, "seen": 2},
        ],
        user=["user_id", "anonymous"],
        item=["sku", "page:{page}"],
        time=["at", "seen"],
    )

    assert [(c.item, c.session, c.time_ms) for c in clicks(batch)] == [
        ("a", key("u", USER), 1),
        ("page:p", key("x", USER), 2),
    ]


def test_dots_lead_into_objects_and_a_key_that_has_them_goes_first():
    batch = _json(
        [
            _record(properties={"product": {"id": "inner"}}),
            _record(**{"properties.product.id": "outer"}, properties={"product": {"id": "in"}}),
            _record(**{"properties.product.id": None}, properties={"product": {"id": "in"}}),
            _record(properties={"product": "none"}),
            _record(properties=None),
        ],
        item="properties.product.id",
    )

    assert [c.item for c in clicks(batch)] == ["inner", "outer"]
    assert reasons(batch) == ["no_item"] * 3


def test_an_event_id_is_hashed_and_a_click_without_one_has_none():
    batch = _json(
        [_record(id="e1"), _record(id=7), _record(id=None), _record(), _record(id="")],
        event_id="id",
    )

    assert [c.event for c in clicks(batch)] == [key("e1", EVENT), key("7", EVENT), 0, 0, 0]


@READ
def test_parts_of_an_event_id_are_joined_and_lack_none(read):
    batch = read(
        [
            _record(source="ab", id="c"),
            _record(source="a", id="bc"),
            _record(source="ab", id=None),
        ],
        event_id=["source", "id"],
    )

    found = [c.event for c in clicks(batch)]
    assert found == [key(b"ab\0c", EVENT), key(b"a\0bc", EVENT), 0]


def test_an_event_id_whose_hash_is_zero_is_one(monkeypatch):
    # No text is known whose XXH64 is 0, so the hash is what is planted.
    monkeypatch.setattr(decoding, "hash_spans", lambda *arguments: arguments[-1].fill(0))

    batch = _json([_record(id="e"), _record(id="")], event_id="id")

    assert batch.event_keys.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"type": "kind", "types": {"a": 1}}, "type column 'kind'"),
        ({"weight": "rating"}, "weight column 'rating'"),
        ({"event_id": ["id", "item_id"]}, "event_id column 'id' or 'item_id'"),
        ({"only": {"action": "click"}}, "only column 'action'"),
        ({"item": "{item_id}:{page}"}, "item column '{item_id}:{page}'"),
        ({"item": ["sku", "page"]}, "item column 'sku' or 'page'"),
        ({"user": ["a", "b"]}, "user column 'a' or 'b'"),
    ],
)
def test_columns_that_a_mapping_needs_are_named(mapping, said):
    with pytest.raises(ConfigError, match=r"in\.csv") as caught:
        CsvDecoder(Clicks(**mapping), ["user_id", "item_id", "ts"], ",", "in.csv")

    assert said in str(caught.value)


def test_a_column_is_enough_for_one_of_several_names():
    mapping = Clicks(item=["sku", "{kind}:{id}"], user=["uid", "user_id"], time=["at", "ts"])

    decoder = CsvDecoder(mapping, ["user_id", "kind", "id", "ts"], ",")

    assert one(decoded(decoder, [b"u,news,7,5"])).item == "news:7"


_TEXT = st.sampled_from(["", "a", "b:c", "é", "7", '"', "view", "cart"])
_ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": _TEXT,
            "session_id": _TEXT,
            "item_id": _TEXT,
            "page": _TEXT,
            "kind": _TEXT,
            "ts": st.integers(0, 99),
            "n": st.sampled_from(["", "-1", "0", "0.5", "3", "1e9", "x"]),
        }
    ),
    min_size=1,
    max_size=8,
)
_MAPPINGS = st.fixed_dictionaries(
    {
        "item": st.sampled_from(["item_id", "{kind}:{page}", ("item_id", "{kind}:{page}")]),
        "user": st.sampled_from(["user_id", ("user_id", "page")]),
        "session": st.sampled_from(["session_id", "", "user_id"]),
        "type": st.just("kind"),
        "types": st.sampled_from([{}, {"view": 1, "cart": 3}]),
        "only": st.sampled_from([{}, {"page": ("a", "7")}]),
        "weight": st.sampled_from(["", "n"]),
        "weight_log": st.booleans(),
        "weight_default": st.sampled_from([None, 2.0]),
        "event_id": st.sampled_from(["", "page", ("kind", "page")]),
    }
)


def _expected(row, mapping):
    """Say what becomes of a row, as the settings' help says it: a click, or a reason."""

    def first(names):
        names = (names,) if isinstance(names, str) else names
        return next((str(row[name]) for name in names if name and row[name] != ""), "")

    if any(row[name] not in values for name, values in mapping["only"].items()):
        return "other_kind"
    if mapping["types"] and row["kind"] not in mapping["types"]:
        return "unlisted_type"
    composed = f"{row['kind']}:{row['page']}" if row["kind"] and row["page"] else ""
    of_item = {"item_id": row["item_id"], "{kind}:{page}": composed}
    wanted = mapping["item"]
    item = next(
        (of_item[n] for n in ((wanted,) if isinstance(wanted, str) else wanted) if of_item[n]), ""
    )
    user = first(mapping["user"])
    session = "" if mapping["session"] == mapping["user"] else first(mapping["session"])
    if not item:
        return "no_item"
    if not user and not session:
        return "no_user"
    weight = mapping["types"].get(row["kind"], 1.0)
    if mapping["weight"]:
        default = "x" if mapping["weight_default"] is None else mapping["weight_default"]
        number = row["n"] if row["n"] else default
        if number in ("x", "-1"):
            return "bad_weight"
        factor = math.log1p(float(number)) if mapping["weight_log"] else float(number)
        weight *= min(max(factor, 0.1), 10.0)
    ids = mapping["event_id"]
    parts = [row[name] for name in ((ids,) if isinstance(ids, str) else ids) if name]
    event = key("\0".join(parts), EVENT) if parts and all(parts) else 0
    session_key = key(session, SESSION) if session else key(user, USER)
    return item, session_key, event, row["ts"], pytest.approx(weight, rel=1e-6)


@given(_ROWS, _MAPPINGS)
@settings(max_examples=60, deadline=None)
def test_whatever_the_mapping_each_row_is_what_the_help_says_in_json_and_in_csv(rows, mapping):
    expected = [_expected(row, mapping) for row in rows]

    for batch in (_json(rows, **mapping), _csv(rows, **mapping)):
        found = dict.fromkeys(range(len(rows)), None)
        found |= {c.offset: c[:5] for c in clicks(batch)}
        found |= {letter.offset: letter.reason for letter in batch.dead_letters}
        told = [one for one in expected if one in ("other_kind", "unlisted_type")]
        assert dict(batch.filtered) == {one: told.count(one) for one in set(told)}
        assert [one for one in found.values() if one is not None] == [
            one for one in expected if one not in ("other_kind", "unlisted_type")
        ]
