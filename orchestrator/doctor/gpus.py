"""GPUs: those of each host, and those that the parties get, with the memory that cells need there."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import ray

from orchestrator.doctor.finding import Finding, fine, note, wrong
from orchestrator.doctor.hosts import Host, Unanswered
from orchestrator.experiment.cells import Cell
from orchestrator.predict.memory import gpu_needs, together
from orchestrator.run.placement import Placement
from orchestrator.run.preflight import GPU_FIX
from parties.metering.nvml import Card, Cards

_ASK_S = 60.0


def cards(hosts: Iterable[Host]) -> Iterator[Finding]:
    """A row for each host: its GPUs, their memory and driver, those that Ray may use, and partitioned ones."""
    for host in hosts:
        try:
            answer = host.ask("gpus")
        except Unanswered as error:
            yield wrong("gpus", host.name, str(error), "see `ray status`")
            continue
        found = Cards(tuple(Card(**card) for card in answer["cards"]), answer["driver"], answer["problem"])
        yield from _of_host(host.name, found, answer["visible"])


def _of_host(name: str, found: Cards, visible: str | None) -> Iterator[Finding]:
    if found.problem:
        yield note("gpus", name, f"none can be read: {found.problem}")
        return
    listed = "; ".join(f"{card}, {card.free / 1e9:.1f} of {card.total / 1e9:.1f} GB free" for card in found.cards)
    yield fine("gpus", name, f"{len(found.cards)}, driver {found.driver}: {listed}")
    if visible is not None:
        seen = ", ".join(str(card.index) for card in found.visible(visible)) or "none"
        yield note("gpus", name, f"CUDA_VISIBLE_DEVICES={visible} leaves Ray: {seen}")
    if divided := [str(card.index) for card in found.cards if card.partitioned]:
        text = f"MIG divides GPU {', '.join(divided)}: a party gets an instance, whose memory and load are not checked"
        yield note("gpus", name, f"{text}; `nvidia-smi -i N -mig 0` makes a GPU whole again")


def gpus(roles: Iterable[str], placement: Placement, cells: Sequence[Cell]) -> Iterator[Finding]:
    """A row for each role that needs a GPU, for each GPU that several roles share, and for each that is too small.

    Args:
        roles: Roles that need a GPU.
        placement: The slots reserved for the parties.
        cells: The cells.
    """
    free: dict[str, int] = {}
    for role in dict.fromkeys((*roles, *placement.on_gpu)):
        look = ray.remote(_computes).options(max_retries=0, **placement.options(role))
        try:
            answer: dict[str, Any] = ray.get(look.remote(), timeout=_ASK_S)
        except ray.exceptions.RayError as error:
            answer = {"error": f"no answer: {type(error).__name__}"}
        where = f"{placement.hosts[role]}, {role}"
        if "error" in answer:
            fix = "look at `nvidia-smi` there and install a torch built for its driver, or run with gpu: false"
            yield wrong("gpu", where, answer["error"], fix)
        else:
            free[placement.cards.get(role, role)] = answer["free"]
            yield fine("gpu", where, f"{answer['name']}, {answer['free'] / 1e9:.1f} GB free")
    for uuid, users in placement.shared_cards.items():
        yield note("gpu", uuid, f"{' and '.join(users)} share it: their work and their memory add up")
    yield from _memory(placement, [cell for cell in cells if cell.gpu], free)


def _memory(placement: Placement, cells: Sequence[Cell], free: dict[str, int]) -> Iterator[Finding]:
    """A row for each GPU with a known amount of free memory."""
    for uuid in dict.fromkeys(placement.cards.values()):
        there = [role for role, card in placement.cards.items() if card == uuid]
        if not cells or uuid not in free:
            continue
        needed = max(together(gpu_needs(cell)[role] for role in there) for cell in cells)
        text = f"{', '.join(there)} need about {needed / 1e9:.1f} GB (computed); {free[uuid] / 1e9:.1f} GB are free"
        yield fine("gpu memory", uuid, text) if needed <= free[uuid] else wrong("gpu memory", uuid, text, GPU_FIX)


def _computes() -> dict[str, Any]:
    import torch  # on the host in question

    if not torch.cuda.is_available():
        return {"error": f"torch {torch.__version__} sees no GPU, though Ray offers one"}
    try:
        torch.ones(1, device="cuda").sum().item()
    except RuntimeError as error:
        return {"error": str(error).splitlines()[0]}
    return {"name": torch.cuda.get_device_name(), "free": torch.cuda.mem_get_info()[0]}
