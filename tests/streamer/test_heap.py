"""What is freed goes back to the system, and what is kept is kept from the start."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is about glibc")

BEGIN = """
import numpy as np
from streamer import heap
def resident_bytes():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
"""

BETWEEN = """
if asked:
    heap.return_large_arrays()
for _ in range(3):  # from now on glibc alone would keep arrays of 8 MiB among small things
    np.ones(1 << 21)
large, small = [], []
for _ in range(16):
    large.append(np.ones(1 << 20))
    small.append(np.ones(2000))
del large[:-1], large
"""

SMALL = """
small = [np.ones(2000) for _ in range(8192)]
del small[:-1]
if asked:
    heap.return_free_pages()
"""


OF_ALL_SIZES = """
if asked:
    heap.fill_array_cache()
before = resident_bytes()
for n_bytes in range(1, 1024):
    arrays = [np.ones(n_bytes, np.uint8) for _ in range(7)]
print(resident_bytes() - before)
"""


def resident(program: str, *, asked: bool) -> int:
    """Return the resident bytes of a process that has run `program`."""
    begin = f"{BEGIN}asked = {asked}\n"
    end = "print(resident_bytes())"
    run = [sys.executable, "-c", f"{begin}{program}{end}"]
    return int(subprocess.check_output(run).split()[0])


def test_arrays_between_small_things_leave_no_holes() -> None:
    assert resident(BETWEEN, asked=True) < resident(BETWEEN, asked=False) - (64 << 20)


def test_free_pages_below_what_is_in_use_are_given_back() -> None:
    assert resident(SMALL, asked=True) < resident(SMALL, asked=False) - (100 << 20)


def test_small_arrays_of_all_sizes_need_no_more_memory_than_at_the_start() -> None:
    """Fails where numpy keeps more than we know of; without us it does from the first array on."""
    assert resident(OF_ALL_SIZES, asked=False) > 3 << 20
    assert resident(OF_ALL_SIZES, asked=True) < 1 << 19
