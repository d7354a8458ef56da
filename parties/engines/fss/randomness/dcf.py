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

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray
from torch import Tensor

from parties.engines.fss.kernels import aes, aes_instructions, bit_trees, threads
from parties.engines.fss.kernels.bit_trees import LEAF, LEAF_LEVELS
from parties.engines.fss.kernels.call import call
from parties.engines.fss.kernels.loops import Integers, Octets

Blocks = NDArray[np.uint64]
PERMUTATION_KEY_BYTES = 16


class Permutation:
    """The generator's fixed-key permutation: AES-128 under a public key.

    Args:
        key: 16 bytes, fresh for each session, the same at all three parties.
        instructions: Whether compiled loops may use the processor's AES instructions; results do not depend on it.

    Attributes:
        round_keys: The key schedule, int64, [11, 2].
    """

    def __init__(self, key: bytes, instructions: bool = aes_instructions.AVAILABLE) -> None:
        self.key, self.instructions = key, instructions
        self.round_keys = torch.from_numpy(aes.round_keys(key).view(np.int64).reshape(-1, 2))
        self._cipher = Cipher(algorithms.AES128(key), modes.ECB()).encryptor()  # noqa: S305 - a permutation of one block

    def into(self, blocks: memoryview | bytes, buffer: bytearray) -> None:
        """Permutes blocks of 16 bytes into a buffer that is 15 bytes longer."""
        self._cipher.update_into(blocks, buffer)


def key_blocks(width: int) -> int:
    """Returns the number of correction words, of 16 bytes, in a key for comparisons of `width` bits."""
    return max(0, width - LEAF_LEVELS) + 1


def generate(permutation: Permutation, alpha: Tensor, width: int, first: Tensor, second: Tensor) -> Tensor:
    """Generates the correction words, the same for both parties: uint8, [key_blocks, n, 16].

    Args:
        permutation: The session's permutation.
        alpha: Thresholds, int64, [n]; bits from `width` on are ignored.
        width: Number of bits compared, 1 to 63.
        first: The client's seeds, uint8, [n, 16].
        second: The server's seeds, uint8, [n, 16].
    """
    alpha = alpha.contiguous()
    key = torch.empty(key_blocks(width), len(alpha), 16, dtype=torch.uint8)
    if permutation.instructions:
        generate_keys(bit_trees.generate_trees, len(alpha), alpha, first, second, permutation.round_keys, key, width)
    else:
        call(partial(_generate_by_library, permutation), alpha, first, second, key, width)
    return key


def generate_keys(loop: Callable[..., None], count: int, *arguments: Any) -> None:
    """Calls a compiled loop that generates so many keys, by the threads that torch may use and that are worth it."""
    number = max(1, min(torch.get_num_threads(), count // threads.LEAST_KEYS))
    if number == 1:
        call(loop, *arguments, 0, count)
    else:
        call(partial(threads.keys, loop), *arguments, count, number)


def evaluate(permutation: Permutation, party: int, x: Tensor, width: int, seed: Tensor, key: Tensor) -> Tensor:
    """Evaluates this party's XOR shares of [x < alpha], each key at all of its points: uint8, [n, points], 0 or 1.

    Args:
        permutation: The permutation that the key was generated with.
        party: 0 for the client, 1 for the server.
        x: Public numbers, int64, [n, points], on the CPU or a GPU; bits from `width` on are ignored.
        width: Number of bits compared.
        seed: This party's seeds, uint8, [n, 16].
        key: The correction words of `generate`.
    """
    x, shares = x.contiguous(), torch.empty(x.shape, dtype=torch.uint8, device=x.device)
    if x.is_cuda:
        from parties.engines.fss.kernels import comparison  # Triton, which only a GPU needs

        call(comparison.evaluate, x, seed, key, *comparison.constants(permutation.key, x.device), shares, party, width)
    elif permutation.instructions:
        call(bit_trees.evaluate_trees, x, seed, key, permutation.round_keys, shares, party, width)
    else:
        call(partial(_evaluate_by_library, permutation), x, seed, key, shares, party, width)
    return shares


def seeds_of(octets: Octets) -> Blocks:
    """Returns random bytes [n, 16] as seeds, uint64, [n, 2]: their control bits are cleared."""
    blocks = octets.view(np.uint64).copy()
    blocks[:, 0] &= ~np.uint64(7)
    return blocks


def _generate_by_library(
    permutation: Permutation, alpha: Integers, first: Octets, second: Octets, key: Octets, width: int
) -> None:
    thresholds, words = alpha.view(np.uint64), key.view(np.uint64)
    both = np.stack([np.stack([seeds_of(first), seeds_of(second)])] * 2)  # [side, party, n, 2]
    both[1, ..., 0] ^= np.uint64(1)
    permuted = Permuted(permutation, both)
    on, value = np.stack([np.zeros_like(thresholds), np.ones_like(thresholds)]), np.zeros_like(thresholds)
    for level, word in zip(range(width - 1, LEAF_LEVELS - 1, -1), words, strict=False):
        bit_trees.generate_level(thresholds, level, permuted.now(), both, word, on, value)
    both[0, ..., 0] ^= np.uint64(LEAF)
    bit_trees.generate_leaf(thresholds, width, permuted.now(), both, words[-1], value)


def _evaluate_by_library(
    permutation: Permutation, x: Integers, seed: Octets, key: Octets, shares: Octets, party: int, width: int
) -> None:
    (n, points), numbers, words = x.shape, x.reshape(-1).view(np.uint64), key.view(np.uint64)
    owner = np.repeat(np.arange(n), points)
    state = seeds_of(seed)[owner]
    state[:, 0] ^= (numbers >> np.uint64(width - 1)) & np.uint64(1) if width > LEAF_LEVELS else np.uint64(LEAF)
    permuted = Permuted(permutation, state)
    on, value = np.full_like(numbers, party), np.zeros_like(numbers)
    for level, word in zip(range(width - 1, LEAF_LEVELS - 1, -1), words, strict=False):
        bit_trees.evaluate_level(numbers, owner, level, permuted.now(), state, word, on, value)
    bits = shares.reshape(-1)
    bit_trees.evaluate_leaf(numbers, owner, width, permuted.now(), state, words[-1], on, value, bits)


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
