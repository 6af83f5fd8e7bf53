"""Schemas of a registry, fetched once per id by a thread beside the stream.

The wire format and the requests are those of Confluent's registry, which others answer, too:
https://docs.confluent.io/platform/current/schema-registry/develop/api.html
"""

import base64
import http.client
import reprlib
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import msgspec

from streamer.errors import InvalidEvent, SchemaUnavailable
from streamer.sources.clicks import NO_SCHEMA

RETRY_SECONDS = 1.0
TIMEOUT_SECONDS = 10.0  # of one request, which nobody but the thread waits for
MAX_SCHEMA_BYTES = 4 << 20
MAX_KNOWN = 10_000  # ids; beyond it those that a batch does not need are forgotten
MAX_REFERENCES = 100  # of one schema, direct or not

# Reads schemas, each behind those that it refers to; raises `ValueError` where one is no schema.
Parse = Callable[[list[str]], Any]


class _Unknown(Exception):
    """Raised when the registry has no such schema, or one that is none of ours."""


class _Away(Exception):
    """Raised when the registry does not answer as it should, which may pass."""


class SchemaRegistry:
    """What `parse` makes of the schemas of one registry, by their ids.

    The stream asks `require` for the schemas of a batch, and then for each by `schema`; neither
    blocks. A registry that is away is asked again every second. An id that it does not know,
    and one whose schema cannot be parsed, are known as such until the process ends.
    """

    def __init__(self, url: str, parse: Parse) -> None:
        self._requests = _Requests(url)
        self._parse = parse
        self._known: dict[int, Any | InvalidEvent] = {}
        self._thread: threading.Thread | None = None
        self._trouble: str | None = None
        self._is_closed = threading.Event()

    def require(self, ids: Iterable[int]) -> None:
        """Return if each of `ids` has been asked for, and fetch them beside the stream if not.

        Raises `SchemaUnavailable` until they have come; called again, it may return.
        """
        missing = sorted(set(ids) - self._known.keys())
        if not missing:
            return
        if self._thread is None or not self._thread.is_alive():
            if len(self._known) > MAX_KNOWN:
                self._known = {one: self._known[one] for one in ids if one in self._known}
            self._trouble = None
            self._thread = threading.Thread(
                target=self._fetch_all, args=(missing,), name="schemas", daemon=True
            )
            self._thread.start()
        raise SchemaUnavailable(self._requests.where, missing[0], self._trouble)

    def schema(self, number: int) -> Any:
        """Return a schema that was required. Raises `InvalidEvent` where there is none."""
        known = self._known[number]
        if isinstance(known, InvalidEvent):
            raise InvalidEvent(known.reason, known.detail)
        return known

    def close(self) -> None:
        """Fetch nothing more; does not wait for what is under way. Idempotent."""
        self._is_closed.set()

    def _fetch_all(self, ids: Iterable[int]) -> None:
        for number in ids:
            while not self._is_closed.is_set():
                try:
                    self._known[number] = self._fetch(number)
                except _Away as error:
                    self._trouble = str(error)
                    self._is_closed.wait(RETRY_SECONDS)
                else:
                    break

    def _fetch(self, number: int) -> Any | InvalidEvent:
        try:
            return self._parse(self._requests.schema_texts(number))
        except (_Unknown, ValueError) as error:
            where = self._requests.where
            msg = f"expected schema {number} of Avro at {where}, found: {error}"
            return InvalidEvent(NO_SCHEMA, msg)


class _Reference(msgspec.Struct):
    """Another schema that one refers to."""

    subject: str
    version: int


class _Answer(msgspec.Struct, rename="camel"):
    """What the registry says of a schema."""

    schema: str
    schema_type: str | None = None
    references: list[_Reference] | None = None


_ANSWERS = msgspec.json.Decoder(_Answer)


class _Requests:
    """What is asked of a registry; `where` is its address without the password."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        user, _, host = parts.netloc.rpartition("@")
        self.where = parts._replace(netloc=host).geturl()
        self._headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
        if user:
            encoded = base64.b64encode(unquote(user).encode()).decode()
            self._headers["Authorization"] = f"Basic {encoded}"
        # The environment, and a proxy in it, are not for us to read.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def schema_texts(self, number: int) -> list[str]:
        """Return a schema behind those that it refers to. Raises `_Unknown` or `_Away`."""
        texts: dict[str, str] = {}
        text = self._with_references(self._get(f"/schemas/ids/{number}"), texts)
        return [*texts.values(), text]

    def _with_references(self, answer: _Answer, texts: dict[str, str]) -> str:
        """Return the text of an answer, after noting in `texts` those that it refers to."""
        if answer.schema_type not in {None, "AVRO"}:
            msg = f"a schema of type {reprlib.repr(answer.schema_type)}"
            raise _Unknown(msg)
        for reference in answer.references or ():
            subject = quote(reference.subject, safe="")
            path = f"/subjects/{subject}/versions/{reference.version}"
            if path in texts:
                continue
            if len(texts) >= MAX_REFERENCES:
                msg = f"more than {MAX_REFERENCES} references"
                raise _Unknown(msg)
            texts[path] = ""  # so that a circle ends
            found = self._with_references(self._get(path), texts)
            del texts[path]
            texts[path] = found
        return answer.schema

    def _get(self, path: str) -> _Answer:
        request = urllib.request.Request(self.where + path, headers=self._headers)  # noqa: S310 - the settings admit http and https alone
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                return _ANSWERS.decode(answer.read(MAX_SCHEMA_BYTES))
        except urllib.error.HTTPError as error:
            error.close()
            msg = f"HTTP status {error.code}"
            raise (_Unknown(msg) if error.code == http.client.NOT_FOUND else _Away(msg)) from error
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            reason = getattr(error, "reason", None) or error
            raise _Away(str(reason)) from error
