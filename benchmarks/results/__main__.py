"""Writes the tables of README.md and docs/results/*.md from the committed records.

    python -m benchmarks.results [docs/results/engines.md ...] [--check]

`--check` writes nothing and fails if a table is out of date.
"""

import argparse
import sys

from benchmarks.results.pages import PAGES, filled
from benchmarks.results.sources import ROOT

NAMED = {str(page.relative_to(ROOT)): page for page in PAGES}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the tables of measured results again.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a table is out of date")
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=f"all of these if left out: {', '.join(NAMED)}")
    given = parser.parse_args()
    if unknown := set(given.pages) - NAMED.keys():
        parser.error(f"no page is called {', '.join(sorted(unknown))}: take some of {', '.join(NAMED)}")
    only_check, stale = given.check, []
    for name in given.pages or NAMED:
        text = (page := NAMED[name]).read_text(encoding="utf-8")
        if (now := filled(text)) != text:
            stale.append(name)
            if not only_check:
                page.write_text(now, encoding="utf-8")
    print(", ".join(stale) or "all tables", "out of date" if only_check and stale else "up to date")
    sys.exit(1 if only_check and stale else 0)


if __name__ == "__main__":
    main()
