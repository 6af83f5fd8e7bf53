"""What is freed goes back to the system, however large the arrays before it were."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import numpy as np
from streamer.heap import return_large_arrays

if sys.argv[1] == "asked":
    return_large_arrays()
for _ in range(3):  # from now on glibc alone would keep arrays of 8 MiB among small things
    np.ones(1 << 21)
large, small = [], []
for _ in range(16):
    large.append(np.ones(1 << 20))
    small.append(np.ones(2000))
del large[:-1], large
with open("/proc/self/statm") as file:
    print(int(file.read().split()[1]) * 4096)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is about glibc")
def test_arrays_between_small_things_leave_no_holes():
    asked, not_asked = (
        int(subprocess.check_output([sys.executable, "-c", PROGRAM, name]))
        for name in ("asked", "not asked")
    )

    assert asked < not_asked - (64 << 20)
