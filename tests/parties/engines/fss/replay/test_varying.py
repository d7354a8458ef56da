"""Numbers that change from token to token are written when they change, once for all layers that share them."""

import torch
from torch import Tensor

from parties.engines.fss.replay.recorder import Varying


def test_numbers_are_computed_once_for_a_token() -> None:
    asked: list[tuple[str, int]] = []
    varying, places = Varying(), [torch.zeros(1, dtype=torch.int64) for _ in range(2)]

    varying.by_token.append((Numbers("token", asked), places[0]))
    varying.by_row.append((Numbers("row", asked), places[1]))
    for later, rows in ((0, 0), (1, 1), (1, 1), (2, 1), (2, 1), (0, 0)):
        varying.write(later, rows)
        assert [int(place) for place in places] == [later, rows]
    assert asked == [("token", 1), ("row", 1), ("token", 2), ("row", 1), ("token", 0), ("row", 0)]


def test_numbers_of_the_party_alone_are_asked_for_each_time() -> None:
    tokens, varying, place = [3], Varying(), torch.zeros(1, dtype=torch.int64)
    varying.own.append((lambda: torch.tensor(tokens), place))
    for token in (3, 5, 5, 4):  # also where the position is that of the recording, or of the pass before
        tokens[0] = token
        varying.write(0, 0)
        assert int(place) == token


class Numbers:
    """Numbers that tell when they are computed."""

    def __init__(self, name: str, asked: list[tuple[str, int]]) -> None:
        self._name, self._asked = name, asked

    def __call__(self, count: int) -> Tensor:
        self._asked.append((self._name, count))
        return torch.tensor([count])
