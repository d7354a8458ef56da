"""Are there memory and disk enough for a cell? Asked before a model is loaded, on the nodes where the parties run."""

from collections.abc import Mapping

from orchestrator.experiment.cells import Cell
from orchestrator.predict.memory import Need, gpu_needs, memory_needs, together
from orchestrator.run.deadline import Deadline
from orchestrator.run.failures import CellFailure
from orchestrator.run.nodes import on_node
from orchestrator.run.placement import Placement
from parties.engines.fss.dealing.folder import FOLDER_VARIABLE, space
from parties.metering.cgroup import Memory, memory
from parties.metering.nvml import card_of

_ASK_S = 60.0
FIX = (
    "free some memory or raise that limit, shorten seq_lens, use a smaller model, or give each party a node of its own"
)
_FIX = FIX[0].upper() + FIX[1:]
_DISK_FIX = f"Free some space, set {FOLDER_VARIABLE} to a folder with more, or run with `offline: streamed`"
GPU_FIX = (
    "end what else uses that GPU (`nvidia-smi` lists it), give each party a GPU of its own, shorten seq_lens, use a "
    "smaller model, or run with gpu: false"
)
_GPU_FIX = GPU_FIX[0].upper() + GPU_FIX[1:]


class GpuFull(CellFailure):
    """A GPU has less free memory than a cell needs there; with status `oom`."""


def require_memory(
    cell: Cell, placement: Placement, deadline: Deadline, held: Mapping[str, int] | None = None
) -> Mapping[str, int]:
    """Refuse a cell that does not fit into the free memory of the nodes and of the GPUs.

    Args:
        cell: The cell.
        placement: The placement of the parties.
        deadline: Asked before each node.
        held: Bytes by node and GPU that parties of an earlier cell were admitted with, and hold still.

    Returns:
        Bytes by node and GPU that the parties are admitted with.

    Raises:
        GpuFull: A GPU has too little memory.
        CellFailure: With status `oom`, and what is needed, free and missing.
    """
    needs, admitted = memory_needs(cell, placement.on_gpu), dict(held or {})
    admitted |= _require_on_gpus(cell, placement, deadline, admitted)
    for node in dict.fromkeys(placement.nodes.values()):
        deadline.check()
        there = {role: needs[role] for role, at in placement.nodes.items() if at == node}
        needed = together(there.values()) - admitted.get(node, 0)
        if needed > 0 and (usable := usable_memory(node)).available < needed:
            host = next(placement.hosts[role] for role in there)
            raise CellFailure(
                status="oom",
                message=f"{host} has {usable}, and the cell needs about {needed / 1e9:.1f} GB there, "
                f"{(needed - usable.available) / 1e9:.1f} GB more ({described(there)}); nothing was started. {_FIX}",
            )
        admitted[node] = admitted.get(node, 0) + max(0, needed)
    return admitted


def require_disk(cell: Cell, placement: Placement, deadline: Deadline) -> None:
    """Refuse a cell whose stored randomness does not fit on the disks of the nodes.

    Raises:
        CellFailure: With status `config_error`, and what is needed and free.
    """
    needs = memory_needs(cell)
    for node in dict.fromkeys(placement.nodes.values()):
        there = {role: needs[role].disk for role, at in placement.nodes.items() if at == node and needs[role].disk}
        if not there:
            continue
        deadline.check()
        found, needed = on_node(node, _ASK_S, space), sum(there.values())
        if found is not None and found.free < needed:
            host = next(placement.hosts[role] for role in there)
            raise CellFailure(
                status="config_error",
                message=f"{found.folder} of {host} has {found.free / 1e9:.1f} GB free, and with `offline: stored` the "
                f"cell needs about {needed / 1e9:.1f} GB there; nothing was started. {_DISK_FIX}",
            )


def _require_on_gpus(cell: Cell, placement: Placement, deadline: Deadline, held: Mapping[str, int]) -> dict[str, int]:
    """Bytes by GPU that the parties are admitted with, as far as NVML can read the GPUs."""
    needs, admitted = gpu_needs(cell), {}
    for uuid in dict.fromkeys(placement.cards.values()):
        deadline.check()
        there = {role: needs[role] for role, card in placement.cards.items() if card == uuid}
        needed = together(there.values()) - held.get(uuid, 0)
        first = next(iter(there))
        card = on_node(placement.nodes[first], _ASK_S, card_of, uuid)
        if card is not None and card.free < needed:
            raise GpuFull(
                status="oom",
                message=f"{card} of {placement.hosts[first]} has {card.free / 1e9:.1f} of {card.total / 1e9:.1f} GB "
                f"free, and the cell needs about {needed / 1e9:.1f} GB there, {(needed - card.free) / 1e9:.1f} GB "
                f"more ({described(there)}); nothing was started. {_GPU_FIX}",
            )
        admitted[uuid] = held.get(uuid, 0) + max(0, needed)
    return admitted


def described(needs: Mapping[str, Need]) -> str:
    """The memory of some roles in words, in GB, the largest first."""
    order = sorted(needs, key=lambda role: -needs[role].peak)
    return "; ".join(f"{role} {needs[role].peak / 1e9:.1f}: {needs[role]}" for role in order)


def usable_memory(node: str) -> Memory:
    """Memory that new processes on a Ray node could use: the host's, or less where a cgroup limits it."""
    return on_node(node, _ASK_S, memory)
