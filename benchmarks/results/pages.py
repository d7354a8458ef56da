"""The pages and their tables.

A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`; the prose around it is written by hand.
"""

import re

from benchmarks.results import batches, engines, gpus, models, networks, overview, paper, quality, reliability
from benchmarks.results.sources import RESULTS, ROOT, NotMeasuredError, Tables, machine_tables

PAGES = (ROOT / "README.md", *sorted(RESULTS.glob("*.md")))

TABLES: Tables = {
    **overview.TABLES,
    **engines.TABLES,
    **paper.TABLES,
    **networks.TABLES,
    **batches.TABLES,
    **gpus.TABLES,
    **quality.TABLES,
    **models.TABLES,
    **reliability.TABLES,
    **machine_tables(),
}

NOT_MEASURED = "*Not measured yet.*"
"""The text of a table whose records are not committed."""

_TABLE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def filled(text: str) -> str:
    """The page with every table as the records have it."""
    return _TABLE.sub(lambda found: f"{found[1]}\n{_table(found[2])}{found[3]}", text)


def tables_of(text: str) -> dict[str, str]:
    """The tables of a page as they stand there, by name."""
    return {name: whole for whole, name in ((found[0], found[2]) for found in _TABLE.finditer(text))}


def _table(name: str) -> str:
    try:
        text = TABLES[name]()
    except NotMeasuredError:
        text = NOT_MEASURED
    return text and f"{text}\n\n"
