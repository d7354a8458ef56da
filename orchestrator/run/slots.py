"""Slots for the parties of a cell that have the memory which it needs."""

from collections.abc import Mapping

from orchestrator.experiment.cells import Cell
from orchestrator.experiment.gpu_roles import gpu_roles, gpu_wishes
from orchestrator.run.deadline import Deadline
from orchestrator.run.placement import Placement, place
from orchestrator.run.preflight import GpuFull, require_memory

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
        CellFailure: The cell does not fit into the memory of a host or of a GPU.
        PlacementError: A resource is missing or stays busy.
    """
    wished, wait = gpu_wishes(cell), min(_PLACE_S, cell.cell_timeout_s)
    while True:
        placement = place(gpu=gpu_roles(cell), wished=wished, timeout_s=wait, check=deadline.check)
        try:
            return placement, require_memory(cell, placement, deadline)
        except GpuFull:
            placement.release()
            if not wished:
                raise
            wished = wished[:-1]
        except BaseException:
            placement.release()
            raise
