"""The HTTP face: routes, answers, and every fault as a problem (RFC 9457)."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from state.index import build
from streamer import http
from streamer.clock import SystemClock
from streamer.errors import ConfigError
from streamer.metrics import ServingMetrics
from streamer.serving.app import QueryService
from streamer.serving.routes import create_app
from streamer.serving.searcher import Searcher
from streamer.settings.process import Serving
from tests.conftest import ManualClock
from tests.state.catalogue import SMALL, Publisher, catalogue, items_of

CREATED_MS = 1_700_000_000_000
ROOT = Path(__file__).parents[3]


def searcher_over(publisher, clock=None, **settings):
    metrics = ServingMetrics(CollectorRegistry())
    clock = ManualClock(CREATED_MS / 1000 + 2.5) if clock is None else clock
    return Searcher(publisher.published, Serving(**settings), clock, metrics)


class Client:
    """Calls an app without a socket, one request at a time."""

    def __init__(self, app):
        self._transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    def request(self, method, path, **body):
        async def ask():
            async with httpx.AsyncClient(transport=self._transport, base_url="http://t") as client:
                return await client.request(method, path, **body)

        return asyncio.run(ask())

    def get(self, path):
        return self.request("GET", path)

    def post(self, path, **body):
        return self.request("POST", path, **body)


def client_of(searcher):
    return Client(create_app(searcher, searcher.settings, max_body_bytes=5000))


@pytest.fixture(scope="module")
def items():
    return catalogue(400)


@pytest.fixture(scope="module")
def searcher(items, tmp_path_factory):
    publisher = Publisher(tmp_path_factory.mktemp("state"))
    publisher.publish(1, items, build(items, SMALL), CREATED_MS)
    searcher = searcher_over(publisher, max_limit=50)
    searcher.refresh()
    return searcher


@pytest.fixture(scope="module")
def client(searcher):
    return client_of(searcher)


@pytest.fixture
def waiting(tmp_path):
    return client_of(searcher_over(Publisher(tmp_path)))


def ids(response):
    assert response.status_code == 200, response.text
    return [point["id"] for point in response.json()["points"]]


def test_neighbours_by_path_and_by_query_are_the_same(client):
    by_path = client.get("/v1/items/item-3/neighbors?limit=7")

    by_query = client.post("/v1/query", json={"query": "item-3", "limit": 7})

    assert by_path.json()["points"] == by_query.json()["points"]
    assert len(ids(by_path)) == 7
    assert "item-3" not in ids(by_path)
    assert by_path.json()["index"] == {
        "version": "v0001-000000000001",
        "generation": "0001-000000000001",
        "age_seconds": 2.5,
    }
    assert by_path.json()["time"] >= 0


def test_an_item_shows_its_clicks_popularity_and_vector(client, items):
    item = client.get("/v1/items/item-3").json()

    assert (item["id"], item["clicks"]) == ("item-3", 1250)
    assert item["popularity"] == {"fast": 1250.0, "slow": 2500.0}
    np.testing.assert_allclose(item["vector"], items.vectors[3], rtol=1e-6)


def test_a_vector_finds_the_item_it_belongs_to(client):
    vector = client.get("/v1/items/item-0").json()["vector"]

    answer = client.post("/v1/query", json={"query": vector, "limit": 1, "with_vector": True})

    (point,) = answer.json()["points"]
    assert (point["id"], point["vector"]) == ("item-0", vector)
    assert point["score"] == pytest.approx(5000 / 5001, abs=1e-5)


def test_examples_are_left_out_of_their_answer(client):
    query = {"recommend": {"positive": ["item-1", "item-2"], "negative": ["item-9"]}}

    found = ids(client.post("/v1/query", json={"query": query}))

    assert len(found) == 10
    assert not {"item-1", "item-2", "item-9"} & set(found)


def test_a_session_is_answered_without_its_own_items(client):
    found = ids(client.post("/v1/session/query", json={"items": ["item-1", "new"], "limit": 5}))

    assert len(found) == 5
    assert "item-1" not in found


def test_paging_thresholds_and_exclusions_cut_the_ranking(client):
    whole = client.post("/v1/query", json={"query": "item-3", "limit": 8}).json()["points"]
    floor = (whole[5]["score"] + whole[6]["score"]) / 2

    cut = client.post(
        "/v1/query",
        json={
            "query": "item-3",
            "offset": 1,
            "exclude": [whole[0]["id"]],
            "score_threshold": floor,
        },
    )

    assert ids(cut) == [point["id"] for point in whole[2:6]]


@pytest.mark.parametrize("params", [{"exact": True}, {"nprobe": 1 << 20}, {"popularity": 0}])
def test_params_that_change_no_neighbour_here_are_understood(client, params):
    plain = ids(client.post("/v1/query", json={"query": "item-3"}))

    assert ids(client.post("/v1/query", json={"query": "item-3", "params": params})) == plain


def test_popularity_lifts_the_popular(client):
    query = {"query": "item-30", "limit": 3, "params": {"popularity": 100}}

    assert ids(client.post("/v1/query", json=query)) == ["item-0", "item-1", "item-2"]


def test_the_index_tells_what_it_is(client):
    index = client.get("/v1/index").json()

    expected = {
        "version": "v0001-000000000001",
        "generation": "0001-000000000001",
        "age_seconds": 2.5,
        "term": 1,
        "space_id": "space",
        "n_items": 400,
        "dim": 8,
        "metric": "inner_product",
        "serving": "ivf",
        "event_time_ms": 1000,
        "previous_version": None,
    }
    assert expected.items() <= index.items()
    assert (
        index["kinds"]["ivf"]["parameters"]["nlist"]
        >= index["kinds"]["ivf"]["parameters"]["nprobe"]
    )
    assert index["kinds"]["lsh"]["recall_at_10"]["click_weighted"] >= SMALL.recall_target


@pytest.mark.parametrize("item", ["a/b", "a b", "zoë", "100%", "x/neighbors", "?", "日本"])
def test_ids_with_any_characters_are_reached_url_encoded(item, tmp_path):
    publisher = Publisher(tmp_path)
    publisher.publish(1, items_of([item.encode(), b"other"], np.eye(2), np.array([2, 1])))
    searcher = searcher_over(publisher)
    searcher.refresh()
    client = client_of(searcher)
    path = "/v1/items/" + "".join(f"%{byte:02X}" for byte in item.encode())

    found = client.get(path).json()["id"], ids(client.get(f"{path}/neighbors"))

    assert found == (item, ["other"])


def query(**fields):
    return "POST", "/v1/query", {"json": {"query": "item-3", **fields}}


@pytest.mark.parametrize(
    ("request_", "status", "detail"),
    [
        (("GET", "/v1/items/new", {}), 404, "found 'new'"),
        (("GET", "/v1/items/%FF", {}), 404, "expected an item"),
        (("GET", "/v1/items/new/neighbors", {}), 404, "found 'new'"),
        (("GET", "/v1/items/item-3/neighbors?limit=0", {}), 422, "limit >= 1"),
        (("GET", "/v1/items/item-3/neighbors?limit=-1", {}), 422, "whole number, found '-1'"),
        (("GET", "/v1/items/item-3/neighbors?limit=ten", {}), 422, "whole number, found 'ten'"),
        (("GET", "/v1/items/item-3/neighbors?limit=51", {}), 422, "limit + offset <= 50"),
        (("GET", "/nowhere", {}), 404, "GET / lists them"),
        (("GET", "/v1/items/", {}), 404, "GET / lists them"),
        (("GET", "/v1/query", {}), 405, "no route GET /v1/query"),
        (("POST", "/healthz", {}), 405, "no route POST"),
        (("POST", "/v1/query", {"content": b""}), 400, "expected a JSON object"),
        (("POST", "/v1/query", {"content": b'{"query": '}), 400, "expected a JSON object"),
        (("POST", "/v1/query", {"content": b'{"query": "\xff"}'}), 400, "expected a JSON object"),
        (("POST", "/v1/query", {"content": b'{"query": "\\ud800"}'}), 400, "expected a JSON"),
        (("POST", "/v1/query", {"content": b'{"query": [NaN]}'}), 400, "expected a JSON object"),
        (("POST", "/v1/query", {"content": b'{"query": [1e999]}'}), 422, "number out of range"),
        (("POST", "/v1/query", {"content": b"[" * 4000}), 422, "expected `object`"),
        (("POST", "/v1/query", {"content": b" " * 5001}), 413, "at most 5000 bytes"),
        (("POST", "/v1/query", {"json": []}), 422, "expected `object`"),
        (("POST", "/v1/query", {"json": {}}), 422, "required field `query`"),
        (query(query=7), 422, "$.query"),
        (query(query=None), 422, "$.query"),
        (query(query=[1, "2"]), 422, "$.query[1]"),
        (query(query=[1.0, 2.0]), 422, "expected 8 numbers, found 2"),
        (query(query=[0] * 8), 422, "length 0"),
        (query(query=[1e39] * 8), 422, "finite"),
        (query(query="new"), 404, "found 'new'"),
        (query(query={"recommend": {"positive": []}}), 422, "$.query.recommend.positive"),
        (query(query={"recommend": {"positive": ["new"]}}), 404, "found 'new'"),
        (query(limit=0), 422, "$.limit"),
        (query(limit="3"), 422, "$.limit"),
        (query(limit=41, offset=10), 422, "limit + offset <= 50"),
        (query(limit=1 << 70), 422, "limit"),
        (query(offset=-1), 422, "$.offset"),
        (query(params={"nprobe": 0}), 422, "$.params.nprobe"),
        (query(params={"popularity": -1}), 422, "$.params.popularity"),
        (query(filter={}), 422, "unknown field `filter`"),
        (("POST", "/v1/session/query", {"json": {"items": "item-3"}}), 422, "$.items"),
    ],
)
def test_every_fault_is_a_problem_that_says_what_was_expected(client, request_, status, detail):
    method, path, body = request_

    response = client.request(method, path, **body)

    problem = response.json()
    assert response.status_code == problem["status"] == status, problem
    assert response.headers["content-type"] == "application/problem+json"
    assert detail in problem["detail"]
    assert problem["title"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_service_that_no_longer_looks_for_versions_is_not_healthy(tmp_path, monkeypatch):
    publisher = Publisher(tmp_path)
    publisher.publish(1)
    searcher = searcher_over(publisher, refresh_seconds=0.001)
    client = client_of(searcher)
    searcher.start()
    before = client.get("/healthz")

    def planted(directory):
        message = "planted"
        raise ArithmeticError(message)

    monkeypatch.setattr("streamer.serving.searcher.read_current", planted)
    searcher._thread.join(5)
    after = client.get("/healthz")
    searcher.close()

    assert before.json() == {"status": "ok"}
    assert after.status_code == 503
    assert after.headers["content-type"] == "application/problem+json"
    assert "ArithmeticError('planted')" in after.json()["detail"]
    assert client.get("/v1/index").status_code == 200


def test_before_the_first_version_it_lives_and_is_not_ready(waiting):
    paths = ["/readyz", "/v1/index", "/v1/items/a", "/v1/items/a/neighbors"]

    answers = [waiting.get(path) for path in paths]

    assert waiting.get("/healthz").status_code == 200
    assert waiting.get("/metrics").status_code == 200
    for answer in answers:
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["content-type"] == "application/problem+json"
        assert "nothing has been published" in answer.json()["detail"]


def test_with_a_version_it_is_ready_and_lists_its_routes(client):
    assert client.get("/readyz").json() == {"status": "ready", "version": "v0001-000000000001"}
    assert "POST /v1/session/query" in client.get("/").json()["routes"]


def test_metrics_count_answers_and_faults_by_route_never_by_item(searcher):
    def count(route, status):
        labels = {"route": route, "status": status}
        return searcher.metrics.registry.get_sample_value("livevec_queries_total", labels) or 0

    client, route = client_of(searcher), "/v1/items/{id}"
    before = count(route, "200"), count(route, "404")

    client.get("/v1/items/item-3")
    client.get("/v1/items/new")

    assert (count(route, "200"), count(route, "404")) == (before[0] + 1, before[1] + 1)
    text = client.get("/metrics").text
    assert "livevec_served_version_number 1.0" in text
    assert "livevec_served_version_age_seconds 2.5" in text
    assert "livevec_served_items 400.0" in text
    assert "item-3" not in text


def test_the_service_takes_a_free_port_answers_and_stops(searcher):
    service = QueryService(searcher, Serving(port=0))
    service.start()
    with httpx.Client(base_url=service.address) as client:
        found = client.get("/v1/items/item-3/neighbors").json()["points"]
        encoded = client.get("/v1/items/item%2D3").json()["id"]
        address = service.address
    service.close()
    service.close()

    assert len(found) == 10
    assert encoded == "item-3"
    assert not any(thread.name in ("versions", "livevec-http") for thread in threading.enumerate())
    with pytest.raises(httpx.ConnectError):
        httpx.get(address)


def test_a_request_that_never_becomes_whole_is_told_that_the_service_stops(
    searcher, monkeypatch, caplog
):
    monkeypatch.setattr(http, "_GRACE_SECONDS", 1)
    service = QueryService(searcher, Serving(port=0))
    service.start()
    address = ("127.0.0.1", int(service.address.rsplit(":", 1)[1]))
    with socket.create_connection(address, timeout=10) as half:
        half.sendall(b"POST /v1/query HTTP/1.1\r\nHost: t\r\nContent-Length: 99\r\n\r\n{")
        httpx.get(service.address + "/healthz")  # so that the half has been taken
        service.close()
        answer = half.recv(4096)

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"the service stops" in answer
    assert "Traceback" not in caplog.text


def test_a_port_in_use_is_one_line_that_names_the_setting(searcher):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(ConfigError, match=rf"port {port} .* in use; .*serving\.port") as caught:
            QueryService(searcher, Serving(port=port))
    assert "\n" not in str(caught.value)


def test_a_host_that_is_not_ours_is_one_line_that_names_the_setting(searcher):
    with pytest.raises(ConfigError, match=r"serving\.port: cannot listen on '192\.0\.2\.1'"):
        QueryService(searcher, Serving(host="192.0.2.1", port=0))


SERVE = """
import sys
from pathlib import Path
from streamer.config import Config
from streamer.settings.process import Serving
from streamer.settings.stream import Publish
from streamer.serving.app import serve
publish = Publish(directory=Path(sys.argv[1]))
sys.exit(serve(Config(publish=publish, serving=Serving(port=0, refresh_seconds=0.01))))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_waits_for_the_first_version_and_a_signal_ends_it_with_0(number, tmp_path):
    environment = {name: value for name, value in os.environ.items() if "LIVEVEC" not in name}
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tmp_path / "published")],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "service_waiting" in line:
                Publisher(tmp_path).publish(1)
            if "version_swapped" in line:
                process.send_signal(number)

    events = [event for line in lines for event in EVENTS if event in line]
    assert events == EVENTS
    assert process.returncode == 0


EVENTS = ["service_listening", "service_waiting", "version_swapped", "service_stopped"]


def test_serving_a_file_as_a_directory_is_one_line(tmp_path):
    (tmp_path / "published").write_text("")

    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(tmp_path / "published")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    last = done.stderr.strip().splitlines()[-1]
    assert "ConfigError: " in last
    assert "expected a directory of versions, found a file; set publish.directory" in last


def test_the_machine_clock_gives_an_age(tmp_path):
    publisher = Publisher(tmp_path)
    publisher.publish(1, created_ms=SystemClock().now_ms() + 3_600_000)
    searcher = searcher_over(publisher, clock=SystemClock())
    searcher.refresh()

    # A version from a clock that is ahead of ours is not younger than new.
    assert client_of(searcher).get("/v1/index").json()["age_seconds"] == 0
