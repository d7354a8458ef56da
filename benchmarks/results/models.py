"""Table of docs/results/models.md: the errors of each family of models."""

from benchmarks.results.markdown import table
from benchmarks.results.sources import RESULTS, records
from parties.models.architecture import ARCHITECTURES


def families() -> str:
    """Largest error of a logit of each family of models in each private engine."""
    engines, lines = ("fss", "crypten"), []
    for family in (family for family in ARCHITECTURES if (RESULTS / "families" / family).exists()):
        found = {str(record.cell.engine): record.check for record in records(f"families/{family}")}
        errors = [check.max_abs_logit_error for engine in engines if (check := found[engine]) is not None]
        lines.append([f"`{family}`", *(f"{error or 0:.4f}" for error in errors)])
    return table(["family", *(f"`{engine}`" for engine in engines)], lines)


TABLES = {"families": families}
