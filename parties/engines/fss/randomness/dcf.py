"""A distributed comparison function (DCF): shares of [x < alpha] for a public x, without communication.

Boyle, Chandran, Gilboa, Gupta, Ishai, Kumar, Rathee, "Function secret sharing for mixed-mode and fixed-point secure
computation" (EUROCRYPT 2021), figure 1, for a payload of one bit, with the tree cut 7 levels early (Boyle, Gilboa,
Ishai, CCS 2016): a leaf of 128 bits holds the last 7 levels. The generator is fixed-key AES in Matyas-Meyer-Oseas mode
(Guo, Katz, Wang, Yu, IEEE S&P 2020), vectorised over all keys.

A block is two 64-bit words; the three low bits of the first word carry control bits and are zero in seeds, so a hidden
seed has 125 bits. All N hidden seeds under one permutation can be attacked together: T calls of AES find one of them
with probability about T N / 2^125 (Guo, Katz, Wang, Weng, Yu, CRYPTO 2020, ePrint 2019/1168). Therefore each session
draws its own permutation: N is the number of tree levels in one session's comparisons, and an attacker can precompute
nothing before the session begins.
"""

from functools import cache

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from parties.engines.fss.kernels import loops

Blocks = NDArray[np.uint64]
Words = NDArray[np.uint64]
Bits = NDArray[np.uint8]
LEAF_LEVELS = 7
PERMUTATION_KEY_BYTES = 16
_CONTROL = np.uint64(7)
_ONE = np.uint64(1)
_LEAF = np.uint64(2)  # tweak of a leaf's hash; an inner node's tweak is the bit of its child
_NONE = np.uint64(0)


class Permutation:
    """The generator's fixed-key permutation: AES-128 under a public key.

    Args:
        key: 16 bytes, fresh for each session, the same at all three parties.
    """

    def __init__(self, key: bytes) -> None:
        self.key = key
        self._cipher = Cipher(algorithms.AES128(key), modes.ECB()).encryptor()  # noqa: S305 - a permutation of one block

    def into(self, blocks: memoryview | bytes, buffer: bytearray) -> None:
        """Permutes blocks of 16 bytes into a buffer that is 15 bytes longer."""
        self._cipher.update_into(blocks, buffer)


def key_blocks(width: int) -> int:
    """Returns the number of correction words, of 16 bytes, in a key for comparisons of `width` bits."""
    return max(0, width - LEAF_LEVELS) + 1


def generate(permutation: Permutation, alpha: Words, width: int, first: Bits, second: Bits) -> Bits:
    """Generates the correction words, the same for both parties: uint8, [key_blocks, n, 16].

    Args:
        permutation: The session's permutation.
        alpha: Thresholds, uint64, [n], below 2^width.
        width: Number of bits compared, 1 to 63.
        first: The client's seeds, uint8, [n, 16].
        second: The server's seeds, uint8, [n, 16].
    """
    n = len(alpha)
    words = np.empty((key_blocks(width), n, 2), dtype=np.uint64)
    both = np.empty((2, 2, n, 2), dtype=np.uint64)  # [side, party, n, 2]
    both[:] = np.stack([_clean(_blocks(first)), _clean(_blocks(second))])
    both[1, ..., 0] ^= _ONE
    permuted = _Permuted(permutation, both)
    on, value = np.stack([np.zeros_like(alpha), np.ones_like(alpha)]), np.zeros_like(alpha)
    for level, word in zip(_levels(width), words, strict=False):
        loops.generate_level(alpha, level, permuted.now(), both, word, on, value)
    both[0, ..., 0] ^= _LEAF
    leaves = permuted.now()[0] ^ both[0]
    below = _below()[(alpha & np.uint64(2**LEAF_LEVELS - 1)).astype(np.int64)]
    words[-1] = leaves[0] ^ leaves[1] ^ below ^ (np.uint64(0) - value)[:, None]
    return words.view(np.uint8)


def evaluate(permutation: Permutation, party: int, x: Words, width: int, seed: Bits, key: Bits) -> Bits:
    """Evaluates this party's XOR share of [x < alpha]: uint8, [n], 0 or 1.

    Args:
        permutation: The permutation that the key was generated with.
        party: 0 for the client, 1 for the server.
        x: Public numbers, uint64, [n], below 2^width.
        width: Number of bits compared.
        seed: This party's seeds, uint8, [n, 16].
        key: The correction words of `generate`.
    """
    words, levels = key.view(np.uint64), _levels(width)
    state = _clean(_blocks(seed))
    state[:, 0] ^= (x >> levels[0]) & _ONE if len(levels) else _LEAF
    permuted = _Permuted(permutation, state)
    on, value = np.full_like(x, party), np.zeros_like(x)
    for level, word in zip(levels, words, strict=False):
        loops.evaluate_level(x, level, _LEAF if level == LEAF_LEVELS else _NONE, permuted.now(), state, word, on, value)
    leaf = permuted.now() ^ state ^ words[-1] * on[:, None]
    rest = x & np.uint64(2**LEAF_LEVELS - 1)
    half = np.where(rest >= 64, leaf[:, 1], leaf[:, 0])
    bits: Bits = ((value ^ (half >> (rest & np.uint64(63)))) & _ONE).astype(np.uint8)
    return bits


def evaluate_on(
    permutation: Permutation, party: int, x: torch.Tensor, width: int, seed: torch.Tensor, key: torch.Tensor
) -> torch.Tensor:
    """Does the same as `evaluate` on the GPU of x, int64, [n], with bit-identical results."""
    from parties.engines.fss.kernels import comparison  # Triton, which only a GPU needs

    seeds, words = seed.view(torch.int64), key.view(torch.int64)
    return comparison.evaluate(party, x.contiguous(), width, seeds, words, permutation.key, LEAF_LEVELS)


def _blocks(octets: Bits) -> Blocks:
    return octets.reshape(-1).view(np.uint64).reshape(-1, 2)


def _clean(blocks: Blocks) -> Blocks:
    cleaned = blocks.copy()
    cleaned[..., 0] &= ~_CONTROL
    return cleaned


def _levels(width: int) -> Words:
    """Returns the bit positions of the tree's levels, from the highest."""
    return np.arange(width - 1, LEAF_LEVELS - 1, -1, dtype=np.int64).astype(np.uint64)


class _Permuted:
    """Contiguous blocks and a buffer for their permutation; the XOR of both is the hash of the blocks."""

    def __init__(self, permutation: Permutation, blocks: Blocks) -> None:
        self._permutation = permutation
        self._from = blocks.data.cast("B") if blocks.size else b""
        self._buffer = bytearray(blocks.nbytes + 15)  # the cipher requires it
        self._to = np.frombuffer(self._buffer, dtype=np.uint64, count=blocks.size).reshape(blocks.shape)

    def now(self) -> Blocks:
        """Permutes the current content of the blocks."""
        self._permutation.into(self._from, self._buffer)
        return self._to


@cache
def _below() -> Blocks:
    """Returns, for each position p below 128, the 128 bits [j < p]."""
    rows = [(1 << place) - 1 for place in range(128)]
    return np.array([[row & (2**64 - 1), row >> 64] for row in rows], dtype=np.uint64)
