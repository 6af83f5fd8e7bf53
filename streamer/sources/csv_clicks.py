"""Clicks that are lines of CSV."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kernels.clicks import split_csv
from streamer.errors import ConfigError, InvalidEvent
from streamer.settings.clicks import ClickMapping, is_template, listed, template_parts
from streamer.sources.clicks import MALFORMED, MAX_RECORD_BYTES, Headers
from streamer.sources.decoding import (
    Columns,
    Decoder,
    Records,
    as_text,
    content,
    plain_names,
)

_DEFAULT_SESSION = ClickMapping.model_fields["session"].default


class CsvDecoder(Decoder):
    """Each record is a line under `header`; `where` names the file in errors.

    A line is one record: a quoted line feed is not supported, and its line is malformed.
    """

    def __init__(
        self, mapping: ClickMapping, header: list[str], delimiter: str, where: str = "CSV"
    ) -> None:
        super().__init__(mapping)
        if not delimiter.isascii() or delimiter in '"\r\n' or len(delimiter) != 1:
            msg = f"{where}: expected one ASCII character as delimiter, found {delimiter!r}"
            raise ConfigError(msg)
        _check_columns(mapping, header, where)
        self._delimiter = delimiter
        self._header = header
        names = plain_names(mapping)
        self._is_plain = names is not None
        columns = [header.index(name) if name in header else -1 for name in names or ()]
        self._layout = np.array([*columns, len(header)], np.int64)
        # One limit for the process, 128 KiB by default; the source's bound is the one that holds.
        csv.field_size_limit(MAX_RECORD_BYTES)

    def _parse(self, records: Records, columns: Columns) -> None:
        if self._is_plain:
            delimiter = np.uint8(ord(self._delimiter))
            split_csv(*records[:3], self._layout, delimiter, *columns.of_kernel)
        else:
            super()._parse(records, columns)

    def fields(self, value: bytes | None, headers: Headers = ()) -> Mapping[str, Any]:
        """Return the columns of the line. Raises `InvalidEvent`."""
        del headers
        text = as_text(content(value))
        try:
            rows = list(csv.reader([text], delimiter=self._delimiter, strict=True))
        except csv.Error as error:
            msg = f"expected one line of CSV: {error}"
            raise InvalidEvent(MALFORMED, msg) from error
        found = len(rows[0]) if len(rows) == 1 else 0
        if found != len(self._header):
            msg = f"expected {len(self._header)} columns, found {found}"
            raise InvalidEvent(MALFORMED, msg)
        return dict(zip(self._header, rows[0], strict=True))


def _check_columns(mapping: ClickMapping, header: Sequence[str], where: str) -> None:
    """Raise `ConfigError` where the header lacks a column, or has one twice."""
    twice = sorted({one for one in _named(mapping) if header.count(one) > 1})
    absent = list(_absent(mapping, header))
    if twice or absent:
        faults = [f"{key} column {_said(getattr(mapping, key))}" for key in absent]
        expected = f"{' and '.join(faults)}" if faults else f"column {twice[0]!r} once"
        fields = " and ".join(f"clicks.{key}" for key in absent) or "the header"
        msg = (
            f"{where}: expected {expected}, found columns {list(header)!r}; set {fields}; or is"
            " source.files.delimiter not right, or the first line no header?"
        )
        raise ConfigError(msg)


def _absent(mapping: ClickMapping, header: Sequence[str]) -> Iterator[str]:
    """Yield the settings none of whose columns is there, though they are needed."""
    for key in ("item", "time"):
        if not _is_there(getattr(mapping, key), header):
            yield key
    session = () if mapping.session == mapping.user else mapping.session
    has_session = bool(session) and _is_there(session, header)
    if not _is_there(mapping.user, header) and not has_session:
        yield "user"
    elif session and not has_session and session != _DEFAULT_SESSION:
        yield "session"
    if mapping.types and not _is_there(mapping.type, header):
        yield "type"
    if mapping.weight and not _is_there(mapping.weight, header):
        yield "weight"
    if not all(name in header for name in mapping.only):
        yield "only"
    if not all(name in header for name in listed(mapping.event_id)):
        yield "event_id"


def _is_there(names: str | tuple[str, ...], header: Sequence[str]) -> bool:
    """Tell whether one of several alternatives is there."""
    return any(all(one in header for one in _columns(name)) for name in listed(names))


def _columns(name: str) -> tuple[str, ...]:
    return tuple(f for _, f in template_parts(name) if f) if is_template(name) else (name,)


def _named(mapping: ClickMapping) -> Iterator[str]:
    """Yield every column that a mapping names."""
    yield from mapping.only
    for name in listed(mapping.item):
        yield from _columns(name)
    for names in (mapping.user, mapping.time, mapping.session, mapping.type, mapping.weight):
        yield from listed(names)
    yield from listed(mapping.event_id)


def _said(names: str | tuple[str, ...] | Mapping[str, Any]) -> str:
    each = names if isinstance(names, Mapping) else listed(names)
    return " or ".join(repr(name) for name in each)
