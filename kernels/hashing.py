"""A 64-bit hash of id bytes.

XXH64, as specified in https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md.
"""

import numpy as np

from kernels.policy import kernel, part

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)
_BITS = np.uint64(64)


@part
def _rotate(x, bits):
    return (x << np.uint64(bits)) | (x >> (_BITS - np.uint64(bits)))


@part
def _word(data, at, n_bytes):
    word = np.uint64(0)
    for i in range(n_bytes):
        word |= np.uint64(data[at + i]) << np.uint64(8 * i)
    return word


@part
def _round(lane, word):
    return _rotate(lane + word * _P2, 31) * _P1


@part
def _merge(hashed, lane):
    return (hashed ^ _round(np.uint64(0), lane)) * _P1 + _P4


@part
def _stripes(data, at, end, seed):
    a, b, c, d = seed + _P1 + _P2, seed + _P2, seed, seed - _P1
    while at + 32 <= end:
        a = _round(a, _word(data, at, 8))
        b = _round(b, _word(data, at + 8, 8))
        c = _round(c, _word(data, at + 16, 8))
        d = _round(d, _word(data, at + 24, 8))
        at += 32
    hashed = _rotate(a, 1) + _rotate(b, 7) + _rotate(c, 12) + _rotate(d, 18)
    return _merge(_merge(_merge(_merge(hashed, a), b), c), d)


@part
def xxh64(data, start, length, seed):
    """Return XXH64 of `length` bytes of uint8 `data` from `start`, under uint64 `seed`."""
    at, end = start, start + length
    hashed = seed + _P5
    if length >= 32:
        hashed = _stripes(data, at, end, seed)
        at += length - length % 32
    hashed += np.uint64(length)
    while at + 8 <= end:
        hashed = _rotate(hashed ^ _round(np.uint64(0), _word(data, at, 8)), 27) * _P1 + _P4
        at += 8
    if at + 4 <= end:
        hashed = _rotate(hashed ^ (_word(data, at, 4) * _P1), 23) * _P2 + _P3
        at += 4
    while at < end:
        hashed = _rotate(hashed ^ (np.uint64(data[at]) * _P5), 11) * _P1
        at += 1
    hashed = (hashed ^ (hashed >> np.uint64(33))) * _P2
    hashed = (hashed ^ (hashed >> np.uint64(29))) * _P3
    return hashed ^ (hashed >> np.uint64(32))


@kernel("void(u1[::1], i8[::1], i8[::1], u8, u8[::1])", fastmath=False)
def hash_spans(data, starts, lengths, seed, out):
    """Hash spans of a buffer.

    Parameters
    ----------
    data : uint8 (n_bytes,)
    starts : int64 (n,), where each span begins in `data`
    lengths : int64 (n,), >= 0
    seed : uint64, one for each kind of id, so that equal texts of two kinds differ
    out : uint64 (n,), overwritten
    """
    for i in range(starts.shape[0]):
        out[i] = xxh64(data, starts[i], lengths[i], seed)
