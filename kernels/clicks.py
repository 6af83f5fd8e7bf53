"""A flat JSON click as columns; what it cannot read it flags, never guesses.

The same for a line of CSV. A record that is flagged is not necessarily wrong: it may hold an
escape, a quote, a fraction or a letter beyond ASCII, which slower code reads. A record that is
not flagged is a click, and every reader of its format reads the same one.
"""

import numpy as np

from kernels.policy import kernel, part

# The order of the fields in `names`, in `columns`, and of the ids in `spans`.
ITEM, USER, SESSION, TIME = 0, 1, 2, 3
OTHER = 4

TAB, LINE_FEED, CARRIAGE_RETURN, SPACE = 9, 10, 13, 32
QUOTE, COMMA, MINUS, POINT = 34, 44, 45, 46
ZERO, NINE, COLON, BACKSLASH = 48, 57, 58, 92
OPEN_BRACE, CLOSE_BRACE = 123, 125

MAX_DIGITS = 18  # whatever has no more of them fits int64
MAX_ITEM_BYTES = 1024  # an id is kept with its row, so that memory is bounded by the rows


@part
def _after_space(data, at, end):
    while at < end and (
        data[at] == SPACE or data[at] == LINE_FEED or data[at] == CARRIAGE_RETURN or data[at] == TAB
    ):
        at += 1
    return at


@part
def _string_end(data, at, end):
    """Return where the closing quote of the string at `at` is, or -1 if it is no plain ASCII."""
    while at < end and data[at] != QUOTE:
        if data[at] < SPACE or data[at] > 127 or data[at] == BACKSLASH:
            return -1
        at += 1
    return at if at < end else -1


@part
def _digits_end(data, at, end):
    """Return the end of one to `MAX_DIGITS` digits, or -1."""
    start = at
    while at < end and data[at] >= ZERO and data[at] <= NINE:
        at += 1
    return at if 0 < at - start <= MAX_DIGITS else -1


@part
def _integer_end(data, at, end):
    """Return the end of a JSON integer that is its own decimal text (so no -0), or -1."""
    start = at + 1 if data[at] == MINUS else at
    stop = _digits_end(data, start, end)
    if stop > 0 and data[start] == ZERO and (stop > start + 1 or start > at):
        return -1
    return stop


@part
def _integer(data, at, end):
    value = np.int64(0)
    for i in range(at + 1 if data[at] == MINUS else at, end):
        value = value * 10 + (np.int64(data[i]) - ZERO)
    return -value if data[at] == MINUS else value


@part
def _is_text(data, at, end, text):
    if end - at < len(text):
        return False
    for i in range(len(text)):
        if data[at + i] != text[i]:
            return False
    return True


@part
def _is_null(data, at, end):
    return _is_text(data, at, end, (110, 117, 108, 108))


@part
def _other_end(data, at, end):
    """Return the end of a member's value that nobody reads, or -1 where it is out of the plain."""
    if data[at] == QUOTE:
        stop = _string_end(data, at + 1, end)
        return stop + 1 if stop >= 0 else -1
    if _is_null(data, at, end) or _is_text(data, at, end, (116, 114, 117, 101)):
        return at + 4
    if _is_text(data, at, end, (102, 97, 108, 115, 101)):
        return at + 5
    stop = _integer_end(data, at, end)
    if 0 <= stop < end and data[stop] == POINT:
        return _digits_end(data, stop + 1, end)
    return stop


@part
def _id_end(data, at, end, field, spans, i):
    """Note where the id at `at` lies and return the end of its value, or -1.

    A null is an absent id; an absent item is for others to complain about.
    """
    start, stop, after = at, at, -1
    if data[at] == QUOTE:
        start = at + 1
        stop = _string_end(data, start, end)
        after = stop + 1 if stop >= 0 else -1
    elif _is_null(data, at, end):
        after = at + 4
    else:
        stop = _integer_end(data, at, end)
        after = stop
    spans[2 * field, i] = start
    spans[2 * field + 1, i] = stop - start
    return after


@part
def _field(data, at, end, names, name_ends):
    """Return which field the name at `at` is; a field without a name is never found."""
    start = 0
    for field in range(4):
        stop = name_ends[field]
        if stop > start and stop - start == end - at:
            same = 0
            while same < end - at and data[at + same] == names[start + same]:
                same += 1
            if same == end - at:
                return field
        start = stop
    return OTHER


@part
def _is_whole(spans, i):
    has_item = 0 < spans[2 * ITEM + 1, i] <= MAX_ITEM_BYTES
    return has_item and (spans[2 * USER + 1, i] > 0 or spans[2 * SESSION + 1, i] > 0)


@part
def _value_end(data, at, end, field, spans, times, i):
    if field == OTHER:
        return _other_end(data, at, end)
    if field != TIME:
        return _id_end(data, at, end, field, spans, i)
    stop = _integer_end(data, at, end)
    if stop > 0:
        times[i] = _integer(data, at, stop)
    return stop


@part
def _name_end(data, at, end):
    """Return where the closing quote of the name at `at` is, or -1; its opening one is before."""
    if at > end or data[at - 1] != QUOTE:
        return -1
    return _string_end(data, at, end)


@part
def _value_start(data, name_end, end):
    """Return where the value begins whose name ends at `name_end`, or -1."""
    if name_end < 0:
        return -1
    at = _after_space(data, name_end + 1, end)
    if at >= end or data[at] != COLON:
        return -1
    at = _after_space(data, at + 1, end)
    return at if at < end else -1


@part
def _json_click(data, at, end, names, name_ends, spans, times, i):
    """Tell whether the bytes from `at` to `end` are a flat click, and note its columns."""
    at = _after_space(data, at, end)
    seen = 0
    has_more = at < end and data[at] == OPEN_BRACE
    while has_more:
        name = _after_space(data, at + 1, end) + 1
        name_end = _name_end(data, name, end)
        at = _value_start(data, name_end, end)
        if at < 0:
            return False
        field = _field(data, name, name_end, names, name_ends)
        if field != OTHER and (seen >> field) & 1 == 1:
            return False
        seen |= 1 << field
        at = _value_end(data, at, end, field, spans, times, i)
        at = _after_space(data, at, end) if at >= 0 else end
        if at >= end:
            return False
        has_more = data[at] == COMMA
    return (
        (seen >> TIME) & 1 == 1
        and data[at] == CLOSE_BRACE
        and _after_space(data, at + 1, end) == end
        and _is_whole(spans, i)
    )


@kernel(
    "i8(u1[::1], i8[::1], i8[::1], u1[::1], i8[::1], i8[:,::1], i8[::1], u1[::1])", fastmath=False
)
def parse_json(data, starts, lengths, names, name_ends, spans, times, flags):
    """Read flat JSON clicks; other members may be plain strings, numbers, booleans or null.

    Parameters
    ----------
    data : uint8 (n_bytes,)
    starts : int64 (n,), where each record begins in `data`
    lengths : int64 (n,); a record without a length (< 0) is flagged
    names : uint8 (n_name_bytes,), the names of item, user, session and time, one after another
    name_ends : int64 (4,), where each name ends; a field whose name is empty is in no record
    spans : int64 (6, n), overwritten: start and length of item, of user, of session; absent is 0
    times : int64 (n,), overwritten where not flagged, in the record's own unit
    flags : uint8 (n,), overwritten: 1 where the record was not read, and its columns mean nothing

    Returns
    -------
    int64, how many are flagged
    """
    n_flagged = 0
    for i in range(starts.shape[0]):
        spans[:, i] = 0
        start = starts[i]
        end = start + lengths[i]
        is_click = _json_click(data, start, end, names, name_ends, spans, times, i)
        flags[i] = 0 if is_click else 1
        n_flagged += flags[i]
    return n_flagged


@part
def _csv_field(data, at, end, field, spans, times, i):
    """Note one column of a line; tell whether it can be what it should be."""
    if field != TIME:
        spans[2 * field, i] = at
        spans[2 * field + 1, i] = end - at
        return True
    if at >= end:
        return False
    start = at + 1 if data[at] == MINUS else at
    if _digits_end(data, start, end) != end:
        return False
    times[i] = _integer(data, at, end)
    return True


@part
def _csv_click(data, at, end, columns, delimiter, spans, times, i):
    """Tell whether the bytes from `at` to `end` are a plain line, and note its columns."""
    if end > at and data[end - 1] == CARRIAGE_RETURN:
        end -= 1
    start, column = at, 0
    while at <= end:
        if at == end or data[at] == delimiter:
            for field in range(4):
                if columns[field] == column and not _csv_field(
                    data, start, at, field, spans, times, i
                ):
                    return False
            column += 1
            start = at + 1
        elif data[at] == QUOTE or data[at] > 127 or (data[at] < SPACE and data[at] != TAB):
            return False
        at += 1
    return column == columns[4] and _is_whole(spans, i)


@kernel("i8(u1[::1], i8[::1], i8[::1], i8[::1], u1, i8[:,::1], i8[::1], u1[::1])", fastmath=False)
def split_csv(data, starts, lengths, columns, delimiter, spans, times, flags):
    r"""Read CSV clicks, one line each; a trailing \r is no part of a line.

    Parameters
    ----------
    data : uint8 (n_bytes,)
    starts : int64 (n,), where each line begins in `data`
    lengths : int64 (n,); a line without a length (< 0) is flagged
    columns : int64 (5,), the columns of item, user, session (-1: there is none) and time,
        and the number of columns of a line
    delimiter : uint8, between columns
    spans : int64 (6, n), overwritten: start and length of item, of user, of session; absent is 0
    times : int64 (n,), overwritten where not flagged, in the line's own unit
    flags : uint8 (n,), overwritten: 1 where the line was not read, and its columns mean nothing

    Returns
    -------
    int64, how many are flagged
    """
    n_flagged = 0
    for i in range(starts.shape[0]):
        spans[:, i] = 0
        start = starts[i]
        end = start + lengths[i]
        is_click = _csv_click(data, start, end, columns, delimiter, spans, times, i)
        flags[i] = 0 if is_click else 1
        n_flagged += flags[i]
    return n_flagged
