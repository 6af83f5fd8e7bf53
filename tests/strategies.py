"""Hypothesis strategies: streams of clicks whose times lie around the edges of the rules."""

from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st

from kernels.policy import config
from kernels.windows import Rules
from tests.oracles import AGREEING, Click

GAP, LATENESS, OUT_OF_ORDERNESS, MAX_JUMP = 10, 12, 3, 100
RULES = Rules(
    gap=GAP,
    lateness=LATENESS,
    out_of_orderness=OUT_OF_ORDERNESS,
    max_jump=MAX_JUMP,
    max_kept=200,
    max_trained=2000,
    max_open=1000,
    window=2,
    is_early=1,
)
# Session keys that share their place in a small table, and the ends of the range.
KEYS = (1, 1 + (1 << 12), 2, (1 << 64) - 1)
_EDGES = (0, 1, GAP - 1, GAP, GAP + 1, GAP + LATENESS + OUT_OF_ORDERNESS, MAX_JUMP)
_STEPS = sorted({sign * edge + by for edge in _EDGES for sign in (1, -1) for by in (-1, 0, 1)})


class Idle(NamedTuple):
    """A partition that is declared idle at this point of the stream."""

    partition: int


def examples(n):
    """Return settings for `n` examples, fewer where kernels run as plain Python."""
    return settings(max_examples=max(6, n // 12) if config.DISABLE_JIT else n, deadline=None)


def rules(is_early=None):
    """Rules whose bounds bite, or do not."""
    return st.builds(
        lambda *values: RULES._replace(
            **dict(
                zip(
                    ("is_early", "max_kept", "max_trained", "max_open", "window", "lateness"),
                    values,
                    strict=True,
                )
            )
        ),
        st.sampled_from((0, 1)) if is_early is None else st.just(is_early),
        st.sampled_from((200, 200, 3, 2, 1)),
        st.sampled_from((2000, 2000, 5, 3)),
        st.sampled_from((1000, 1000, 1000, 3, 2, 1)),
        st.sampled_from((2, 1, 5)),
        st.sampled_from((LATENESS, 0, 5 * GAP)),
    )


def streams(n_partitions=3, max_size=60, events=(0,)):
    """Lists of `Click` and `Idle`: late, far ahead, at a gap exactly and one beyond it.

    Their event ids are some of `events`.
    """
    click = st.tuples(
        st.sampled_from(KEYS),
        st.integers(1, 4),
        st.integers(0, n_partitions - 1),
        st.integers(1, 4),
        st.integers(-GAP, GAP) | st.sampled_from(_STEPS),
        st.just(1) | st.sampled_from((1, 2, AGREEING - 1, AGREEING, AGREEING + 1)),
        st.sampled_from((False, False, False, False, True)),
        st.sampled_from(events),
    )
    idle = st.builds(Idle, st.integers(0, n_partitions - 1))
    one = click if n_partitions == 1 else st.one_of(*(5 * [click]), idle)
    # Short ones are easy to read when they fail, long ones find what needs several to meet.
    lists = st.lists(one, max_size=max_size) | st.lists(
        one, min_size=max_size // 2, max_size=max_size
    )
    return lists.map(_stream)


def ordered_streams(max_size=80):
    """Clicks of one partition in the order of their times."""
    click = st.tuples(
        st.sampled_from(KEYS), st.integers(1, 4), st.sampled_from((0, 1, 5, GAP, GAP + 1, 40))
    )
    return st.lists(click, max_size=max_size).map(_ordered_stream)


def _stream(draws):
    """Place each click at a step from one of the last, a run of clicks where it says so."""
    events, offsets = [], {}
    times = [1000]
    for draw in draws:
        if isinstance(draw, Idle):
            events.append(draw)
            continue
        key, item, partition, back, step, n, is_refused, event = draw
        time = times[-min(back, len(times))] + step
        for _ in range(n if abs(step) > GAP else 1):
            offset = offsets[partition] = offsets.get(partition, -1) + 1
            click = Click(key, item, time, partition, offset, is_refused=is_refused, event=event)
            events.append(click)
        times.append(time)
    return events


def _ordered_stream(draws):
    time, events = 1000, []
    for offset, (key, item, step) in enumerate(draws):
        time += step
        events.append(Click(key, item, time, 0, offset))
    return events
