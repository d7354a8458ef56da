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
    seeds = np.stack([_clean(_blocks(first)), _clean(_blocks(second))])
    on = np.stack([np.zeros_like(alpha), np.ones_like(alpha)])
    value = np.zeros_like(alpha)
    words = []
    for level in range(width - 1, LEAF_LEVELS - 1, -1):
        bit = (alpha >> np.uint64(level)) & _ONE
        children = np.stack([_hash(seeds), _hash(_tweaked(seeds, _ONE))])  # [side, party, n, 2]
        turn, gain = children[..., 0] & _ONE, (children[..., 0] >> _ONE) & _ONE  # [side, party, n]
        children = _clean(children)
        keep, lose = (_pick(children, side) for side in (bit, bit ^ _ONE))
        gain_keep, gain_lose = (_pick(gain, side) for side in (bit, bit ^ _ONE))
        seed_word = lose[0] ^ lose[1]
        gain_word = value ^ gain_lose[0] ^ gain_lose[1] ^ bit
        turn_words = np.stack([turn[0, 0] ^ turn[0, 1] ^ bit ^ _ONE, turn[1, 0] ^ turn[1, 1] ^ bit])
        value = value ^ gain_keep[0] ^ gain_keep[1] ^ gain_word
        seeds = keep ^ (seed_word * on[..., None])
        on = _pick(turn, bit) ^ (on * np.where(bit == 1, turn_words[1], turn_words[0]))
        seed_word[..., 0] |= turn_words[0] | turn_words[1] << _ONE | gain_word << _LEAF
        words.append(seed_word)
    leaves = _hash(_tweaked(seeds, _LEAF))
    below = _below()[(alpha & np.uint64(2**LEAF_LEVELS - 1)).astype(np.int64)]
    words.append(leaves[0] ^ leaves[1] ^ below ^ (np.uint64(0) - value)[:, None])
    return np.stack(words).view(np.uint8)


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
    on = np.full_like(x, party)
    value = np.zeros_like(x)
    for index, level in enumerate(range(width - 1, LEAF_LEVELS - 1, -1)):
        bit = (x >> np.uint64(level)) & _ONE
        child = _hash(_tweaked(state, bit))
        control = child[:, 0] & _CONTROL
        word = words[index] * on[:, None]
        state = _clean(child ^ word)
        value ^= (control >> _ONE) ^ (word[:, 0] >> _LEAF)
        on = (control ^ (word[:, 0] >> bit)) & _ONE
    leaf = _hash(_tweaked(state, _LEAF)) ^ words[-1] * on[:, None]
    place = x & np.uint64(2**LEAF_LEVELS - 1)
    half = np.where(place >= 64, leaf[:, 1], leaf[:, 0])
    bits: Bits = ((value ^ (half >> (place & np.uint64(63)))) & _ONE).astype(np.uint8)
    return bits


def evaluate_on(device: torch.device, party: int, x: Words, width: int, seed: Bits, key: Bits) -> Bits:
    """`evaluate` on a GPU, bit for bit alike."""
    from parties.engines.fss.kernels import comparison  # Triton, which only a GPU needs

    n = x.shape[0]
    arrays = (x, _blocks(np.ascontiguousarray(seed)), _blocks(np.ascontiguousarray(key)).reshape(-1, n, 2))
    tensors = [torch.from_numpy(array.view(np.int64)).to(device) for array in arrays]
    numbers, seeds, words = tensors
    bits: Bits = comparison.evaluate(party, numbers, width, seeds, words, _FIXED_KEY, LEAF_LEVELS).cpu().numpy()
    return bits


def _blocks(octets: Bits) -> Blocks:
    return octets.reshape(-1).view(np.uint64).reshape(-1, 2)


def _clean(blocks: Blocks) -> Blocks:
    cleaned = blocks.copy()
    cleaned[..., 0] &= ~_CONTROL
    return cleaned


def _tweaked(blocks: Blocks, tweak: "np.uint64 | Words") -> Blocks:
    other = blocks.copy()
    other[..., 0] ^= tweak
    return other


def _pick(sides: NDArray[np.uint64], which: Words) -> NDArray[np.uint64]:
    """sides[which[i], ..., i, ...] for keys i: [2, party, n, ...] -> [party, n, ...]."""
    chosen = which == 1
    picked: NDArray[np.uint64] = np.where(chosen if sides.ndim == 3 else chosen[:, None], sides[1], sides[0])
    return picked


@cache
def _permutation() -> CipherContext:
    return Cipher(algorithms.AES(_FIXED_KEY), modes.ECB()).encryptor()  # noqa: S305 - a fixed permutation of one block


def _hash(blocks: Blocks) -> Blocks:
    plain = np.ascontiguousarray(blocks)
    room = bytearray(plain.nbytes + 15)
    _permutation().update_into(plain.data.cast("B") if plain.size else b"", room)
    hashed = np.frombuffer(room, dtype=np.uint64, count=plain.size).reshape(plain.shape)
    return hashed ^ plain


@cache
def _below() -> Blocks:
    """For each place p below 128 the 128 bits [j < p]."""
    rows = [(1 << place) - 1 for place in range(128)]
    return np.array([[row & (2**64 - 1), row >> 64] for row in rows], dtype=np.uint64)
