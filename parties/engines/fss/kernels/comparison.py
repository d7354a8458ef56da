"""`dcf.evaluate` on a GPU: one thread evaluates the whole tree of a key, with table-based AES-128.

The permutation is that of `dcf`, AES with the session's public key, so that a key evaluates alike on every device.
Table look-ups at secret indices leave traces in a cache, as in every table-based AES; the hashed blocks are seeds of
one-time keys.
"""

from functools import cache, lru_cache

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

ROUNDS = 10
_LANES = 128


@triton.jit
def _mixed(table, a, b, c, d):  # type: ignore[no-untyped-def]
    """Returns a column after SubBytes, ShiftRows and MixColumns: byte 0 of a, 1 of b, 2 of c, 3 of d."""
    first = tl.load(table + (a & 255)).to(tl.uint32, bitcast=True)
    second = tl.load(table + ((b >> 8) & 255)).to(tl.uint32, bitcast=True)
    third = tl.load(table + ((c >> 16) & 255)).to(tl.uint32, bitcast=True)
    fourth = tl.load(table + (d >> 24)).to(tl.uint32, bitcast=True)
    turned = (second << 8) | (second >> 24)
    return first ^ turned ^ ((third << 16) | (third >> 16)) ^ ((fourth << 24) | (fourth >> 8))


@triton.jit
def _substituted(table, a, b, c, d):  # type: ignore[no-untyped-def]
    """Returns a column after SubBytes and ShiftRows; the S-box is in the second byte of the table."""
    first = (tl.load(table + (a & 255)) >> 8) & 255
    second = (tl.load(table + ((b >> 8) & 255)) >> 8) & 255
    third = (tl.load(table + ((c >> 16) & 255)) >> 8) & 255
    fourth = (tl.load(table + (d >> 24)) >> 8) & 255
    return (first | (second << 8) | (third << 16) | (fourth << 24)).to(tl.uint32, bitcast=True)


@triton.jit  # type: ignore[untyped-decorator]
def _hashed(low, high, table, keys, ROUNDS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Computes AES(block) ^ block for blocks of two words, int64; columns of the state are little-endian words."""
    a = (low & 0xFFFFFFFF).to(tl.uint32) ^ tl.load(keys).to(tl.uint32, bitcast=True)
    b = ((low >> 32) & 0xFFFFFFFF).to(tl.uint32) ^ tl.load(keys + 1).to(tl.uint32, bitcast=True)
    c = (high & 0xFFFFFFFF).to(tl.uint32) ^ tl.load(keys + 2).to(tl.uint32, bitcast=True)
    d = ((high >> 32) & 0xFFFFFFFF).to(tl.uint32) ^ tl.load(keys + 3).to(tl.uint32, bitcast=True)
    for i in range(1, ROUNDS):
        e = _mixed(table, a, b, c, d) ^ tl.load(keys + 4 * i).to(tl.uint32, bitcast=True)
        f = _mixed(table, b, c, d, a) ^ tl.load(keys + 4 * i + 1).to(tl.uint32, bitcast=True)
        g = _mixed(table, c, d, a, b) ^ tl.load(keys + 4 * i + 2).to(tl.uint32, bitcast=True)
        d = _mixed(table, d, a, b, c) ^ tl.load(keys + 4 * i + 3).to(tl.uint32, bitcast=True)
        a, b, c = e, f, g
    e = _substituted(table, a, b, c, d) ^ tl.load(keys + 4 * ROUNDS).to(tl.uint32, bitcast=True)
    f = _substituted(table, b, c, d, a) ^ tl.load(keys + 4 * ROUNDS + 1).to(tl.uint32, bitcast=True)
    g = _substituted(table, c, d, a, b) ^ tl.load(keys + 4 * ROUNDS + 2).to(tl.uint32, bitcast=True)
    h = _substituted(table, d, a, b, c) ^ tl.load(keys + 4 * ROUNDS + 3).to(tl.uint32, bitcast=True)
    return low ^ (e.to(tl.int64) | (f.to(tl.int64) << 32)), high ^ (g.to(tl.int64) | (h.to(tl.int64) << 32))


@triton.jit  # type: ignore[untyped-decorator]
def _evaluated(  # type: ignore[no-untyped-def]
    x, seeds, words, out, table, keys, n, party, width, LEAF: tl.constexpr, ROUNDS: tl.constexpr, LANES: tl.constexpr
):
    """Evaluates LANES keys; names are those of `dcf.evaluate`."""
    key = tl.program_id(0) * LANES + tl.arange(0, LANES)
    inside = key < n
    number = tl.load(x + key, mask=inside, other=0)
    low = tl.load(seeds + 2 * key, mask=inside, other=0) & ~7
    high = tl.load(seeds + 2 * key + 1, mask=inside, other=0)
    on = tl.zeros((LANES,), dtype=tl.int64) + party
    value = tl.zeros((LANES,), dtype=tl.int64)
    at = words + 2 * key.to(tl.int64)
    for level in range(width - LEAF):
        bit = (number >> (width - 1 - level)) & 1
        low, high = _hashed(low ^ bit, high, table, keys, ROUNDS)
        word = tl.load(at, mask=inside, other=0) * on
        other = tl.load(at + 1, mask=inside, other=0) * on
        value ^= (low >> 1) ^ (word >> 2)
        on = (low ^ (word >> bit)) & 1
        low, high = (low ^ word) & ~7, high ^ other
        at += 2 * n
    low, high = _hashed(low ^ 2, high, table, keys, ROUNDS)
    low ^= tl.load(at, mask=inside, other=0) * on
    high ^= tl.load(at + 1, mask=inside, other=0) * on
    place = number & ((1 << LEAF) - 1)
    half = tl.where(place >= 64, high, low)
    tl.store(out + key, ((value ^ (half >> (place & 63))) & 1).to(tl.uint8), mask=inside)


def evaluate(
    party: int, x: Tensor, width: int, seed: Tensor, key: Tensor, permutation_key: bytes, leaf_levels: int
) -> Tensor:
    """Evaluates this party's XOR share of [x < alpha]: uint8, [n], 0 or 1; see `dcf.evaluate`.

    Args:
        party: 0 or 1.
        x: Public numbers below 2^width, int64, [n], on the GPU.
        width: Number of bits compared.
        seed: This party's seeds, int64, [n, 2].
        key: Correction words, int64, [key_blocks, n, 2].
        permutation_key: The session's key, 16 bytes.
        leaf_levels: Levels of the tree that a leaf replaces.
    """
    n = x.shape[0]
    out = torch.empty(n, dtype=torch.uint8, device=x.device)
    table, keys = _constants(permutation_key, str(x.device))
    if n:
        _evaluated[(triton.cdiv(n, _LANES),)](
            x, seed, key, out, table, keys, n, party, width, leaf_levels, ROUNDS, _LANES
        )
    return out


@lru_cache(maxsize=8)
def _constants(permutation_key: bytes, device: str) -> tuple[Tensor, Tensor]:
    """Returns the column table, [256], and the round keys, [44], int32, on a device; cached for recent sessions."""
    return torch.from_numpy(column_table()).to(device), torch.from_numpy(round_keys(permutation_key)).to(device)


def column_table() -> "np.ndarray[tuple[int], np.dtype[np.int32]]":
    """Tabulates the column (2 s, s, s, 3 s) of each byte's S-box value s, little-endian (FIPS 197, section 5)."""
    box = _box().astype(np.uint32)
    double = ((box << 1) ^ np.where(box & 128, np.uint32(0x11B), np.uint32(0))) & 0xFF
    return (double | box << 8 | box << 16 | (double ^ box) << 24).astype(np.uint32).view(np.int32)


def round_keys(key: bytes) -> "np.ndarray[tuple[int], np.dtype[np.int32]]":
    """Returns the 44 words of AES-128's key schedule, little-endian (FIPS 197, section 5.2)."""
    box, words, constant = _box(), [list(key[i : i + 4]) for i in range(0, 16, 4)], 1
    while len(words) < 4 * (ROUNDS + 1):
        word = words[-1]
        if len(words) % 4 == 0:
            word = [int(box[byte]) for byte in word[1:] + word[:1]]
            word[0] ^= constant
            constant = constant << 1 ^ (0x11B if constant & 128 else 0)
        words.append([a ^ b for a, b in zip(words[-4], word, strict=True)])
    return np.array(words, dtype=np.uint8).reshape(-1).view(np.int32)


@cache
def _box() -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    """Returns the S-box: the inverse in GF(2^8), then an affine map (FIPS 197, section 5.1.1)."""
    power, exponents, logarithms = 1, [], {}
    for exponent in range(255):
        exponents.append(power)
        logarithms[power] = exponent
        power ^= power << 1 ^ (0x11B if power & 128 else 0)  # times 3, a generator
    box = []
    for byte in range(256):
        inverse = exponents[-logarithms[byte] % 255] if byte else 0
        turned = inverse
        for shift in range(1, 5):
            turned ^= (inverse << shift | inverse >> (8 - shift)) & 0xFF
        box.append(turned ^ 0x63)
    return np.array(box, dtype=np.uint8)
