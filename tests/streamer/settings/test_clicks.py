"""The mapping of each topic: what [clicks] says, what a preset fills, what a topic's table sets."""

import json

import pytest

from streamer import config
from streamer.errors import ConfigError
from streamer.settings.sources import Clicks

KAFKA = {"kafka": {"bootstrap_servers": ["localhost:9092"], "topics": ["news", "shop"]}}
FILES = {"files": {"paths": ["old/clicks.csv"]}}


def loaded(source=KAFKA, **clicks):
    return config.load(None, source=source, clicks=clicks).clicks


def faults(source=KAFKA, **clicks):
    with pytest.raises(ConfigError) as raised:
        loaded(source, **clicks)
    return list(raised.value.faults)


def test_a_topic_without_a_table_has_the_mapping_of_all():
    clicks = loaded(user="uid")

    assert clicks.of_topic("news") is clicks


def test_what_a_topics_table_does_not_set_is_inherited():
    clicks = loaded(user="uid", types={"view": 2}, type="kind", topics={"shop": {"item": "sku"}})

    shop = clicks.of_topic("shop")

    assert (shop.item, shop.user, shop.types) == ("sku", "uid", {"view": 2.0})
    assert clicks.of_topic("news").item == "item_id"


def test_a_preset_fills_what_is_not_set():
    clicks = loaded(preset="segment", item="properties.sku")

    assert clicks.user == ("userId", "anonymousId")
    assert clicks.item == "properties.sku"
    assert clicks.only == {"type": "track"}


def test_a_preset_of_a_topics_own_goes_before_what_is_inherited():
    shop = {"preset": "snowplow", "item": "se_label"}

    clicks = loaded(user="uid", weight="rating", weight_log=True, topics={"shop": shop})

    found = clicks.of_topic("shop")
    assert (found.format, found.item, found.session) == ("snowplow", "se_label", "domain_sessionid")
    assert (found.weight, found.weight_log) == ("", True)  # how a number counts is no field's name
    assert "uid" not in found.user


def test_a_topics_table_may_inherit_a_preset():
    clicks = loaded(preset="segment", topics={"shop": {"item": "properties.sku"}})

    assert clicks.of_topic("shop").time == "timestamp"


def test_a_table_is_of_a_file_by_its_name():
    clicks = loaded(FILES, topics={"clicks.csv": {"time_unit": "s"}})

    assert clicks.of_topic("clicks.csv").time_unit == "s"


def test_a_table_that_nothing_reads_is_a_fault():
    assert faults(topics={"shp": {"item": "sku"}, "clicks.csv": {}}) == [
        "clicks.topics: expected topics of source.kafka.topics, or names of files of "
        "source.files.paths, found 'clicks.csv', 'shp'"
    ]


@pytest.mark.parametrize("key", ["max_dead_letters", "max_dead_letter_share", "topics", "usr"])
def test_limits_and_unknown_keys_are_no_settings_of_a_topic(key):
    assert faults(topics={"shop": {key: 1}}) == [f"clicks.topics.shop.{key}: no such setting"]


def test_a_fault_that_a_topic_would_inherit_is_told_once():
    found = faults(user=[], types={"view": 1}, weight_range=[2, 1], topics={"shop": {"item": "i"}})

    assert [fault.split(":")[0] for fault in found] == [
        "clicks.user",
        "clicks.types",
        "clicks.weight_range",
    ]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"user": ""}, "clicks.user: expected a field's name"),
        ({"time": ["ts", ""]}, "clicks.time: expected a field's name"),
        ({"item": 5}, "clicks.item: expected a field's name, or a list of names, found 5"),
        ({"item": "{"}, "clicks.item: "),
        ({"item": "{}"}, "clicks.item: expected names of fields in braces"),
        ({"item": "{a!r}"}, "clicks.item: expected names of fields in braces"),
        ({"item": ["{a:b}"]}, "clicks.item: expected names of fields in braces"),
        ({"item": "{{a}}"}, "clicks.item: expected a field in braces, found '{{a}}'"),
        ({"type": "t", "types": {"view": 0}}, "clicks.types.view: "),
        ({"type": "t", "types": {"view": 1e7}}, "clicks.types.view: "),
        ({"type": "t", "types": {"view": "much"}}, "clicks.types.view: "),
        ({"types": {"view": 1}}, "clicks.types: expected the field of the types in clicks.type"),
        ({"weight_range": [0, 1]}, "clicks.weight_range.0: "),
        ({"weight_range": [1, float("inf")]}, "clicks.weight_range.1: "),
        ({"weight_range": [3, 1]}, "clicks.weight_range: expected the smaller weight first"),
        ({"weight_default": -1}, "clicks.weight_default: "),
        ({"preset": "flta"}, "clicks.preset: "),
        ({"preset": ["flat"]}, "clicks.preset: "),
        ({"format": "avro"}, "clicks.schema_registry: expected the address of the registry"),
        ({"topics": 3}, "clicks.topics: "),
        ({"topics": {"shop": 3}}, "clicks.topics.shop: "),
    ],
)
def test_a_mapping_that_cannot_be_is_one_fault(setting, said):
    (found,) = faults(**setting)

    assert found.startswith(said)


def test_names_come_from_the_environment_as_a_text_or_as_a_list(monkeypatch):
    monkeypatch.setenv("LIVEVEC_CLICKS__USER", "uid")
    monkeypatch.setenv("LIVEVEC_CLICKS__ITEM", '["sku", "{kind}:{id}"]')
    monkeypatch.setenv("LIVEVEC_CLICKS__TYPE", "kind")
    monkeypatch.setenv("LIVEVEC_CLICKS__TYPES", '{"view": 1}')

    clicks = loaded(topics={"shop": {}})

    for found in (clicks, clicks.of_topic("shop")):
        assert (found.user, found.item) == ("uid", ("sku", "{kind}:{id}"))
        assert found.types == {"view": 1.0}


def test_one_name_in_a_list_is_that_name():
    assert loaded(user=["uid"]).user == "uid"


@pytest.mark.parametrize("url", ["http://me:geheim@host:8081", "https://geheim@host"])
def test_the_password_of_a_registry_is_not_written_out(url):
    clicks = loaded(format="avro", schema_registry=url, topics={"shop": {}})

    assert clicks.of_topic("shop").schema_registry == url
    for text in (json.dumps(clicks.model_dump(mode="json")), repr(clicks), str(clicks)):
        assert "geheim" not in text
    assert "***@host" in json.dumps(clicks.model_dump(mode="json"))


@pytest.mark.parametrize(
    "url", ["ftp://u:geheim@host", "http://u:geheim@", "http://u:geheim@h:x", "geheim"]
)
def test_an_address_that_is_none_is_refused_without_being_said(url):
    (fault,) = faults(schema_registry=url)

    assert fault.startswith("clicks.schema_registry: expected http://host:port")
    assert "geheim" not in fault


def test_the_effective_settings_can_be_read_again():
    clicks = Clicks(preset="segment", topics={"shop": {"preset": "cloudevents"}})

    assert Clicks(**clicks.model_dump(mode="json")) == clicks
