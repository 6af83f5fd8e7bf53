"""Random numbers: SplitMix64 as published, and fair."""

import numpy as np
import pytest

from kernels import rng

MASK = (1 << 64) - 1
GOLDEN, M1, M2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
# The published values of SplitMix64 (its authors' C code, run for two seeds).
PUBLISHED = {
    1234567: [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ],
    0: [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC],
}


@pytest.fixture(autouse=True)
def _wrapping_arithmetic():
    with np.errstate(over="ignore"):  # uint64 wraps, also where kernels run as plain Python
        yield


def numbers(start, n):
    return np.array([rng.number(np.uint64(start), np.uint64(i)) for i in range(n)], np.uint64)


def chi_square(counts):
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("seed", PUBLISHED)
def test_the_numbers_are_those_published(seed):
    assert numbers(seed, len(PUBLISHED[seed])).tolist() == PUBLISHED[seed]


def test_a_number_needs_no_number_before_it():
    start = np.uint64(1234567)

    assert [int(rng.number(start, np.uint64(i))) for i in (4, 1)] == [
        PUBLISHED[1234567][4],
        PUBLISHED[1234567][1],
    ]


def mixed(z):
    z = ((z ^ (z >> 30)) * M1) & MASK
    z = ((z ^ (z >> 27)) * M2) & MASK
    return z ^ (z >> 31)


@pytest.mark.parametrize("z", [0, 1, 1 << 63, MASK, 0x0123456789ABCDEF])
def test_mix_is_the_published_finaliser(z):
    assert int(rng.mix(np.uint64(z))) == mixed(z)


@pytest.mark.parametrize("key", [(0, 0, 0), (1, 0, 7), (1, 3, 7), (MASK, 1 << 63, (1 << 40) + 5)])
def test_a_stream_begins_where_it_always_did(key):
    # A restored state goes on with the same draws: this formula is part of its format.
    seed, partition, offset = key
    of_seed, of_partition = mixed((seed + GOLDEN) & MASK), mixed(partition ^ GOLDEN)
    start = mixed((of_seed + of_partition * M1 + offset * M2) & MASK)

    assert int(rng.stream(*(np.uint64(one) for one in key))) == start


def test_each_seed_partition_and_offset_has_a_stream_of_its_own():
    starts = [
        int(rng.stream(np.uint64(seed), np.uint64(partition), np.uint64(offset)))
        for seed in (0, 1, 2)
        for partition in (0, 1, 2)
        for offset in range(300)
    ]

    assert len(set(starts)) == len(starts)
    assert int(rng.stream(np.uint64(2), np.uint64(1), np.uint64(7))) == starts[2 * 900 + 307]


def test_streams_of_neighbouring_offsets_do_not_overlap():
    one = np.uint64(1)
    starts = [np.uint64(rng.stream(one, one, np.uint64(offset))) for offset in range(200)]
    drawn = [int(rng.number(start, np.uint64(i))) for start in starts for i in range(40)]

    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("bound", [1, 2, 7, (1 << 18), (1 << 31) - 1])
def test_below_reaches_both_ends_and_no_further(bound):
    assert rng.below(np.uint64(0), bound) == 0
    assert rng.below(np.uint64(MASK), bound) == bound - 1
    assert all(0 <= rng.below(draw, bound) < bound for draw in numbers(3, 200))


def test_below_is_uniform():
    drawn = [int(rng.below(draw, 50)) for draw in numbers(11, 20_000)]

    # 49 degrees of freedom: 85.4 is exceeded once in a thousand seeds
    assert chi_square(np.bincount(drawn, minlength=50)) < 85.4


def test_unit_lies_in_its_half_open_interval():
    assert rng.unit(np.uint64(0)) == 0.0
    assert float(rng.unit(np.uint64(MASK))) == 1.0 - 2.0**-24
    assert isinstance(rng.unit(np.uint64(1 << 63)), float | np.float32)
    assert rng.unit(np.uint64(1 << 63)) == 0.5


def test_unit_is_uniform():
    drawn = np.array([float(rng.unit(draw)) for draw in numbers(12, 20_000)])

    assert chi_square(np.histogram(drawn, bins=50, range=(0.0, 1.0))[0]) < 85.4
    # the standard error of the mean is .002
    assert drawn.mean() == pytest.approx(0.5, abs=0.008)
