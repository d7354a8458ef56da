"""Memory that grows by pieces."""

import torch

from parties.engines.fss.replay.pieces import Pieces
from parties.engines.keystream import SPARE_BYTES


def test_segments_share_pieces_which_never_move() -> None:
    pieces = Pieces(lambda size: torch.zeros(size, dtype=torch.uint8), 64 + SPARE_BYTES)
    first, second = list[int](), list[int]()
    taken = [pieces.take(first, size) for size in (40, 13, 20, 100, 8)]
    assert [tensor.numel() for tensor in taken] == [40, 13, 20, 100, 8]
    assert first == [56, 24, 104, 8]  # whole words; a large tensor has a piece of its size
    again = [pieces.take(second, size) for size in (64, 1, 100)]
    assert second == [64, 8, 104]
    assert [piece.numel() - SPARE_BYTES for piece in pieces.made] == [64, 64, 104, 64]
    assert again[0].data_ptr() == taken[0].data_ptr()
    assert again[2].data_ptr() == taken[3].data_ptr()
