"""CrypTen's communicator for two parties, over our own link.

CrypTen's own communicator (torch.distributed with gloo) chooses its ports itself, so its flows cannot be shaped by
address and port; it pickles objects, waits 30 minutes for a dead peer, and estimates bytes instead of counting them.
Here every call is one or more frames of `parties.transport.link`: exact bytes, rounds and blocked time by stage,
time-outs, and errors that name the peer. The protocols' messages are unchanged, except that a batched call is one
message instead of several.
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributed import ReduceOp

from parties.engines.crypten import compat  # noqa: F401 - must come before crypten
from parties.transport.link import Link

import crypten.communicator as crypten_communicator  # isort: skip
from crypten.communicator import Communicator  # isort: skip


def _combine(op: Any, first: Tensor, second: Tensor) -> Tensor:
    """Adds arithmetic shares, or XORs binary ones."""
    return first ^ second if op == ReduceOp.BXOR else first + second


class Done:
    """The result of `isend` and `irecv`, whose transfer is complete."""

    def wait(self) -> None:
        """Returns at once."""


class LinkCommunicator(Communicator):  # type: ignore[misc]
    """Rank 0 or 1 of two parties.

    Args:
        rank: This party's rank.
        peer: Link to the other party.
    """

    def __init__(self, rank: int, peer: Link) -> None:
        self.rank, self.peer = rank, peer
        self.reset_communication_stats()

    def activate(self) -> None:
        """Installs this communicator for all of CrypTen in this process."""
        crypten_communicator.get = lambda: self
        crypten_communicator.is_initialized = lambda: True

    def get_rank(self) -> int:
        """0 or 1."""
        return self.rank

    def get_world_size(self) -> int:
        """Always two."""
        return 2

    def all_reduce(self, tensor: Any, op: Any = ReduceOp.SUM, batched: bool = False) -> Any:
        """Opens a tensor, or a list of tensors if `batched`, to both parties in one round."""
        tensors: list[Tensor] = tensor if batched else [tensor]
        flat = torch.cat([part.reshape(-1) for part in tensors]) if batched else tensor.reshape(-1)
        total = _combine(op, self.peer.exchange_tensor(flat), flat)
        parts = torch.split(total, [part.numel() for part in tensors])
        opened = [part.reshape(own.shape) for part, own in zip(parts, tensors, strict=True)]
        return opened if batched else opened[0]

    def reduce(self, tensor: Tensor, dst: int, op: Any = ReduceOp.SUM) -> Tensor | None:
        """Opens a tensor to `dst` alone, in one message."""
        if self.rank != dst:
            self.peer.send_tensor(tensor)
            return None
        return _combine(op, self.peer.receive_tensor(tensor.shape, tensor.dtype), tensor)

    def broadcast(self, tensor: Tensor, src: int) -> Tensor:
        """Sends a tensor from `src` to the other party."""
        if self.rank == src:
            self.peer.send_tensor(tensor)
            return tensor
        return self.peer.receive_tensor(tensor.shape, tensor.dtype)

    def isend(self, tensor: Tensor, dst: int) -> Done:  # noqa: ARG002 - there is one peer
        """Sends a small tensor."""
        self.peer.send_tensor(tensor)
        return Done()

    def irecv(self, tensor: Tensor, src: int | None = None) -> Done:  # noqa: ARG002 - there is one peer
        """Receives into `tensor`."""
        tensor.copy_(self.peer.receive_tensor(tensor.shape, tensor.dtype))
        return Done()
