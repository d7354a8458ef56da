"""The server's matrices on their way to the client."""

import pytest
import torch
from torch import Tensor

from parties.engines.fss.arithmetic import masking, ring
from parties.engines.fss.randomness.streams import stream_on
from parties.engines.keystream import SEED_BYTES, Keystream
from tests.helpers.waiting import PATIENCE_S
from tests.helpers.wires import later, linked

SHAPES = {"embed": (7, 5), "norm": (5,), "qkv": (5, 12), "o": (1, 5), "positions": (9, 5), "down": (33, 3)}
MATRICES = ("embed", "qkv", "o", "down")
SEED = bytes(range(SEED_BYTES))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_client_gets_every_matrix_minus_the_words_of_the_seed_in_order(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masking, "_CHUNK", 25)  # parts that begin in the middle of a block of the cipher
    place, stream = torch.device(device), Keystream(SEED)
    weights = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    with linked() as (client, server, client_meter, server_meter):

        def send() -> dict[str, Tensor]:
            masks = stream_on(place, SEED)
            return dict(masking.sent(server, SHAPES, server_meter, weights, masks, place))

        there = later(send)
        hidden = dict(masking.received(client, SHAPES, client_meter, place))
        plain = there.result(PATIENCE_S)
    assert tuple(hidden) == tuple(plain) == MATRICES
    for name in MATRICES:
        expected = ring.encode(weights[name].T)
        assert plain[name].device.type == hidden[name].device.type == device
        assert torch.equal(plain[name].cpu(), expected)
        assert torch.equal(hidden[name].cpu(), expected - stream.words(expected.shape))


def test_what_fails_while_the_next_matrix_is_made_ends_the_set_up() -> None:
    with linked() as (_, server, _, meter):
        masks = stream_on(torch.device("cpu"), SEED)
        sending = masking.sent(server, SHAPES, meter, {"embed": torch.ones(7, 5)}, masks, torch.device("cpu"))
        assert next(sending)[0] == "embed"
        with pytest.raises(KeyError, match="qkv"):
            next(sending)


def test_the_next_item_is_made_while_one_is_in_use() -> None:
    made = list[int]()
    items = masking.ahead(lambda index: made.append(index) or index, 3)
    assert list(items) == made == [0, 1, 2]
    assert list(masking.ahead(lambda index: index, 0)) == []
