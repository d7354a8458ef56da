"""The memory of recorded segments on a GPU: what each replay finds at the same place."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from parties.engines.fss.kernels.keystream import DeviceKeystream
from parties.engines.fss.randomness.frames import FrameReader
from parties.engines.fss.recording.memory import Arena
from parties.engines.fss.replay import graphs
from parties.engines.fss.replay.inputs import MOST_CHECKS, Drawn, Inputs
from parties.engines.keystream import Keystream

MOST_BYTES = 1 << 27


class DeviceInputs(Inputs):
    """See `Inputs`. The first graph of a segment expands the keystreams, and takes what was dealt from pinned memory.

    Args:
        device: A GPU.
        seeds: Seeds of the keystreams: a party's own, or those of both parties at the dealer.
        lasting: Whether what a segment leaves stays where it computed it, until it is replayed again. The dealer, which
            may have to go back by several segments, copies it instead.
    """

    staged = True
    most_bytes = MOST_BYTES

    def __init__(self, device: torch.device, seeds: Sequence[bytes], *, lasting: bool) -> None:
        self.streams = torch.empty(len(seeds), MOST_BYTES, dtype=torch.uint8, device=device)
        self.dealt = torch.empty(MOST_BYTES if lasting else 0, dtype=torch.uint8, device=device)
        self._received = torch.empty(self.dealt.shape, dtype=torch.uint8, pin_memory=True)
        self.failed = graphs.pinned(torch.zeros(MOST_CHECKS, dtype=torch.bool))
        self.failed_array = self.failed.numpy()
        self.arena = Arena(device)
        self._keystreams = [DeviceKeystream(seed, device) for seed in seeds]
        self._place = torch.zeros(2, dtype=torch.int64, device=device)
        self._epoch = graphs.pinned(torch.zeros(2, dtype=torch.int64))
        self._lasting = lasting
        self._left: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._moves: dict[Any, Callable[[], Any]] = {}

    def place(self, numbers: Tensor) -> Tensor:
        """See `Inputs`; pinned."""
        return graphs.pinned(numbers)

    def recording(self, drawn: Drawn) -> Callable[..., Any]:
        """See `Inputs`."""
        return partial(graphs.GraphRecording, before=partial(self._expand, drawn))

    def fill(self, drawn: Drawn, streams: Sequence[Keystream], frames: FrameReader | None, epoch: int) -> None:  # noqa: ARG002 - the device has its own
        """See `Inputs`."""
        self._epoch[0] = epoch
        if frames is not None:
            frames.fill(self._received[: drawn.dealt].numpy())

    def _expand(self, drawn: Drawn) -> None:
        self._place.copy_(self._epoch, non_blocking=True)
        for keystream, octets, size in zip(self._keystreams, self.streams, drawn.own, strict=False):
            keystream.fill(self._place, octets[:size].view(torch.int64))
        self.dealt[: drawn.dealt].copy_(self._received[: drawn.dealt], non_blocking=True)

    def lasts(self, tensor: Tensor) -> bool:
        """See `Inputs`."""
        return tensor in self._left

    def left(self, tensor: Tensor) -> Tensor:
        """See `Inputs`."""
        if not self._lasting:
            return tensor.clone()
        self._left[tensor] = True
        return tensor

    def take(self, moves: Sequence[tuple[Tensor, Tensor]]) -> None:
        """See `Inputs`; by a graph if all that is copied stays where it is."""
        moves = [(here, there) for here, there in moves if here.data_ptr() != there.data_ptr()]
        if not all(self.lasts(there) for _, there in moves):
            _copy(moves)
        elif moves:
            key = tuple((here.data_ptr(), there.data_ptr(), there.shape, there.stride()) for here, there in moves)
            if key not in self._moves:
                self._moves[key] = graphs.captured(partial(_copy, moves))
            self._moves[key]()


def _copy(moves: Sequence[tuple[Tensor, Tensor]]) -> None:
    for here, there in moves:
        here.copy_(there)
