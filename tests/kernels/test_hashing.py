"""The hash of ids is XXH64."""

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.hashing import hash_spans

SEEDS = (0, 1, 2, 2654435761, (1 << 64) - 1)
# From the specification's text and the reference implementation's self-test.
KNOWN = {
    b"": 0xEF46DB3751D8E999,
    b"a": 0xD24EC4F1A98C6E5B,
    b"abc": 0x44BC2CF5AD770999,
    b"Nobody inspects the spammish repetition": 0xFBCEA83C8A378BF1,
}


@pytest.fixture(autouse=True)
def _wrapping_arithmetic():
    with np.errstate(over="ignore"):  # uint64 wraps, also where kernels run as plain Python
        yield


def hashes(texts, seed=0, before=b""):
    data = np.frombuffer(bytearray(before + b"".join(texts)), dtype=np.uint8)
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    starts = len(before) + np.cumsum(lengths) - lengths
    out = np.empty(len(texts), dtype=np.uint64)
    hash_spans(data, starts, lengths, np.uint64(seed), out)
    return out.tolist()


@pytest.mark.parametrize("text", KNOWN)
def test_known_hashes(text):
    assert hashes([text]) == [KNOWN[text]]


@pytest.mark.parametrize("seed", SEEDS)
def test_every_length_hashes_as_the_reference_does(seed):
    noise = np.random.default_rng(5).integers(0, 256, size=200, dtype=np.uint8).tobytes()
    texts = [noise[:length] for length in range(201)]

    assert hashes(texts, seed) == [xxhash.xxh64_intdigest(text, seed) for text in texts]


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.binary(max_size=80), max_size=8),
    seed=st.integers(0, (1 << 64) - 1),
    before=st.binary(max_size=9),
)
def test_any_bytes_anywhere_hash_as_the_reference_does(texts, seed, before):
    with np.errstate(over="ignore"):
        found = hashes(texts, seed, before)

    assert found == [xxhash.xxh64_intdigest(text, seed) for text in texts]


def test_ids_of_two_kinds_differ():
    assert hashes([b"5"], 0) != hashes([b"5"], 1)
