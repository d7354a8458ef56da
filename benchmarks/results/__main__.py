"""Writes the tables of README.md and docs/results/*.md from the committed records: `python -m benchmarks.results`.

`--check` writes nothing and fails if a table is out of date.
"""

import argparse
import sys

from benchmarks.results.pages import PAGES, filled
from benchmarks.results.sources import ROOT


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the tables of measured results again.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a table is out of date")
    only_check = parser.parse_args().check
    stale = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if (now := filled(text)) != text:
            stale.append(str(page.relative_to(ROOT)))
            if not only_check:
                page.write_text(now, encoding="utf-8")
    print(", ".join(stale) or "all tables", "out of date" if only_check and stale else "up to date")
    sys.exit(1 if only_check and stale else 0)


if __name__ == "__main__":
    main()
