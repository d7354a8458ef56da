"""The dealer's stream is read in order, however it is cut into frames."""

import numpy as np
import pytest
import torch

from parties.engines.fss.randomness.frames import FRAME_BYTES, FrameReader, FrameWriter, RandomnessOutOfStep

SIZES = (3, 8, FRAME_BYTES - 16, 2 * FRAME_BYTES + 5, 1)


def reader(octets: list[torch.Tensor]) -> FrameReader:
    """A reader of these tensors, in epoch 1."""
    sent: list[bytes] = []
    writer = FrameWriter(sent.append)
    writer.begin(1)
    for tensor in octets:
        writer.put(tensor)
    writer.flush()
    sent.append((2).to_bytes(8, "little") + bytes(8))
    made = FrameReader(lambda: bytearray(sent.pop(0)))  # frames are received into memory that can be written
    made.begin(1)
    return made


def test_parts_of_frames_copies_and_filled_arrays_are_the_same_bytes() -> None:
    octets = [torch.randint(0, 256, (size,), dtype=torch.uint8) for size in SIZES]
    by_parts, by_copies, by_arrays = (reader(octets) for _ in range(3))
    for tensor in octets:
        assert b"".join(by_parts.parts(tensor.numel())) == tensor.numpy().tobytes()
        copied = torch.empty_like(tensor)
        by_copies.copy_to(copied)
        assert torch.equal(copied, tensor)
        filled = np.empty(tensor.numel(), np.uint8)
        by_arrays.fill(filled)
        assert (filled == tensor.numpy()).all()


def test_parts_beyond_what_was_dealt_are_refused() -> None:
    made = reader([torch.zeros(8, dtype=torch.uint8)])
    with pytest.raises(RandomnessOutOfStep, match="used up"):
        list(made.parts(9))
