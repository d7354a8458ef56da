"""A distributed comparison function: shares of [x < alpha] from a public x, without a word between the parties.

Boyle, Chandran, Gilboa, Gupta, Ishai, Kumar, Rathee, "Function secret sharing for mixed-mode and fixed-point secure
computation" (EUROCRYPT 2021), figure 1, for a payload of one bit, with the tree cut 7 levels early (Boyle, Gilboa,
Ishai, CCS 2016): a leaf of 128 bits holds the last 7 levels. The generator is fixed-key AES in Matyas-Meyer-Oseas mode
(Guo, Katz, Wang, Yu, IEEE S&P 2020), vectorised over all keys.

A block is two 64-bit words; the three low bits of the first word carry control bits and are zero in seeds, which leaves
125 bits of security.
"""

from functools import cache

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

from parties.engines.fss import loops

Blocks = NDArray[np.uint64]
Words = NDArray[np.uint64]
Bits = NDArray[np.uint8]
LEAF_LEVELS = 7
_FIXED_KEY = b"mpcbench fss key"  # public: it names a permutation, it hides nothing
_CONTROL = np.uint64(7)
_ONE = np.uint64(1)
_LEAF = np.uint64(2)


def key_blocks(width: int) -> int:
    """Correction words of 16 bytes in a key for comparisons of `width` bits."""
    return max(0, width - LEAF_LEVELS) + 1


def generate(alpha: Words, width: int, first: Bits, second: Bits) -> Bits:
    """Correction words, [key_blocks, n, 16] bytes, the same for both parties.

    Args:
        alpha: thresholds, [n], below 2^width.
        width: bits compared, 1 to 63.
        first: the client's seeds, [n, 16] bytes.
        second: the server's.
    """
    n, levels = len(alpha), range(width - 1, LEAF_LEVELS - 1, -1)
    words = np.empty((key_blocks(width), n, 2), dtype=np.uint64)
    seeds = np.stack([_clean(_blocks(first)), _clean(_blocks(second))])
    on, value = np.stack([np.zeros_like(alpha), np.ones_like(alpha)]), np.zeros_like(alpha)
    both = np.empty((2, *seeds.shape), dtype=np.uint64)  # [side, party, n, 2]
    for level, word in zip(levels, words, strict=False):
        both[:] = seeds
        both[1, ..., 0] ^= _ONE
        loops.grow(alpha, np.uint64(level), _hash(both), seeds, word, on, value)
    leaves = _hash(_tweaked(seeds, _LEAF))
    below = _below()[(alpha & np.uint64(2**LEAF_LEVELS - 1)).astype(np.int64)]
    words[-1] = leaves[0] ^ leaves[1] ^ below ^ (np.uint64(0) - value)[:, None]
    return words.view(np.uint8)


def evaluate(party: int, x: Words, width: int, seed: Bits, key: Bits) -> Bits:
    """This party's XOR share of [x < alpha], [n] bytes of 0 or 1.

    Args:
        party: 0 or 1.
        x: public numbers, [n], below 2^width.
        width: bits compared.
        seed: this party's seeds, [n, 16] bytes.
        key: what `generate` returned.
    """
    words = key.view(np.uint64)
    state = _clean(_blocks(seed))
    on, value = np.full_like(x, party), np.zeros_like(x)
    for index, level in enumerate(range(width - 1, LEAF_LEVELS - 1, -1)):
        place = np.uint64(level)
        state[:, 0] ^= (x >> place) & _ONE
        loops.descend(x, place, _hash(state), words[index], state, on, value)
    leaf = _hash(_tweaked(state, _LEAF)) ^ words[-1] * on[:, None]
    rest = x & np.uint64(2**LEAF_LEVELS - 1)
    half = np.where(rest >= 64, leaf[:, 1], leaf[:, 0])
    bits: Bits = ((value ^ (half >> (rest & np.uint64(63)))) & _ONE).astype(np.uint8)
    return bits


def evaluate_on(party: int, x: torch.Tensor, width: int, seed: Bits, key: Bits) -> Bits:
    """`evaluate` on the GPU where x is, int64 [n], bit for bit alike."""
    from parties.engines.fss.kernels import comparison  # Triton, which only a GPU needs

    arrays = (_blocks(np.ascontiguousarray(seed)), _blocks(np.ascontiguousarray(key)).reshape(-1, len(x), 2))
    seeds, words = (torch.from_numpy(array.view(np.int64)).to(x.device) for array in arrays)
    bits: Bits = comparison.evaluate(party, x.contiguous(), width, seeds, words, _FIXED_KEY, LEAF_LEVELS).cpu().numpy()
    return bits


def _blocks(octets: Bits) -> Blocks:
    return octets.reshape(-1).view(np.uint64).reshape(-1, 2)


def _clean(blocks: Blocks) -> Blocks:
    cleaned = blocks.copy()
    cleaned[..., 0] &= ~_CONTROL
    return cleaned


def _tweaked(blocks: Blocks, tweak: np.uint64) -> Blocks:
    other = blocks.copy()
    other[..., 0] ^= tweak
    return other


@cache
def _permutation() -> CipherContext:
    return Cipher(algorithms.AES(_FIXED_KEY), modes.ECB()).encryptor()  # noqa: S305 - a fixed permutation of one block


def _hash(blocks: Blocks) -> Blocks:
    """Contiguous blocks, permuted, and the blocks again added."""
    room = bytearray(blocks.nbytes + 15)  # the cipher wants room for a block more
    _permutation().update_into(blocks.data.cast("B") if blocks.size else b"", room)
    hashed = np.frombuffer(room, dtype=np.uint64, count=blocks.size).reshape(blocks.shape)
    hashed ^= blocks
    return hashed


@cache
def _below() -> Blocks:
    """For each place p below 128 the 128 bits [j < p]."""
    rows = [(1 << place) - 1 for place in range(128)]
    return np.array([[row & (2**64 - 1), row >> 64] for row in rows], dtype=np.uint64)
