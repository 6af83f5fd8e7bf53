"""Schemas come from a registry over HTTP, once each, beside the stream."""

import json
import socket

import pytest

from streamer.errors import InvalidEvent, SchemaUnavailable
from streamer.sources import schema_registry
from streamer.sources.schema_registry import SchemaRegistry
from tests.streamer.sources.registry import Registry

PATIENCE_SECONDS = 10.0


@pytest.fixture
def server():
    one = Registry()
    yield one
    one.close()


@pytest.fixture
def opened(monkeypatch):
    """Open registries whose schemas are the lists of their texts."""
    monkeypatch.setattr(schema_registry, "RETRY_SECONDS", 0.01)
    made = []

    def make(url, parse=list):
        made.append(SchemaRegistry(url, parse))
        return made[-1]

    yield make
    for one in made:
        one.close()
        if one._thread is not None:
            one._thread.join(PATIENCE_SECONDS)


def fetched(registry, *ids):
    """Require `ids` and wait for the thread that fetches them."""
    with pytest.raises(SchemaUnavailable):
        registry.require(ids)
    registry._thread.join(PATIENCE_SECONDS)
    registry.require(ids)
    return [registry.schema(one) for one in ids]


def refused(registry, number):
    with pytest.raises(SchemaUnavailable):
        registry.require([number])
    registry._thread.join(PATIENCE_SECONDS)
    registry.require([number])
    with pytest.raises(InvalidEvent) as caught:
        registry.schema(number)
    assert caught.value.reason == "no_schema"
    return caught.value.detail


def trouble(registry, number):
    """Return what is wrong, once the first request has failed."""
    for _ in range(int(PATIENCE_SECONDS / 0.01)):
        with pytest.raises(SchemaUnavailable) as caught:
            registry.require([number])
        if caught.value.trouble is not None:
            return str(caught.value)
        registry._thread.join(0.01)
    pytest.fail("there is no trouble")


def test_a_schema_is_asked_for_once(server, opened):
    server.put(7, "string")
    server.put(8, "long")
    registry = opened(server.url)

    assert fetched(registry, 7, 8) == [['"string"'], ['"long"']]
    registry.require([8, 7, 7])
    assert server.asked == ["/schemas/ids/7", "/schemas/ids/8"]


def test_nothing_that_is_needed_is_no_request(server, opened):
    opened(server.url).require([])

    assert server.asked == []


def test_schemas_come_behind_those_that_they_refer_to(server, opened):
    server.put(
        7,
        "top",
        schemaType="AVRO",
        references=[
            {"name": "a", "subject": "a/b", "version": 3},
            {"name": "c", "subject": "c", "version": 1},
        ],
    )
    server.answers["/subjects/a%2Fb/versions/3"] = {
        "schema": "A",
        "references": [{"name": "c", "subject": "c", "version": 1}],
    }
    server.answers["/subjects/c/versions/1"] = {"schema": "C"}

    assert fetched(opened(server.url), 7) == [["C", "A", '"top"']]


def test_schemas_that_refer_to_each_other_come_to_an_end(server, opened):
    loop = [{"name": "a", "subject": "a", "version": 1}]
    server.put(7, "top", references=loop)
    server.answers["/subjects/a/versions/1"] = {"schema": "A", "references": loop}

    assert fetched(opened(server.url), 7) == [["A", '"top"']]


def test_too_many_references_are_no_schema(server, opened, monkeypatch):
    monkeypatch.setattr(schema_registry, "MAX_REFERENCES", 2)
    server.put(7, "x", references=[{"subject": str(n), "version": 1} for n in range(3)])
    for n in range(3):
        server.answers[f"/subjects/{n}/versions/1"] = {"schema": "A"}

    assert "more than 2 references" in refused(opened(server.url), 7)


def test_an_id_that_the_registry_does_not_know_is_refused_and_not_asked_for_again(server, opened):
    registry = opened(server.url)

    assert "expected schema 9 of Avro" in refused(registry, 9)
    registry.require([9])
    assert server.asked == ["/schemas/ids/9"]


@pytest.mark.parametrize("kind", ["PROTOBUF", "JSON"])
def test_a_schema_of_another_type_is_refused(server, opened, kind):
    server.put(7, "x", schemaType=kind)

    assert kind in refused(opened(server.url), 7)


def test_a_schema_that_cannot_be_parsed_is_refused(server, opened):
    def parse(texts):
        msg = "no schema of mine"
        raise ValueError(msg)

    server.put(7, "x")

    assert "no schema of mine" in refused(opened(server.url, parse), 7)


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (500, None),
        (401, None),
        (429, None),
        (None, b"<html>"),
        (None, b"[]"),
        (None, {"id": 7}),
        (None, {"schema": "x", "references": 5}),
        (None, {"schema": "x", "references": [{"subject": "s"}]}),
    ],
)
def test_a_registry_that_does_not_answer_is_asked_again_until_it_does(
    server, opened, status, answer
):
    server.status = status
    server.answers["/schemas/ids/7"] = answer
    registry = opened(server.url)

    said = trouble(registry, 7)
    server.put(7, "string")
    server.status = None
    registry._thread.join(PATIENCE_SECONDS)

    assert said.startswith(f"expected schema 7 from {server.url}, found: ")
    registry.require([7])
    assert registry.schema(7) == ['"string"']


def test_an_address_where_nobody_listens_is_trouble(opened):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

    registry = opened(f"http://127.0.0.1:{port}")

    assert "refused" in trouble(registry, 7)


def test_a_closed_registry_asks_no_more(server, opened):
    server.status = 500
    registry = opened(server.url)
    trouble(registry, 7)

    registry.close()
    registry.close()
    registry._thread.join(PATIENCE_SECONDS)

    assert not registry._thread.is_alive()


def test_a_login_in_the_address_is_sent_and_never_told(server, opened):
    server.login = "me:ge@heim"
    server.put(7, "string")

    right = opened(f"http://me:ge%40heim@{server.host}")
    wrong = opened(f"http://me:falsch@{server.host}")

    assert fetched(right, 7) == [['"string"']]
    said = trouble(wrong, 7)
    assert "falsch" not in said
    assert f"from {server.url}, found: HTTP status 401" in said


def test_a_proxy_in_the_environment_is_not_asked(server, opened, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server.put(7, "string")

    assert fetched(opened(server.url), 7) == [['"string"']]


def test_ids_beyond_what_is_kept_are_forgotten_unless_they_are_needed(server, opened, monkeypatch):
    monkeypatch.setattr(schema_registry, "MAX_KNOWN", 2)
    for number in range(5):
        server.put(number, json.dumps(number))
    registry = opened(server.url)

    fetched(registry, 0, 1, 2)
    fetched(registry, 2, 3, 4)

    assert sorted(registry._known) == [2, 3, 4]
    assert server.asked.count("/schemas/ids/2") == 1
