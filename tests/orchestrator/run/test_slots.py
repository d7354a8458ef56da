"""Which roles get a GPU, by the memory that their GPUs have left; the GPUs are those of a lab with two."""

import threading
from typing import Any

import pytest

from orchestrator.experiment.gpu_roles import gpu_roles, gpu_wishes
from orchestrator.predict.memory import gpu_needs, together
from orchestrator.run import preflight, slots
from orchestrator.run.deadline import Deadline
from orchestrator.run.placement import ROLES, Placement
from orchestrator.run.preflight import GpuFull
from orchestrator.run.slots import remarks, reserve
from parties.metering.cgroup import Memory
from parties.metering.nvml import Card
from tests.helpers import samples

CARDS = {"client": "GPU-a", "server": "GPU-b", "dealer": "GPU-a", "referee": "GPU-b"}
CELL = samples.cell(model="random:llama-2-7b", engines=["fss"], seq_lens=[1024], gpu=True)
NEEDS = gpu_needs(CELL)


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> list[Placement]:
    """The placements that were released again."""
    everywhere = {role: f"n-{role}" for role in ROLES}
    gone: list[Placement] = []

    def place(*, gpu: Any, wished: Any, **_: Any) -> Placement:
        having = (*gpu, *wished)
        share = {role: 0.5 if role in having else 0.0 for role in ROLES}
        return Placement("STRICT_SPREAD", everywhere, everywhere, share, {}, {role: CARDS[role] for role in having})

    monkeypatch.setattr(slots, "place", place)
    monkeypatch.setattr(Placement, "release", lambda placement: gone.append(placement))
    monkeypatch.setattr(preflight, "usable_memory", lambda _: Memory(10**12, 10**12, "the host"))
    return gone


def reserved(monkeypatch: pytest.MonkeyPatch, free: int) -> Placement:
    """The slots of `CELL` with so many bytes free on each GPU."""
    card = Card(0, "GPU-a", "Fake H1", 143 * 10**9, free)
    monkeypatch.setattr(preflight, "on_node", lambda *_: card)
    placement, admitted = reserve(CELL, Deadline(60, threading.Event()))
    assert all(admitted[uuid] <= free for uuid in placement.cards.values())
    return placement


def of(*roles: str) -> int:
    return together(NEEDS[role] for role in roles)


def test_a_7b_shape_takes_54_gb_of_weights_a_party_and_more_with_its_cache() -> None:
    assert NEEDS["client"].weights == pytest.approx(8 * 6.74e9, rel=0.01)
    assert NEEDS["client"].peak > NEEDS["client"].weights + NEEDS["client"].cache > 58e9


def test_all_roles_compute_on_gpus_with_room_for_two_each(
    released: list[Placement], monkeypatch: pytest.MonkeyPatch
) -> None:
    placement = reserved(monkeypatch, 143 * 10**9)
    assert set(placement.on_gpu) == set(ROLES)
    assert remarks(CELL, placement) == ("client and dealer share GPU-a", "server and referee share GPU-b")
    assert released == []


def test_the_dealer_and_then_the_referee_give_way_where_memory_is_short(
    released: list[Placement], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert of("server") < of("server", "referee") < of("client", "dealer")
    assert reserved(monkeypatch, of("client", "dealer")).on_gpu == ROLES
    assert reserved(monkeypatch, of("server", "referee")).on_gpu == ("client", "server", "referee")
    alone = reserved(monkeypatch, of("server"))
    assert alone.on_gpu == ("client", "server")
    assert remarks(CELL, alone) == ("the dealer computes on the CPU, for want of a GPU with enough memory",)
    assert len(released) == 2 + 3


def test_a_model_that_does_not_fit_names_the_gpu_and_the_shortfall(
    released: list[Placement], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GpuFull, match=r"GPU 0 \(Fake H1\) of n-client has 24\.0 of 143\.0 GB free") as refused:
        reserved(monkeypatch, 24 * 10**9)
    short = (of("client") - 24e9) / 1e9
    assert f"{short:.1f} GB more (client" in refused.value.message
    assert refused.value.status == "oom"
    assert len(released) == 4


def test_without_gpu_true_nobody_has_one_and_plain_needs_it_at_the_referee() -> None:
    assert (gpu_roles(samples.cell()), gpu_wishes(samples.cell())) == ((), ())
    plain = samples.cell(engines=["plain"], gpu=True)
    assert (gpu_roles(plain), gpu_wishes(plain)) == (("referee",), ())
