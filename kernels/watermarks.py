"""Event time of a partition: what its watermark follows, and which clocks it does not believe.

A stray is a click more than `max_jump` ahead of its partition's watermark. Of a watermark that
fewer than 20 clicks have borne out since it was set, a click so far behind is a stray, too: so the
wrong clock of a first click is found out. The watermark moves to where the strays are once 20 came
in a row and most of them lie within `max_jump` of the last.
"""

from kernels.policy import part
from kernels.windows import (
    AGREEING,
    N_STRAY_TIMES,
    NEVER,
    SETTLED,
    STRAY_TIMES,
    STRAYS,
    WATERMARK,
)


@part
def _is_stray(s, rules, partition, time):
    """Tell whether a click is too far from its partition's watermark to be believed.

    Behind it, that counts against the watermark as long as few clicks have borne it out.
    """
    watermark = s.partitions[partition, WATERMARK]
    if watermark == NEVER:
        return False
    if time - watermark > rules.max_jump:
        return True
    return s.partitions[partition, SETTLED] < AGREEING and watermark - time > rules.max_jump


@part
def _has_moved(s, rules, partition, time):
    """Tell whether the last clicks, this one with them, are strays and most of them near it."""
    if s.partitions[partition, STRAYS] < N_STRAY_TIMES:
        return False
    near = 1
    for k in range(N_STRAY_TIMES):
        if abs(s.partitions[partition, STRAY_TIMES + k] - time) <= rules.max_jump:
            near += 1
    return 2 * near > AGREEING


@part
def advance(s, rules, partition, time):
    """Advance or move a watermark; tell whether the click is a stray, which has done neither.

    Changes nothing that a second call with the same click would change again.
    """
    watermark = time - rules.out_of_orderness
    if _is_stray(s, rules, partition, time):
        if not _has_moved(s, rules, partition, time):
            return True
        s.partitions[partition, WATERMARK] = watermark
        s.partitions[partition, SETTLED] = 0
        s.partitions[partition, STRAYS] = 0
    elif watermark > s.partitions[partition, WATERMARK]:
        s.partitions[partition, WATERMARK] = watermark
    return False


@part
def note(s, partition, time, is_stray):
    """Count a click, once, for or against its partition's watermark."""
    if is_stray:
        at = s.partitions[partition, STRAYS] % N_STRAY_TIMES
        s.partitions[partition, STRAY_TIMES + at] = time
        s.partitions[partition, STRAYS] += 1
    else:
        s.partitions[partition, STRAYS] = 0
        if s.partitions[partition, SETTLED] < AGREEING:
            s.partitions[partition, SETTLED] += 1
