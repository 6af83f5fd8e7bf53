"""Avro records are read with the schemas of a registry."""

import datetime
import decimal
import random
import struct
import uuid

import pytest

from streamer.errors import ConfigError, SchemaUnavailable
from streamer.settings.sources import Clicks
from streamer.sources import avro, schema_registry
from streamer.sources.avro import AvroDecoder, open_registry
from tests.streamer.sources.decoded import EVENT, USER, clicks, decoded, key, one, reasons
from tests.streamer.sources.registry import CLICK_SCHEMA, Registry, value

PATIENCE_SECONDS = 10.0
RECORD = {"user_id": "u", "item_id": "a", "ts": 5}


@pytest.fixture
def server():
    one = Registry()
    one.put(7, CLICK_SCHEMA)
    yield one
    one.close()


@pytest.fixture
def decoder(server, monkeypatch):
    """Make decoders over the registry of the test."""
    monkeypatch.setattr(schema_registry, "RETRY_SECONDS", 0.01)
    made = []

    def make(**mapping):
        made.append(open_registry(server.url))
        mapping = Clicks(format="avro", schema_registry=server.url, **mapping)
        return AvroDecoder(mapping, made[-1])

    yield make
    for registry in made:
        registry.close()


def arrived(decoder, records):
    """Decode once the schemas have come."""
    with pytest.raises(SchemaUnavailable):
        decoded(decoder, records)
    decoder._registry._thread.join(PATIENCE_SECONDS)
    return decoded(decoder, records)


def test_records_of_several_schemas_are_clicks(server, decoder):
    server.put(
        300,
        {
            "type": "record",
            "name": "Old",
            "fields": [
                {"name": "ts", "type": "int"},
                {"name": "item_id", "type": "long"},
                {"name": "user_id", "type": "string"},
            ],
        },
    )
    old = value(300, server_schema(server, 300), {"ts": 6, "item_id": 12, "user_id": "é"})

    batch = arrived(decoder(), [value(7, CLICK_SCHEMA, RECORD), None, old])

    assert [(c.item, c.session, c.time_ms) for c in clicks(batch)] == [
        ("a", key("u", USER), 5),
        ("12", key("é", USER), 6),
    ]
    assert reasons(batch) == ["empty"]
    assert server.asked == ["/schemas/ids/7", "/schemas/ids/300"]


def server_schema(server, number):
    return avro.json.loads(server.answers[f"/schemas/ids/{number}"]["schema"])


def test_no_schema_is_asked_for_by_what_names_none(server, decoder):
    records = [b"\1\0\0\0\x63", b"\0\0\0", b'{"user_id": "u"}', value(7, CLICK_SCHEMA, RECORD)]

    batch = arrived(decoder(), records)

    assert reasons(batch) == ["malformed"] * 3
    assert server.asked == ["/schemas/ids/7"]


def test_fields_of_logical_types_and_nested_records_are_read(server, decoder):
    schema = {
        "type": "record",
        "name": "Click",
        "fields": [
            {"name": "user_id", "type": {"type": "string", "logicalType": "uuid"}},
            {
                "name": "item",
                "type": {
                    "type": "record",
                    "name": "Item",
                    "fields": [{"name": "sku", "type": "string"}],
                },
            },
            {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            {
                "name": "price",
                "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
            },
            {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["view", "buy"]}},
        ],
    }
    server.put(7, schema)
    user = uuid.UUID(int=5)
    at = datetime.datetime(2024, 1, 1, 0, 0, 0, 26999, tzinfo=datetime.UTC)
    record = {
        "user_id": user,
        "item": {"sku": "s"},
        "ts": at,
        "price": decimal.Decimal("2.50"),
        "kind": "buy",
    }

    batch = arrived(
        decoder(
            item="item.sku",
            weight="price",
            type="kind",
            types={"buy": 2},
            event_id="user_id",
        ),
        [value(7, schema, record)],
    )

    assert one(batch)[:5] == (
        "s",
        key(str(user), USER),
        key(str(user), EVENT),
        1704067200026,
        5.0,
    )


def test_schemas_that_name_types_of_others_are_read(server, decoder):
    item = {"type": "record", "name": "Item", "fields": [{"name": "sku", "type": "string"}]}
    schema = {
        "type": "record",
        "name": "Click",
        "fields": [
            {"name": "user_id", "type": "string"},
            {"name": "item", "type": item},
            {"name": "ts", "type": "long"},
        ],
    }
    named = {
        **schema,
        "fields": [{**f, "type": "Item"} if f["name"] == "item" else f for f in schema["fields"]],
    }
    server.put(7, named, references=[{"name": "Item", "subject": "item", "version": 1}])
    server.answers["/subjects/item/versions/1"] = {"schema": avro.json.dumps(item)}
    record = {"user_id": "u", "item": {"sku": "s"}, "ts": 5}

    batch = arrived(decoder(item="item.sku"), [value(7, schema, record)])

    assert one(batch).item == "s"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", "empty"),
        (b"\0\0\0\0", "malformed"),
        (b"\1" + value(7, CLICK_SCHEMA, RECORD)[1:], "malformed"),
        (b'{"user_id": "u"}', "malformed"),
        (value(7, CLICK_SCHEMA, RECORD)[:-1], "malformed"),
        (value(7, CLICK_SCHEMA, RECORD) + b"\0", "malformed"),
        (struct.pack(">BI", 0, 7), "malformed"),
        (struct.pack(">BI", 0, 7) + b"\x80" * 40, "malformed"),
        (value(9, CLICK_SCHEMA, RECORD), "no_schema"),
        (value(8, "string", "text"), "malformed"),
        (value(11, CLICK_SCHEMA, RECORD), "no_schema"),
        (value(7, CLICK_SCHEMA, {**RECORD, "item_id": None}), "no_item"),
    ],
)
def test_what_is_no_record_of_a_known_schema_is_a_dead_letter(server, decoder, record, reason):
    server.put(8, "string")
    server.put(11, {"type": "nothing of Avro"})

    batch = arrived(decoder(), [value(7, CLICK_SCHEMA, RECORD), record])

    assert reasons(batch) == [reason]
    assert batch.dead_letters[0].raw == record
    assert len(batch) == 1


def test_whatever_the_bytes_each_record_is_a_click_or_a_dead_letter(server, decoder):
    rng = random.Random(3)
    nested = {
        "type": "record",
        "name": "Nested",
        "fields": [
            *CLICK_SCHEMA["fields"],
            {"name": "tags", "type": {"type": "map", "values": "double"}},
            {"name": "at", "type": {"type": "int", "logicalType": "date"}},
            {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
            {"name": "last", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            {"name": "list", "type": {"type": "array", "items": "string"}},
        ],
    }
    server.put(8, nested)
    record = {
        **RECORD,
        "tags": {"a": 1.5},
        "at": 3,
        "id": str(uuid.UUID(int=1)),
        "last": 10**15,
        "list": ["x"],
    }
    whole = [value(7, CLICK_SCHEMA, RECORD), value(8, nested, record)]
    records = list(whole)
    for _ in range(3000):
        mutated = bytearray(rng.choice(whole))
        for _ in range(rng.randint(1, 3)):
            mutated[rng.randrange(5, len(mutated))] = rng.randrange(256)
        records.append(
            bytes(mutated[: rng.randint(5, len(mutated))] if rng.random() < 0.3 else mutated)
        )

    batch = arrived(decoder(weight="ts"), records)

    assert 2 <= len(batch) < len(records)
    assert set(reasons(batch)) <= {"malformed", "no_item", "no_user", "bad_time", "bad_weight"}


def test_without_fastavro_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(avro, "_is_installed", False)

    with pytest.raises(ConfigError, match=r"clicks\.format: .*pip install 'livevec\[avro\]'"):
        open_registry("http://localhost:8081")
