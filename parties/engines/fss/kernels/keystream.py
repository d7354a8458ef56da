"""The stream of `parties.engines.keystream.Keystream` on a GPU: AES-256 in counter mode, bit for bit the same."""

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from parties.engines.fss.kernels import table_aes
from parties.engines.fss.kernels.table_aes import hashed

ROUNDS = 14
_BLOCKS = 128
_MOST_WORDS = 1 << 28  # of a launch, so that numbers of words have 32 bits


@triton.jit
def reversed_bytes(word):  # type: ignore[no-untyped-def]
    """Reverses the bytes of a word, int64: counters, and rows of packed bits, are big-endian."""
    word = ((word >> 8) & 0x00FF00FF00FF00FF) | ((word & 0x00FF00FF00FF00FF) << 8)
    word = ((word >> 16) & 0x0000FFFF0000FFFF) | ((word & 0x0000FFFF0000FFFF) << 16)
    return ((word >> 32) & 0xFFFFFFFF) | (word << 32)


@triton.jit  # type: ignore[untyped-decorator]
def _encrypted(epoch, start, out, table, keys, count, ROUNDS: tl.constexpr, BLOCKS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Encrypts BLOCKS counters, each of which gives two words."""
    block = start // 2 + tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    low = tl.zeros((BLOCKS,), dtype=tl.int64) + reversed_bytes(epoch)
    high = reversed_bytes(block)
    low_hash, high_hash = hashed(low, high, table, keys, ROUNDS)
    at = 2 * block - start
    tl.store(out + at, low_hash ^ low, mask=(at >= 0) & (at < count))
    tl.store(out + at + 1, high_hash ^ high, mask=at + 1 < count)


@triton.jit(do_not_specialize=["count"])  # type: ignore[untyped-decorator]
def _expanded(place, out, table, keys, count, ROUNDS: tl.constexpr, BLOCKS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Expands from a place on that a graph finds on the device."""
    _encrypted(tl.load(place), tl.load(place + 1), out, table, keys, count, ROUNDS, BLOCKS)


@triton.jit(do_not_specialize=["epoch", "start", "count"])  # type: ignore[untyped-decorator]
def _drawn(epoch: tl.int64, start: tl.int64, out, table, keys, count, ROUNDS: tl.constexpr, BLOCKS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Expands from a place on that the host knows; small numbers, too, have 64 bits."""
    _encrypted(epoch.to(tl.int64), start.to(tl.int64), out, table, keys, count, ROUNDS, BLOCKS)


class DeviceKeystream:
    """The expansion of one seed on a device. It keeps the key schedule there, which is as secret as the seed.

    Args:
        seed: 32 bytes that only its owners know.
        device: A GPU.
    """

    def __init__(self, seed: bytes, device: torch.device) -> None:
        self._table, self._keys = table_aes.columns(device), table_aes.schedule(seed, device)
        self._epoch, self._drawn = 0, 0

    def begin(self, epoch: int) -> None:
        """Starts the stream of an epoch at its first word; see `Keystream.begin`."""
        self._epoch, self._drawn = epoch, 0

    def draw(self, shape: Sequence[int], dtype: torch.dtype = torch.int64) -> Tensor:
        """Returns the next elements of the stream of the epoch, at first of epoch 0; see `Keystream.draw`."""
        size = math.prod(shape) * dtype.itemsize
        words = torch.empty(-(-size // 8), dtype=torch.int64, device=self._table.device)
        for part in torch.split(words, _MOST_WORDS) if size else ():
            count = part.numel()
            _drawn[_grid(count)](self._epoch, self._drawn, part, self._table, self._keys, count, ROUNDS, _BLOCKS)
            self._drawn += count
        return words.view(torch.uint8)[:size].view(dtype).view(tuple(shape))

    def words(self, shape: Sequence[int]) -> Tensor:
        """See `Keystream.words`."""
        return self.draw(shape)

    def fill(self, place: Tensor, words: Tensor) -> None:
        """Fills a tensor with consecutive words of an epoch's stream. The place is read on the device.

        Args:
            place: Int64, [2]: the epoch, and the index of the first word, whose byte is at 8 times that.
            words: Output, int64, [count], contiguous.
        """
        count = words.numel()
        if count:
            _expanded[_grid(count)](place, words, self._table, self._keys, count, ROUNDS, _BLOCKS)


def _grid(count: int) -> tuple[int]:
    return (triton.cdiv(count + 1, 2 * _BLOCKS),)  # one more word, if the first is the second of a block
