"""A distributed comparison function: shares of [x < alpha] from a public x, without a word between the parties.

Boyle, Chandran, Gilboa, Gupta, Ishai, Kumar, Rathee, "Function secret sharing for mixed-mode and fixed-point secure
computation" (EUROCRYPT 2021), figure 1, for a payload of one bit, with the tree cut 7 levels early (Boyle, Gilboa,
Ishai, CCS 2016): a leaf of 128 bits holds the last 7 levels. The generator is fixed-key AES in Matyas-Meyer-Oseas mode
(Guo, Katz, Wang, Yu, IEEE S&P 2020), vectorised over all keys.

A block is two 64-bit words; the three low bits of the first word carry control bits and are zero in seeds, so one
hidden seed has 125 bits. All N hidden seeds under one permutation can be attacked together: T calls of AES find one of
them with probability about T N / 2^125 (Guo, Katz, Wang, Weng, Yu, CRYPTO 2020, ePrint 2019/1168). Therefore each
session draws a permutation of its own: N counts the levels of one session's comparisons, and nothing can be computed
before the session begins.
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
_LEAF = np.uint64(2)  # what a leaf's seed is hashed with, where an inner node's is with a bit
_NONE = np.uint64(0)


class Permutation:
    """The permutation of the generator: AES-128 under a public key, which names it and hides nothing.

    Args:
        key: 16 bytes, fresh for each session, the same at all three parties.
    """

    def __init__(self, key: bytes) -> None:
        self.key = key
        self._cipher = Cipher(algorithms.AES128(key), modes.ECB()).encryptor()  # noqa: S305 - a permutation of one block

    def into(self, blocks: memoryview | bytes, room: bytearray) -> None:
        """Permutes blocks of 16 bytes into a room that has 15 bytes more."""
        self._cipher.update_into(blocks, room)


def key_blocks(width: int) -> int:
    """Correction words of 16 bytes in a key for comparisons of `width` bits."""
    return max(0, width - LEAF_LEVELS) + 1


def generate(permutation: Permutation, alpha: Words, width: int, first: Bits, second: Bits) -> Bits:
    """Correction words, [key_blocks, n, 16] bytes, the same for both parties.

    Args:
        permutation: the session's.
        alpha: thresholds, [n], below 2^width.
        width: bits compared, 1 to 63.
        first: the client's seeds, [n, 16] bytes.
        second: the server's.
    """
    n = len(alpha)
    words = np.empty((key_blocks(width), n, 2), dtype=np.uint64)
    both = np.empty((2, 2, n, 2), dtype=np.uint64)  # [side, party, n, 2]
    both[:] = np.stack([_clean(_blocks(first)), _clean(_blocks(second))])
    both[1, ..., 0] ^= _ONE
    permuted = _Permuted(permutation, both)
    on, value = np.stack([np.zeros_like(alpha), np.ones_like(alpha)]), np.zeros_like(alpha)
    for level, word in zip(_levels(width), words, strict=False):
        loops.grow(alpha, level, permuted.now(), both, word, on, value)
    both[0, ..., 0] ^= _LEAF
    leaves = permuted.now()[0] ^ both[0]
    below = _below()[(alpha & np.uint64(2**LEAF_LEVELS - 1)).astype(np.int64)]
    words[-1] = leaves[0] ^ leaves[1] ^ below ^ (np.uint64(0) - value)[:, None]
    return words.view(np.uint8)


def evaluate(permutation: Permutation, party: int, x: Words, width: int, seed: Bits, key: Bits) -> Bits:
    """This party's XOR share of [x < alpha], [n] bytes of 0 or 1.

    Args:
        permutation: the one that the key was generated with.
        party: 0 or 1.
        x: public numbers, [n], below 2^width.
        width: bits compared.
        seed: this party's seeds, [n, 16] bytes.
        key: what `generate` returned.
    """
    words, levels = key.view(np.uint64), _levels(width)
    state = _clean(_blocks(seed))
    state[:, 0] ^= (x >> levels[0]) & _ONE if len(levels) else _LEAF
    permuted = _Permuted(permutation, state)
    on, value = np.full_like(x, party), np.zeros_like(x)
    for level, word in zip(levels, words, strict=False):
        loops.descend(x, level, _LEAF if level == LEAF_LEVELS else _NONE, permuted.now(), state, word, on, value)
    leaf = permuted.now() ^ state ^ words[-1] * on[:, None]
    rest = x & np.uint64(2**LEAF_LEVELS - 1)
    half = np.where(rest >= 64, leaf[:, 1], leaf[:, 0])
    bits: Bits = ((value ^ (half >> (rest & np.uint64(63)))) & _ONE).astype(np.uint8)
    return bits


def evaluate_on(permutation: Permutation, party: int, x: torch.Tensor, width: int, seed: Bits, key: Bits) -> Bits:
    """`evaluate` on the GPU where x is, int64 [n], bit for bit alike."""
    from parties.engines.fss.kernels import comparison  # Triton, which only a GPU needs

    arrays = (_blocks(np.ascontiguousarray(seed)), _blocks(np.ascontiguousarray(key)).reshape(-1, len(x), 2))
    seeds, words = (torch.from_numpy(array.view(np.int64)).to(x.device) for array in arrays)
    bits: Bits = (
        comparison.evaluate(party, x.contiguous(), width, seeds, words, permutation.key, LEAF_LEVELS).cpu().numpy()
    )
    return bits


def _blocks(octets: Bits) -> Blocks:
    return octets.reshape(-1).view(np.uint64).reshape(-1, 2)


def _clean(blocks: Blocks) -> Blocks:
    cleaned = blocks.copy()
    cleaned[..., 0] &= ~_CONTROL
    return cleaned


def _levels(width: int) -> Words:
    """Places of the bits that the tree tells apart, from the highest."""
    return np.arange(width - 1, LEAF_LEVELS - 1, -1, dtype=np.int64).astype(np.uint64)


class _Permuted:
    """Contiguous blocks and, in a room of their own, their permutation; both added are their hash."""

    def __init__(self, permutation: Permutation, blocks: Blocks) -> None:
        self._permutation = permutation
        self._from = blocks.data.cast("B") if blocks.size else b""
        self._room = bytearray(blocks.nbytes + 15)  # the cipher wants room for a block more
        self._to = np.frombuffer(self._room, dtype=np.uint64, count=blocks.size).reshape(blocks.shape)

    def now(self) -> Blocks:
        """The permutation of what the blocks hold now."""
        self._permutation.into(self._from, self._room)
        return self._to


@cache
def _below() -> Blocks:
    """For each place p below 128 the 128 bits [j < p]."""
    rows = [(1 << place) - 1 for place in range(128)]
    return np.array([[row & (2**64 - 1), row >> 64] for row in rows], dtype=np.uint64)
