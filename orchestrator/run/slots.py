"""Slots for the parties of a cell that have the memory which it needs."""

from collections.abc import Mapping
from itertools import combinations

from orchestrator.experiment.cells import Cell
from orchestrator.experiment.gpu_roles import gpu_roles, gpu_wishes
from orchestrator.run.deadline import Deadline
from orchestrator.run.placement import Placement, place
from orchestrator.run.preflight import GpuFull, require_disk, require_memory

_PLACE_S = 60.0


def remarks(cell: Cell, placement: Placement) -> tuple[str, ...]:
    """What distinguishes the GPUs of a cell from one for each party, as warnings for its record."""
    shared = [f"{' and '.join(roles)} share {uuid}" for uuid, roles in placement.shared_cards.items()]
    if "dealer" in gpu_wishes(cell) and "dealer" not in placement.on_gpu:
        shared.append("the dealer computes on the CPU, for want of a GPU with enough memory")
    return tuple(shared)


def reserve(cell: Cell, deadline: Deadline) -> tuple[Placement, Mapping[str, int]]:
    """Reserve slots with enough memory.

    Args:
        cell: The cell.
        deadline: Bounds the wait.

    Returns:
        The slots, and the bytes by node and GPU that the parties are admitted with.

    Raises:
        CellFailure: The cell does not fit into the memory of a host or of a GPU, or on a disk.
        PlacementError: A resource is missing or stays busy.
    """
    wishes, wait = gpu_wishes(cell), min(_PLACE_S, cell.cell_timeout_s)
    choices = (some for size in range(len(wishes), -1, -1) for some in combinations(wishes, size))
    while True:
        wished = next(choices)
        placement = place(gpu=gpu_roles(cell), wished=wished, timeout_s=wait, check=deadline.check)
        try:
            require_disk(cell, placement, deadline)
            return placement, require_memory(cell, placement, deadline)
        except GpuFull:
            placement.release()
            if not wished:
                raise
        except BaseException:
            placement.release()
            raise
