"""AES in compiled loops gives what the library gives, and so do the trees of comparison keys."""

import os

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from parties.engines.fss.kernels import aes, aes_instructions
from parties.engines.fss.randomness import dcf, payload_dcf
from tests.helpers.comparisons import numbers, seeds

instructions = pytest.mark.skipif(not aes_instructions.AVAILABLE, reason="needs a processor with AES instructions")
KEY = bytes(range(16))
BOTH_WAYS = [dcf.Permutation(KEY, instructions=False), dcf.Permutation(KEY)]


def encrypted(key: bytes, blocks: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(blocks)  # noqa: S305 - block by block


@pytest.mark.parametrize(
    ("key", "last"),  # FIPS 197, appendix A
    [
        ("2b7e151628aed2a6abf7158809cf4f3c", "b6630ca6"),
        ("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", "706c631e"),
    ],
)
def test_key_schedules_end_as_in_the_standard(key: str, last: str) -> None:
    words = aes.round_keys(bytes.fromhex(key))
    assert len(words) == 4 * (len(key) // 8 + 7)
    assert words[-1].tobytes().hex() == last


@instructions
def test_blocks_are_permuted_as_in_the_standard_and_by_the_library() -> None:
    given = bytes.fromhex("00112233445566778899aabbccddeeff")  # FIPS 197, appendix C.1
    assert permuted(KEY, given).hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"
    for count in (0, 1, 7, 8, 9, 100):
        key, blocks = os.urandom(16), os.urandom(16 * count)
        assert permuted(key, blocks) == encrypted(key, blocks)


def permuted(key: bytes, blocks: bytes) -> bytes:
    words = np.frombuffer(blocks, dtype=np.uint64).reshape(-1, 2).copy()
    out = np.empty_like(words)
    aes_instructions.permute(words, aes.round_keys(key).view(np.uint64).reshape(-1, 2), out)
    return out.tobytes()


@instructions
@pytest.mark.parametrize(("n", "points"), [(0, 3), (1, 1), (5, 15), (17, 68), (70, 1)])
@pytest.mark.parametrize("width", [1, 6, 7, 8, 9, 41, 62, 63])
def test_trees_are_those_of_the_library_path_and_share_the_comparison(width: int, n: int, points: int) -> None:
    alpha, x, own = numbers(63, n), numbers(63, n, points, seed=1), seeds(n)
    alpha[:2] = torch.tensor([0, 2**width - 1])[:n]
    x[: n // 2, 0] = alpha[: n // 2]
    keys = [dcf.generate(way, alpha, width, *own) for way in BOTH_WAYS]
    assert torch.equal(*keys)
    shares = [[dcf.evaluate(way, party, x, width, own[party], keys[0]) for way in BOTH_WAYS] for party in range(2)]
    for of_party in shares:
        assert torch.equal(*of_party)
    below = x % 2**width < (alpha % 2**width)[:, None] if width < 63 else x < alpha[:, None]
    assert torch.equal(shares[0][0] ^ shares[1][0], below.to(torch.uint8))


@instructions
@pytest.mark.parametrize("lanes", [1, 2, 3, 4])
@pytest.mark.parametrize("width", [1, 2, 3, 25, 62])
def test_payloads_of_both_paths_are_the_same_and_sum_to_the_payload_below_the_threshold(width: int, lanes: int) -> None:
    n = 70
    alpha, x, beta, own = numbers(63, n), numbers(63, n, 3, seed=1), numbers(63, n, lanes, seed=2) - 2**62, seeds(n)
    alpha[:2], x[:30, 1] = torch.tensor([0, 2**width - 1]), alpha[:30]
    keys = [payload_dcf.generate(way, alpha, beta, width, *own) for way in BOTH_WAYS]
    assert torch.equal(*keys)
    assert len(keys[0]) == n * payload_dcf.key_bytes(width, lanes)
    shares = [
        [payload_dcf.evaluate(way, party, x, width, lanes, own[party], keys[0]) for way in BOTH_WAYS]
        for party in range(2)
    ]
    for of_party in shares:
        assert torch.equal(*of_party)
    below = x % 2**width < (alpha % 2**width)[:, None]
    assert torch.equal((shares[0][0] + shares[1][0]) % 2**32, below[..., None] * beta[:, None] % 2**32)
