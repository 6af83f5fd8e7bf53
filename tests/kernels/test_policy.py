"""How kernels are compiled: once each, as their plain Python means, for their own types only."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

import kernels
from kernels import policy, topk

compiled = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT: nothing is compiled"
)


@pytest.fixture(scope="module", autouse=True)
def _every_kernel_is_registered():
    for path in Path(kernels.__file__).parent.glob("*.py"):
        importlib.import_module(f"kernels.{path.stem}")


@compiled
def test_every_kernel_has_exactly_one_signature_once_all_are_compiled():
    seen = []
    n = policy.compile_all(lambda done, total, name: seen.append((done, total, name)))

    assert n == len(policy.registered()) > 5
    assert seen == [(i, n, one.name) for i, one in enumerate(policy.registered())]
    assert {one.name: len(one.signatures()) for one in policy.registered()} == {
        one.name: 1 for one in policy.registered()
    }


def test_a_kernel_is_a_plain_function_with_the_same_results():
    scores = np.array([1, 5, np.nan, 5, 3], np.float32)
    ours, plain = [(np.full(4, -np.inf, np.float32), np.full(4, -1)) for _ in range(2)]
    topk.keep_largest(scores, *ours)
    topk.keep_largest.body(scores, *plain)

    assert [one.tolist() for one in ours] == [one.tolist() for one in plain]
    assert ours[1].tolist() == [1, 3, 4, 0]


@compiled
@pytest.mark.parametrize(
    "out",
    [
        np.empty(2, dtype=np.uint64),
        np.empty(2, dtype=np.float64),
        np.empty((2, 2), dtype=np.int64),
        np.empty(4, dtype=np.int64)[::2],
        [1, 2],
    ],
    ids=["uint64", "float64", "two dimensions", "not contiguous", "list"],
)
def test_other_types_are_refused(out):
    with pytest.raises(TypeError):
        topk.keep_largest(np.ones(4, np.float32), np.zeros(2, np.float32), out)
    assert len(topk.keep_largest.signatures()) == 1


def test_a_kernel_keeps_its_docstring():
    assert topk.keep_largest.__doc__.startswith("Keep the largest")
    assert topk.keep_largest.name == "kernels.topk.keep_largest"


@pytest.fixture
def sources(tmp_path, monkeypatch):
    monkeypatch.setattr(policy, "__file__", str(tmp_path / "policy.py"))
    (tmp_path / "policy.py").write_text("A = 1\n")
    (tmp_path / "sums.py").write_text("B = 2\n")
    return tmp_path


def test_the_same_sources_have_the_same_hash(sources):
    before = policy.source_hash()
    (sources / "policy.py").touch()

    assert policy.source_hash() == before


def test_the_hash_changes_with_each_source(sources):
    hashes = [policy.source_hash()]
    (sources / "sums.py").write_text("B = 3\n")
    hashes.append(policy.source_hash())
    (sources / "sums.py").rename(sources / "totals.py")
    hashes.append(policy.source_hash())
    (sources / "policy.py").write_text("A = 2\n")
    hashes.append(policy.source_hash())
    (sources / "more.py").write_text("")
    hashes.append(policy.source_hash())

    assert len(set(hashes)) == 5


def test_the_cache_lies_in_a_directory_named_after_the_sources():
    assert Path(numba.config.CACHE_DIR).name.startswith(("kernels-", "livevec-kernels-"))
    assert Path(numba.config.CACHE_DIR).is_dir()


@pytest.mark.slow
@compiled
def test_an_edit_to_a_part_in_another_file_is_seen(tmp_path):
    package = tmp_path / "kernels"
    package.mkdir()
    for name in ("__init__.py", "policy.py"):
        (package / name).write_text((Path(kernels.__file__).parent / name).read_text())
    (package / "outer.py").write_text(
        "from kernels.policy import kernel\nfrom kernels.inner import double\n\n\n"
        '@kernel("i8(i8)", fastmath=False)\ndef outer(x):\n    return double(x)\n'
    )
    answers = []
    for factor in (2, 3):
        (package / "inner.py").write_text(
            f"from kernels.policy import part\n\n\n@part\ndef double(x):\n    return {factor} * x\n"
        )
        answers.append(
            subprocess.run(
                [sys.executable, "-c", "from kernels.outer import outer; print(outer(7))"],
                cwd=tmp_path,
                env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
        )

    assert answers == ["14", "21"]
