"""How the C library keeps memory: what is freed goes back to the system."""

import ctypes

LARGE_BYTES = 256 << 10

_M_MMAP_THRESHOLD = -3  # mallopt(3)
_LIBRARY = ctypes.CDLL(None)


def return_large_arrays() -> None:
    """Have glibc give back arrays from `LARGE_BYTES` on as soon as they are freed.

    By itself it raises that bound with each array that it gives back, to 32 MiB. The copies of
    the state that commits make then lie among small things, and leave holes: over 20
    minutes of 20,000 clicks a second a daemon stood at 280 MB, once after a step of 6 in the eighth
    minute, and with this bound at 260 without a step. Does nothing where the C library is another.
    """
    mallopt = getattr(_LIBRARY, "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)


def return_free_pages() -> None:
    """Have glibc give back what is free among small things, too, after work that needed much.

    Blocks for some milliseconds. Does nothing where the C library is another.
    """
    malloc_trim = getattr(_LIBRARY, "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
