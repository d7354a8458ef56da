"""What a tracer noted: tapes that are not bound to memory yet, so that several recordings can be made of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from parties.engines.fss.recording.memory import Arena, Buffer, Kind, View
from parties.engines.fss.recording.notes import Note


@dataclass
class Trace:
    """The steps of each tape, and what stays readable after the last one.

    Attributes:
        tapes: The steps.
        keep: Views of what stays readable.
    """

    tapes: Sequence[Sequence[Note]]
    keep: Sequence[View]

    @property
    def externals(self) -> list[Buffer]:
        """The buffers from outside that the tapes read or write."""
        buffers = dict.fromkeys(buffer for tape in self.tapes for note in tape for buffer in note.buffers)
        return [buffer for buffer in buffers if buffer.kind is Kind.EXTERNAL]

    def recording(self, kept: Sequence[Tensor | None], arena: Arena | None, make: Callable[..., Any]) -> Any:
        """Binds the tapes to memory; see `Tracer.finish`.

        Args:
            kept: What stays readable, as it was traced; None for what was not.
            arena: Memory for all other tensors.
            make: What makes the recording.
        """
        return make(self.tapes, list(zip(self.keep, kept, strict=True)), arena)

    @staticmethod
    @contextmanager
    def moved(places: Mapping[Buffer, torch.UntypedStorage]) -> Iterator[None]:
        """Lets recordings that are made meanwhile find buffers from outside elsewhere."""
        before = {buffer: buffer.storage for buffer in places}
        try:
            for buffer, storage in places.items():
                buffer.storage = storage
            yield
        finally:
            for buffer, found in before.items():
                buffer.storage = found
