"""A place for the processes of one test; the kernels are compiled before the first of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import streamer.daemon  # noqa: F401 - registers every kernel
from kernels import policy
from tests.system.runs import Livevec


@pytest.fixture(scope="session")
def compiled_kernels() -> None:
    policy.compile_all()


@pytest.fixture
def livevec(tmp_path: Path, compiled_kernels: None) -> Iterator[Livevec]:
    one = Livevec(tmp_path)
    yield one
    one.close()
