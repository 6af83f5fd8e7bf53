"""What the query service answers to each request, and every error as a problem (RFC 9457)."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from state.versions import Version
from streamer.errors import InvalidQuery, NotReady, QueryError, UnknownItem
from streamer.serving.ranking import Answer, Options, Searchable
from streamer.serving.schema import (
    MalformedBody,
    Page,
    Point,
    Query,
    SessionQuery,
    decode,
    encode,
)
from streamer.serving.searcher import Searcher
from streamer.settings.process import Serving

MAX_BODY_BYTES = 1 << 20

_ROUTES = {
    "GET /v1/items/{id}": "an item: its clicks, popularity and vector",
    "GET /v1/items/{id}/neighbors?limit=10": "the items nearest to it",
    "POST /v1/query": "the items nearest to an item, a vector, or examples",
    "POST /v1/session/query": "what a session may click next",
    "GET /v1/index": "the version that answers",
    "GET /healthz": "whether the service runs and looks for versions",
    "GET /readyz": "whether a version is loaded",
    "GET /metrics": "metrics for Prometheus",
}
_STATUS = {MalformedBody: 400, UnknownItem: 404, InvalidQuery: 422, NotReady: 503}
_RETRY_SECONDS = "1"

Endpoint = Callable[[Request], Awaitable[Any]]


def create_app(
    searcher: Searcher, settings: Serving, max_body_bytes: int = MAX_BODY_BYTES
) -> ASGIApp:
    """Return the service over `searcher`, whose versions somebody else refreshes.

    Searches run inline in the event loop: handing one to a thread takes longer than the search.
    """
    service = _Service(searcher, settings, max_body_bytes)
    app = Starlette(
        routes=service.routes(),
        exception_handlers={
            HTTPException: _http_problem,
            QueryError: _query_problem,
            ClientDisconnect: _gone,
            Exception: _bug,
        },
    )
    return _EncodedPaths(app)


class _EncodedPaths:
    """Routes by the path as it was sent, so that an id may contain %2F.

    A request that was never whole is cancelled when the service stops, and told so.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("raw_path"):
            scope = {**scope, "path": scope["raw_path"].decode("latin-1")}
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            await _problem(503, "the service stops")(scope, receive, send)


class _Service:
    def __init__(self, searcher: Searcher, settings: Serving, max_body_bytes: int) -> None:
        self._searcher = searcher
        self._settings = settings
        self._max_body_bytes = max_body_bytes

    def routes(self) -> list[Route]:
        get, post = ["GET"], ["POST"]
        return [
            Route("/", _index_of_routes, methods=get),
            Route("/healthz", self._healthy, methods=get),
            Route("/readyz", self._ready, methods=get),
            Route("/metrics", self._metrics, methods=get),
            self._answering("/v1/index", self._index, get),
            self._answering("/v1/items/{id}", self._item, get),
            self._answering("/v1/items/{id}/neighbors", self._neighbors, get),
            self._answering("/v1/query", self._query, post),
            self._answering("/v1/session/query", self._session, post),
        ]

    def _answering(self, path: str, endpoint: Endpoint, methods: list[str]) -> Route:
        """Time and count a route that answers JSON."""
        metrics, clock = self._searcher.metrics, self._searcher.clock
        seconds = metrics.query_seconds.labels(path)
        answered = metrics.queries.labels(path, "200")

        async def answer(request: Request) -> Response:
            began = clock.monotonic()
            try:
                content = await endpoint(request)
            except (QueryError, HTTPException) as error:
                status = error.status_code if isinstance(error, HTTPException) else _status(error)
                metrics.queries.labels(path, str(status)).inc()
                raise
            took = clock.monotonic() - began
            response = _json({**content, "time": took})
            seconds.observe(took)
            answered.inc()
            return response

        return Route(path, answer, methods=methods)

    async def _healthy(self, request: Request) -> Response:
        del request
        fault = self._searcher.fault
        return _json({"status": "ok"}) if fault is None else _problem(503, fault)

    async def _ready(self, request: Request) -> Response:
        del request
        loaded = self._searcher.loaded()
        return _json({"status": "ready", "version": str(loaded.version.name)})

    async def _metrics(self, request: Request) -> Response:
        del request
        content = generate_latest(self._searcher.metrics.registry)
        return Response(content, headers={"content-type": CONTENT_TYPE_LATEST})

    async def _index(self, request: Request) -> Any:
        del request
        loaded = self._searcher.loaded()
        manifest = loaded.version.manifest
        facts = {
            key: manifest[key]
            for key in ("term", "space_id", "n_items", "dim", "metric", "offsets", "facts")
        }
        times = [time for _, _, time in manifest["facts"].get("event_times_ms", [])]
        return {
            **self._stamp(loaded),
            **facts,
            "event_time_ms": max(times, default=None),
            "serving": loaded.version.kind,
            "kinds": manifest["indexes"],
            "previous_version": loaded.previous,
        }

    async def _item(self, request: Request) -> Any:
        loaded = self._searcher.loaded()
        row = loaded.row(_id(request))
        items = loaded.version.items
        fast, slow = items.popularity[row].tolist()
        return {
            "id": _text(loaded.ids[row]),
            "clicks": int(items.clicks[row]),
            "popularity": {"fast": fast, "slow": slow},
            "vector": items.vectors[row].tolist(),
            "index": self._stamp(loaded),
        }

    async def _neighbors(self, request: Request) -> Any:
        loaded = self._searcher.loaded()
        options = Options(limit=self._limit(_number(request, "limit", 10), 0))
        return self._points(loaded.neighbors(_id(request), options))

    async def _query(self, request: Request) -> Any:
        loaded = self._searcher.loaded()
        asked = decode(await self._body(request), Query)
        options = self._options(asked)
        query = asked.query
        if isinstance(query, str):
            answer = loaded.neighbors(query.encode(), options)
        elif isinstance(query, list):
            with np.errstate(over="ignore"):
                vector = np.array(query, np.float32)
            answer = loaded.query(vector, options)
        else:
            examples = query.recommend
            answer = loaded.recommend(_bytes(examples.positive), _bytes(examples.negative), options)
        return self._points(answer, asked.with_vector)

    async def _session(self, request: Request) -> Any:
        loaded = self._searcher.loaded()
        asked = decode(await self._body(request), SessionQuery)
        decay = self._settings.session_decay
        answer = loaded.session(_bytes(asked.items), decay, self._options(asked))
        return self._points(answer, asked.with_vector)

    async def _body(self, request: Request) -> bytes:
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > self._max_body_bytes:
                detail = f"expected a body of at most {self._max_body_bytes} bytes, found more"
                raise HTTPException(413, detail)
        return bytes(content)

    def _options(self, asked: Page) -> Options:
        return Options(
            limit=self._limit(asked.limit, asked.offset),
            offset=asked.offset,
            popularity=asked.params.popularity,
            score_threshold=asked.score_threshold,
            exclude=_bytes(asked.exclude),
            is_exact=asked.params.exact,
            n_probed=asked.params.nprobe,
        )

    def _limit(self, limit: int, offset: int) -> int:
        if limit < 1 or limit + offset > self._settings.max_limit:
            message = (
                f"limit: expected limit >= 1 and limit + offset <= {self._settings.max_limit}, "
                f"found limit {limit} and offset {offset}"
            )
            raise InvalidQuery(message)
        return limit

    def _points(self, answer: Answer, with_vector: bool = False) -> Mapping[str, Any]:
        vectors = answer.version.version.items.vectors
        points = [
            Point(_text(one), score, vectors[row].tolist() if with_vector else None)
            for one, score, row in zip(
                answer.ids(), answer.scores.tolist(), answer.rows.tolist(), strict=True
            )
        ]
        return {"points": points, "index": self._stamp(answer.version)}

    def _stamp(self, loaded: Searchable) -> dict[str, Any]:
        version: Version = loaded.version
        created_ms = version.manifest["created_ms"]
        return {
            "version": str(version.name),
            "generation": version.manifest["generation"],
            "age_seconds": max(0.0, (self._searcher.clock.now_ms() - created_ms) / 1000),
        }


async def _index_of_routes(request: Request) -> Response:
    del request
    return _json({"service": "livevec", "routes": _ROUTES})


def _id(request: Request) -> bytes:
    return unquote_to_bytes(request.path_params["id"].encode("latin-1"))


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        message = f"{name}: expected a whole number, found {text[:40]!r}"
        raise InvalidQuery(message)
    return int(text)


def _bytes(ids: list[str]) -> list[bytes]:
    return [one.encode() for one in ids]


def _text(item: bytes) -> str:
    return item.decode("utf-8", "replace")


def _status(error: QueryError) -> int:
    return next(status for kind, status in _STATUS.items() if isinstance(error, kind))


def _json(content: Any) -> Response:
    return Response(encode(content), media_type="application/json")


def _problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    content = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    media_type = "application/problem+json"
    return Response(encode(content), status, dict(headers or {}), media_type)


def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = error.detail
    if error.status_code in (404, 405):
        detail = f"no route {request.method} {request.url.path}; GET / lists them"
    return _problem(error.status_code, detail, error.headers)


def _query_problem(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, QueryError)
    status = _status(error)
    return _problem(status, str(error), {"retry-after": _RETRY_SECONDS} if status == 503 else None)


def _gone(request: Request, error: Exception) -> Response:
    del request, error
    return _problem(400, "the client went away before its request was whole")


def _bug(request: Request, error: Exception) -> Response:
    del request, error
    return _problem(500, "a bug of ours; the service's log has more")
