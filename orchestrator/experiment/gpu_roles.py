"""The roles of a cell that compute on a GPU."""

from orchestrator.experiment.cells import Cell


def gpu_roles(cell: Cell) -> tuple[str, ...]:
    """The roles that need a GPU: none, client and server, or the referee, where `plain` runs."""
    if not cell.gpu:
        return ()
    return ("referee",) if cell.engine.name == "plain" else ("client", "server")


def gpu_wishes(cell: Cell) -> tuple[str, ...]:
    """The roles that compute on a GPU where there is room for them, and on the CPU otherwise; the first has precedence.

    The dealer works while the parties do, so that its speed counts; the referee only before and after.
    """
    return ("dealer", "referee") if cell.gpu and cell.engine.name != "plain" else ()
