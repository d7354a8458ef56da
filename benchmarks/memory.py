"""Compares the memory that the formula expects each role of a cell to take with what it took.

    python benchmarks/memory.py runs/quickstart

Parties keep their processes from cell to cell, and the peak is the process's: measure a cell in a run of its own.
"""

import argparse
from pathlib import Path

from orchestrator.predict.memory import memory_needs
from orchestrator.records.store import RecordStore

HEADER = (
    "| cell | role | GB estimated | GB measured | ratio | of it |",
    "| --- | --- | ---: | ---: | ---: | --- |",
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory of each role: the formula against measured peaks.")
    parser.add_argument("folder", type=Path, help="folder of a run on CPUs")
    print(*HEADER, sep="\n")
    for record in RecordStore(parser.parse_args().folder).read():
        needs = memory_needs(record.cell)
        for role, reading in record.parties.items():
            estimate, measured = needs[role].peak, reading.peak_rss_bytes
            shares = f"{estimate / 1e9:.2f} | {measured / 1e9:.2f} | {estimate / measured:.2f} | {needs[role]}"
            print(f"| {record.cell} | {role} | {shares} |")


if __name__ == "__main__":
    main()
