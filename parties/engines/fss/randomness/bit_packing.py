"""Packing of bits that are stored one per byte, eight to a byte, highest first (as `numpy.packbits` does)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from parties.engines.fss.kernels import device_bits, loops
from parties.engines.fss.kernels.call import call


def pack(bits: Tensor) -> Tensor:
    """Packs bits, uint8, of any shape: uint8, [ceil(n / 8)]; the last byte is filled up with zeros."""
    count = bits.numel()
    packed = torch.empty(-(-count // 8), dtype=torch.uint8, device=bits.device)
    if count and not bits.is_meta:
        call(device_bits.pack if bits.is_cuda else loops.pack_bits, bits.reshape(-1), packed)
    return packed


def unpack(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """Unpacks as many bits as `shape` has elements: uint8, of that shape, 0 or 1."""
    count = math.prod(shape)
    bits = torch.empty(tuple(shape), dtype=torch.uint8, device=packed.device)
    if count and not packed.is_meta:
        call(device_bits.unpack if bits.is_cuda else loops.unpack_bits, packed, bits.reshape(-1))
    return bits
