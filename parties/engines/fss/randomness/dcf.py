"""A distributed comparison function (DCF): shares of [x < alpha] for a public x, without communication.

Boyle, Chandran, Gilboa, Gupta, Ishai, Kumar, Rathee, "Function secret sharing for mixed-mode and fixed-point secure
computation" (EUROCRYPT 2021), figure 1, for a payload of one bit, with the tree cut 7 levels early (Boyle, Gilboa,
Ishai, CCS 2016): a leaf of 128 bits holds the last 7 levels. The generator is fixed-key AES in Matyas-Meyer-Oseas mode
(Guo, Katz, Wang, Yu, IEEE S&P 2020). One key may be evaluated at any number of public points: a key hides alpha however
often it is evaluated, and the points are public.

Whole trees are computed by compiled loops with the processor's AES instructions; where it has none, level by level
through the library `cryptography`, with the same results.

A block is two 64-bit words; the three low bits of the first word carry control bits and are zero in seeds, so a hidden
seed has 125 bits. All N hidden seeds under one permutation can be attacked together: T calls of AES find one of them
with probability about T N / 2^125 (Guo, Katz, Wang, Weng, Yu, CRYPTO 2020, ePrint 2019/1168). Therefore each session
draws its own permutation: N is the number of tree levels in one session's comparisons, and an attacker can precompute
nothing before the session begins.
"""

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from parties.engines.fss.kernels import aes, aes_instructions, bit_trees
from parties.engines.fss.kernels.bit_trees import LEAF, LEAF_LEVELS

Blocks = NDArray[np.uint64]
Words = NDArray[np.uint64]
Bits = NDArray[np.uint8]
PERMUTATION_KEY_BYTES = 16
_CONTROL = np.uint64(7)
_ONE = np.uint64(1)


class Permutation:
    """The generator's fixed-key permutation: AES-128 under a public key.

    Args:
        key: 16 bytes, fresh for each session, the same at all three parties.
        instructions: Whether compiled loops may use the processor's AES instructions; results do not depend on it.

    Attributes:
        round_keys: The key schedule, uint64, [11, 2].
    """

    def __init__(self, key: bytes, instructions: bool = aes_instructions.AVAILABLE) -> None:
        self.key, self.instructions = key, instructions
        self.round_keys = aes.round_keys(key).view(np.uint64).reshape(-1, 2)
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
        alpha: Thresholds, uint64, [n]; bits from `width` on are ignored.
        width: Number of bits compared, 1 to 63.
        first: The client's seeds, uint8, [n, 16].
        second: The server's seeds, uint8, [n, 16].
    """
    n = len(alpha)
    words = np.empty((key_blocks(width), n, 2), dtype=np.uint64)
    seeds = blocks_of(first), blocks_of(second)
    if permutation.instructions:
        bit_trees.generate_trees(alpha, *seeds, permutation.round_keys, words, width)
        return words.view(np.uint8)
    both = np.empty((2, 2, n, 2), dtype=np.uint64)  # [side, party, n, 2]
    both[:] = np.stack([clean(blocks) for blocks in seeds])
    both[1, ..., 0] ^= _ONE
    permuted = Permuted(permutation, both)
    on, value = np.stack([np.zeros_like(alpha), np.ones_like(alpha)]), np.zeros_like(alpha)
    for level, word in zip(_levels(width), words, strict=False):
        bit_trees.generate_level(alpha, level, permuted.now(), both, word, on, value)
    both[0, ..., 0] ^= np.uint64(LEAF)
    bit_trees.generate_leaf(alpha, width, permuted.now(), both, words[-1], value)
    return words.view(np.uint8)


def evaluate(permutation: Permutation, party: int, x: Words, width: int, seed: Bits, key: Bits) -> Bits:
    """Evaluates this party's XOR shares of [x < alpha], each key at all of its points: uint8, [n, points], 0 or 1.

    Args:
        permutation: The permutation that the key was generated with.
        party: 0 for the client, 1 for the server.
        x: Public numbers, uint64, [n, points]; bits from `width` on are ignored.
        width: Number of bits compared.
        seed: This party's seeds, uint8, [n, 16].
        key: The correction words of `generate`.
    """
    n, points = x.shape
    words, shares = np.ascontiguousarray(key).view(np.uint64), np.empty((n, points), dtype=np.uint8)
    if permutation.instructions:
        bit_trees.evaluate_trees(x, blocks_of(seed), words, permutation.round_keys, shares, party, width)
        return shares
    numbers, owner = x.reshape(-1), np.repeat(np.arange(n), points)
    state = clean(blocks_of(seed))[owner]
    state[:, 0] ^= (numbers >> np.uint64(width - 1)) & _ONE if width > LEAF_LEVELS else np.uint64(LEAF)
    permuted = Permuted(permutation, state)
    on, value = np.full_like(numbers, party), np.zeros_like(numbers)
    for level, word in zip(_levels(width), words, strict=False):
        bit_trees.evaluate_level(numbers, owner, level, permuted.now(), state, word, on, value)
    bit_trees.evaluate_leaf(numbers, owner, width, permuted.now(), state, words[-1], on, value, shares.reshape(-1))
    return shares


def evaluate_on(permutation: Permutation, party: int, x: torch.Tensor, width: int, seed: Bits, key: Bits) -> Bits:
    """Does the same as `evaluate` on the GPU of x, int64, [n, points], with bit-identical results."""
    from parties.engines.fss.kernels import comparison  # Triton, which only a GPU needs

    arrays = (blocks_of(np.ascontiguousarray(seed)), blocks_of(np.ascontiguousarray(key)).reshape(-1, len(x), 2))
    seeds, words = (torch.from_numpy(array.view(np.int64)).to(x.device) for array in arrays)
    bits: Bits = comparison.evaluate(party, x.contiguous(), width, seeds, words, permutation.key).cpu().numpy()
    return bits


def blocks_of(octets: Bits) -> Blocks:
    """Returns bytes as blocks, uint64, [n, 2]."""
    return octets.reshape(-1).view(np.uint64).reshape(-1, 2)


def clean(blocks: Blocks) -> Blocks:
    """Copies blocks with their control bits cleared: seeds."""
    cleaned = blocks.copy()
    cleaned[..., 0] &= ~_CONTROL
    return cleaned


def _levels(width: int) -> range:
    """Returns the bit positions of the tree's levels, from the highest."""
    return range(width - 1, LEAF_LEVELS - 1, -1)


class Permuted:
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
