"""What is freed goes back to the system, however large the arrays before it were."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is about glibc")

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


def resident(program: str, *, asked: bool) -> int:
    """Return the resident bytes of a process that has run `program`."""
    begin = f"import numpy as np\nfrom streamer import heap\nasked = {asked}\n"
    end = 'print(int(open("/proc/self/statm").read().split()[1]) * 4096)'
    run = [sys.executable, "-c", f"{begin}{program}{end}"]
    return int(subprocess.check_output(run))


def test_arrays_between_small_things_leave_no_holes() -> None:
    assert resident(BETWEEN, asked=True) < resident(BETWEEN, asked=False) - (64 << 20)


def test_free_pages_below_what_is_in_use_are_given_back() -> None:
    assert resident(SMALL, asked=True) < resident(SMALL, asked=False) - (100 << 20)
