"""Names of measurements that differ in nothing but their link and their lengths, for legends and tables."""

from orchestrator.experiment.cells import Cell


def series_name(cell: Cell, *, name_model: bool = False) -> str:
    """Engine and policy, and what else differs from the usual.

    Args:
        cell: A cell of the series.
        name_model: Whether the model is to be named: where there are several.
    """
    words = [str(cell.engine), str(cell.policy)]
    words += [cell.model] if name_model else []
    words += ["client argmax"] if cell.argmax == "client" else []
    words += [f"draft {cell.draft}"] if cell.draft else []
    words += ["prefill mpc"] if cell.prefill == "mpc" and cell.engine.name != "plain" else []
    return ", ".join(words) + batch_words(cell)


def batch_words(cell: Cell) -> str:
    """The last words of a name; none for single sequences."""
    return f", batch {cell.batch}" if cell.batch > 1 else ""
