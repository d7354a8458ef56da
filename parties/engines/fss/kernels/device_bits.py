"""`loops.pack_bits` and `loops.unpack_bits` on a GPU; recorded, they are instructions of the tape machine."""

import torch
from torch import Tensor
from torch.nn.functional import pad


def pack(bits: Tensor, packed: Tensor) -> None:
    """Packs bits, [n], highest first, into [ceil(n / 8)] bytes."""
    eights = pad(bits, (0, -len(bits) % 8)).reshape(-1, 8)
    packed.copy_((eights << _places(bits)).sum(1, dtype=torch.uint8))


def unpack(packed: Tensor, bits: Tensor) -> None:
    """Unpacks the first bits, [n], of packed bytes."""
    bits.copy_(((packed.unsqueeze(1) >> _places(packed)) & 1).reshape(-1)[: len(bits)])


def _places(like: Tensor) -> Tensor:
    return torch.arange(7, -1, -1, dtype=torch.uint8, device=like.device)
