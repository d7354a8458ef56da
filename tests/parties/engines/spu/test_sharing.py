"""How secrets enter SPU: shares that add up, and of which each party alone has noise."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from parties.engines.spu.protocols import PROTOCOLS
from parties.engines.spu.sharing import Sharing
from tests.helpers.wires import join, later, listeners

SHAPE = (3, 5)
VALUES = torch.linspace(-9, 9, 15, dtype=torch.float64).reshape(SHAPE)


def shared(protocol: str, act: Callable[[str, Sharing], Any]) -> dict[str, Any]:
    """What each computing party gets of `act`, all at once."""
    roles = PROTOCOLS[protocol].roles
    with listeners(*roles) as (bound, addresses):

        def party(role: str) -> Any:
            with join(role, bound, addresses) as mesh:
                return act(role, Sharing(role, roles, mesh, 18))

        running = {role: later(party, role) for role in roles}
        return {role: future.result() for role, future in running.items()}


def total(shares: dict[str, Tensor]) -> Tensor:
    if len(shares) == 2:
        return shares["client"] + shares["server"]
    for holder, neighbour in (("client", "server"), ("server", "dealer"), ("dealer", "client")):
        assert torch.equal(shares[holder][..., 1], shares[neighbour][..., 0]), "two parties hold the same part"
    return sum((share[..., 0] for share in shares.values()), start=torch.zeros(SHAPE, dtype=torch.int64))


@pytest.mark.parametrize("owner", ["client", "server"])
@pytest.mark.parametrize("protocol", ["aby3", "semi2k"])
@pytest.mark.parametrize("numbers", [1, 11, 100])
def test_a_value_of_one_owner_enters_as_shares_of_it_in_parts_of_whole_rows(
    protocol: str, owner: str, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parties.engines.spu.sharing._PART_NUMBERS", numbers)
    rows = {1: [1, 1, 1], 11: [2, 1], 100: [3]}[numbers]

    def act(role: str, sharing: Sharing) -> tuple[Tensor, Tensor, Tensor | None]:
        parts = list(sharing.enter_in_parts(owner, VALUES if role == owner else None, SHAPE))
        assert [part.shape[0] for part in parts] == rows
        share = torch.cat(parts)
        return share, sharing.export(share), sharing.open_to_client(share)

    got = shared(protocol, act)
    words = (VALUES * 2**18).round().long()
    assert torch.equal(total({role: share for role, (share, _, _) in got.items()}), words)
    assert torch.equal(got["client"][1] + got["server"][1], words), "client and server export two summands"
    assert torch.equal(got["client"][2], words)
    assert got["server"][2] is None
    for role, (share, _, _) in got.items():
        if role != owner:
            parts = share.reshape(-1, 1 if protocol == "semi2k" else 2).unbind(-1)
            assert all(not part.any() or part.abs().min() > 2**40 for part in parts), "masks are as wide as the ring"


@pytest.mark.parametrize("protocol", ["aby3", "semi2k"])
def test_two_summands_become_shares_of_their_sum(protocol: str) -> None:
    summands = {"client": torch.arange(15).reshape(SHAPE), "server": -5 * torch.ones(SHAPE, dtype=torch.int64)}

    def act(role: str, sharing: Sharing) -> Tensor:
        return sharing.adopt(summands.get(role, torch.zeros(SHAPE, dtype=torch.int64)))

    assert torch.equal(total(shared(protocol, act)), summands["client"] + summands["server"])
