"""A click among a record's fields: which of them is what, as the mapping of its topic says."""

import math
import re
import reprlib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from kernels.clicks import MAX_ITEM_BYTES
from streamer.errors import InvalidEvent
from streamer.settings.clicks import ClickMapping, is_template, listed, template_parts
from streamer.sources.clicks import (
    BAD_TIME,
    BAD_WEIGHT,
    LONG_ITEM,
    MALFORMED,
    NO_ITEM,
    NO_USER,
    OTHER_KIND,
    UNLISTED_TYPE,
)
from streamer.sources.event_times import to_ms

_NUMBER = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{0,40})?([eE][+-]?[0-9]{1,3})?")
_BETWEEN_IDS = b"\0"  # parts of an event id


class Click(NamedTuple):
    """One click; an id that it does not have is empty."""

    item: bytes
    user: bytes
    session: bytes
    event_id: bytes
    time_ms: int
    weight: float

    @property
    def ids(self) -> tuple[bytes, bytes, bytes, bytes]:
        """The item, the user, the session and the event id."""
        return self[:4]


class Filtered(NamedTuple):
    """A record that is left out, for a reason that is no fault of its producer's."""

    reason: str


class _Path(NamedTuple):
    """A field's name, and the keys of the objects that lead to it if it has dots."""

    name: str
    keys: tuple[str, ...]


class _Composed(NamedTuple):
    """An id as texts, each with the field that follows it, if one does."""

    parts: tuple[tuple[bytes, _Path | None], ...]


class ClickReader:
    """Finds the click in a record's fields.

    >>> reader = ClickReader(ClickMapping(item="{kind}:{page}"))
    >>> reader.read({"kind": "news", "page": 7, "user_id": "u", "ts": 1}).item
    b'news:7'
    """

    def __init__(self, mapping: ClickMapping) -> None:
        self._mapping = mapping
        self._items = [_item(name) for name in listed(mapping.item)]
        self._user = _paths(mapping.user)
        # A session field that is the user field says nothing more than the user.
        self._session = () if mapping.session == mapping.user else _paths(mapping.session)
        self._time = _paths(mapping.time)
        self._only = [((_path(name),), listed(values)) for name, values in mapping.only.items()]
        self._type = _paths(mapping.type)
        self._weight = _paths(mapping.weight)
        self._event_id = _paths(mapping.event_id)

    def read(self, fields: Mapping[str, Any]) -> Click | Filtered:
        """Return the click, or why the record is left out.

        What a mapping filters is filtered before anything else is asked of the record: it need
        not have an item. Raises `InvalidEvent`.
        """
        for path, values in self._only:
            if _word(_first(fields, path)) not in values:
                return Filtered(OTHER_KIND)
        weight: float | None = 1.0
        if self._mapping.types:
            weight = self._mapping.types.get(_word(_first(fields, self._type)))
        if weight is None:
            return Filtered(UNLISTED_TYPE)
        item = self._item_of(fields)
        user = _id(fields, self._user)
        session = _id(fields, self._session)
        if not user and not session:
            named = [*listed(self._mapping.user), *listed(self._mapping.session)]
            msg = f"expected a user or a session in {_either(dict.fromkeys(named))}, found none"
            raise InvalidEvent(NO_USER, msg)
        time_ms = self._time_ms(_first(fields, self._time))
        if self._weight:
            weight *= self._factor(_first(fields, self._weight))
        return Click(item, user, session, self._event_id_of(fields), time_ms, weight)

    def time_place(self, fields: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the keys that lead to the event time of a click that `read` takes."""
        here = next(path for path in self._time if _first(fields, (path,)) is not None)
        return here.keys if here.keys and here.name not in fields else (here.name,)

    def _item_of(self, fields: Mapping[str, Any]) -> bytes:
        item = b""
        for one in self._items:
            item = _composed(fields, one) if isinstance(one, _Composed) else _id(fields, (one,))
            if item:
                break
        if not item:
            msg = f"expected an item in {_either(listed(self._mapping.item))}, found none"
            raise InvalidEvent(NO_ITEM, msg)
        if len(item) > MAX_ITEM_BYTES:
            msg = f"expected an item of at most {MAX_ITEM_BYTES} bytes, found {len(item)}"
            raise InvalidEvent(LONG_ITEM, msg)
        return item

    def _time_ms(self, value: Any) -> int:
        unit = self._mapping.time_unit
        time_ms = to_ms(value, unit)
        if time_ms is None:
            where, found = _either(listed(self._mapping.time)), reprlib.repr(value)
            msg = f"expected a time ({unit}) in {where}, found {found}"
            raise InvalidEvent(BAD_TIME, msg)
        return time_ms

    def _factor(self, value: Any) -> float:
        """Return what a click's number multiplies its weight with: log, if asked for, then clip."""
        number = self._mapping.weight_default if value is None else _number(value)
        if number is None:
            where, found = _either(listed(self._mapping.weight)), reprlib.repr(value)
            msg = f"expected a number of at least 0 in {where}, found {found}"
            raise InvalidEvent(BAD_WEIGHT, msg)
        low, high = self._mapping.weight_range
        return min(max(math.log1p(number) if self._mapping.weight_log else number, low), high)

    def _event_id_of(self, fields: Mapping[str, Any]) -> bytes:
        """Return the joined parts of the event id; one that lacks a part is none."""
        parts = [_id(fields, (path,)) for path in self._event_id]
        return _BETWEEN_IDS.join(parts) if all(parts) else b""


def _path(name: str) -> _Path:
    return _Path(name, tuple(name.split(".")) if "." in name else ())


def _paths(names: str | tuple[str, ...]) -> tuple[_Path, ...]:
    return tuple(_path(name) for name in listed(names))


def _item(name: str) -> _Path | _Composed:
    if not is_template(name):
        return _path(name)
    parts = ((text.encode(), _path(one) if one else None) for text, one in template_parts(name))
    return _Composed(tuple(parts))


def _first(fields: Mapping[str, Any], paths: tuple[_Path, ...]) -> Any:
    """Return the first value that is there; null and the empty text are not."""
    for path in paths:
        value = fields.get(path.name)
        if value is None and path.keys and path.name not in fields:
            value = _inside(fields, path.keys)
        if value is not None and value != "":
            return value
    return None


def _inside(fields: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        if not isinstance(fields, Mapping):
            return None
        fields = fields.get(key)
    return fields


def _id(fields: Mapping[str, Any], paths: tuple[_Path, ...]) -> bytes:
    """Return the first id that is there as text, else nothing."""
    value = _first(fields, paths)
    if isinstance(value, str):
        return value.encode()
    if value is None:
        return b""
    if (isinstance(value, int) and not isinstance(value, bool)) or isinstance(value, UUID):
        return str(value).encode()
    where = _either(path.name for path in paths)
    msg = f"expected a string or an integer in {where}, found {reprlib.repr(value)}"
    raise InvalidEvent(MALFORMED, msg)


def _composed(fields: Mapping[str, Any], item: _Composed) -> bytes:
    """Return an id with all its parts, else nothing."""
    found = []
    for text, path in item.parts:
        part = _id(fields, (path,)) if path is not None else b""
        if path is not None and not part:
            return b""
        found += [text, part]
    return b"".join(found)


def _word(value: Any) -> str:
    """Return a value as JSON would write it, as far as it can be listed in a setting."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else ""


def _number(value: Any) -> float | None:
    """Return a number of at least 0, or None if it is none."""
    if isinstance(value, str):
        number = float(value) if _NUMBER.fullmatch(value) else math.nan
    elif isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            return None
    else:
        return None
    return number if 0 <= number < math.inf else None


def _either(names: Iterable[str]) -> str:
    return " or ".join(repr(name) for name in names)
