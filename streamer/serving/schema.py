"""What goes over HTTP: requests, read strictly, and answers."""

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from streamer.errors import InvalidQuery, QueryError

# Far beyond any use, and well within float32.
Weight = Annotated[float, Meta(ge=0, le=1e9)]
Score = Annotated[float, Meta(ge=-1e9, le=1e9)]
Ids = list[str]


class Params(Struct, frozen=True, forbid_unknown_fields=True):
    """How one query is searched and scored."""

    nprobe: Annotated[int, Meta(ge=1, le=1 << 20)] | None = None
    exact: bool = False
    popularity: Weight | None = None


class Examples(Struct, frozen=True, forbid_unknown_fields=True):
    """Items to come near to, and items to keep away from."""

    positive: Annotated[Ids, Meta(min_length=1)]
    negative: Ids = []


class Recommend(Struct, frozen=True, forbid_unknown_fields=True):
    """A query by examples."""

    recommend: Examples


class Page(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every query may say of its answer."""

    limit: Annotated[int, Meta(ge=1)] = 10
    offset: Annotated[int, Meta(ge=0)] = 0
    score_threshold: Score | None = None
    with_vector: bool = False
    exclude: Ids = []
    params: Params = Params()


class Query(Page, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/query: an item's id, a vector, or examples."""

    query: str | list[float] | Recommend


class SessionQuery(Page, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/session/query: the items of a session, the last one last."""

    items: Ids


class Point(Struct, frozen=True, omit_defaults=True):
    """One item of an answer."""

    id: str
    score: float
    vector: list[float] | None = None


class MalformedBody(QueryError):
    """Raised when a body is no JSON; HTTP 400."""


_Request = TypeVar("_Request", bound=Page)

_encoder = msgspec.json.Encoder()
_decoders: dict[type[Page], msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind) for kind in (Query, SessionQuery)
}


def decode(body: bytes, kind: type[_Request]) -> _Request:
    """Read a request; raises `MalformedBody` or `InvalidQuery`, which says where it is wrong."""
    try:
        request: _Request = _decoders[kind].decode(body)
    except msgspec.ValidationError as error:
        message = str(error)
        raise InvalidQuery(message[0].lower() + message[1:]) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"expected a JSON object, found a body that is none: {error}"
        raise MalformedBody(message) from error
    return request


def encode(answer: Any) -> bytes:
    """Write an answer."""
    return _encoder.encode(answer)
