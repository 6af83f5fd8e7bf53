"""How memory is kept: what is freed goes back, what a cache holds it holds from the start."""

import ctypes

import numpy as np

LARGE_BYTES = 256 << 10

# numpy/_core/src/multiarray/alloc.c: NBUCKETS, NCACHE (numpy pull request 17582 tells of them).
_CACHED_BELOW_BYTES = 1024
_CACHED_OF_EACH_SIZE = 7

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # mallopt(3)
_LIBRARY = ctypes.CDLL(None)


def return_large_arrays() -> None:
    """Have glibc give back arrays from `LARGE_BYTES` on as soon as they are freed, from one arena.

    By itself it raises that bound with each array that it gives back, to 32 MiB. The copies of
    the state that commits make then lie among small things, and leave holes: over 20
    minutes of 20,000 clicks a second a daemon stood at 280 MB, once after a step of 6 in the eighth
    minute, and with this bound at 260 without a step. Arenas of other threads, which it would have
    beside, held 1.3 MB between some commits and not between others; few threads allocate at once.
    Does nothing where the C library is another.
    """
    mallopt = getattr(_LIBRARY, "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_M_ARENA_MAX, 1)


def fill_array_cache() -> None:
    """Have numpy keep at once what it would keep in the course of hours: 3.6 MB.

    It hangs on to the memory of the last seven arrays of each size below 1 KiB that were freed.
    Batches are of any size, so that the seven come together one by one, here and there among
    other things: a daemon at 20,000 clicks a second grew by 70 KB a minute.
    """
    for n_bytes in range(1, _CACHED_BELOW_BYTES):
        arrays = [np.empty(n_bytes, np.uint8) for _ in range(_CACHED_OF_EACH_SIZE)]
        del arrays  # all at once: one by one they would be the same memory


def return_free_pages() -> None:
    """Have glibc give back what is free among small things, too, after work that needed much.

    Blocks for some milliseconds. Does nothing where the C library is another.
    """
    malloc_trim = getattr(_LIBRARY, "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
