"""Adds the records of a run to the committed ones: `python -m benchmarks.results.add RUN NAME`.

Cells of examples/NAME.yaml that are `ok` go from the folder RUN to docs/results/NAME, in place of its former records,
and their report is rendered. The path of the prompt named a folder of the machine that ran; it becomes a neutral one,
and the ids, which are hashes over it, change with it. `python -m benchmarks.results` then writes the tables.
"""

import argparse
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.results.sources import RESULTS, ROOT, RUNS
from orchestrator.experiment.cells import Cell, expand
from orchestrator.experiment.experiment import Experiment, load_experiment
from orchestrator.records.record import Record, Status
from orchestrator.records.snapshot import EXPERIMENT
from orchestrator.records.store import RECORDS, RecordStore
from orchestrator.report import render
from parties.options import draft_words

EXAMPLES = ROOT / "examples"
NEUTRAL = "/mpcache-bench/examples/"
"""What the folder of the examples becomes in records, on every machine."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Add the records of a run to docs/results/.")
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("name", choices=RUNS, help="the example that it ran, and the folder in docs/results/")
    given = parser.parse_args()
    try:
        left_out = add(given.run, given.name)
    except ValueError as error:
        parser.error(str(error))
    for record in left_out:
        print(f"left out: {record.cell} ({record.status})")
    print(f"docs/results/{given.name} written; next: make results")


def add(run: Path, name: str, results: Path = RESULTS) -> list[Record]:
    """Replaces a folder of committed records by those of a run, and renders its report.

    Args:
        run: Folder of the run.
        name: Name of the example that it ran, without suffix.
        results: Folder of the committed runs.

    Returns:
        The records that were left out: not `ok`, or of cells that the example does not have.

    Raises:
        ValueError: No record is left, or the run read another prompt than the example.
    """
    example = load_experiment(EXAMPLES / f"{name}.yaml")
    asked = {measurement(cell) for cell in expand(example)}
    known = RecordStore(run).latest().values()
    kept = [record for record in known if record.status is Status.OK and measurement(record.cell) in asked]
    if not kept:
        raise ValueError(f"{run} holds no ok record of examples/{name}.yaml")
    local = local_folders(kept, example)
    lines = {record.id: record.model_dump_json() for record in (neutral(record, local) for record in kept)}
    written = without((run / EXPERIMENT).read_text(encoding="utf-8"), local)
    folder = results / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / RECORDS).write_text("".join(f"{line}\n" for line in lines.values()), encoding="utf-8")
    (folder / EXPERIMENT).write_text(written, encoding="utf-8")
    render(folder)
    return [record for record in known if record not in kept]


def measurement(cell: Cell) -> tuple[Any, ...]:
    """What a cell measures; equal for cells of different machines and versions."""
    point = (cell.engine.name, cell.engine.protocol, str(cell.policy), cell.seq_len, cell.network.name)
    return (*point, cell.new_tokens, cell.batch, draft_words(cell.draft), cell.gpu, cell.repeat)


def local_folders(records: Iterable[Record], example: Experiment) -> set[str]:
    """The folders of the examples on the machines that ran the cells; none if the prompt is not a file.

    Raises:
        ValueError: A cell read another prompt than the example.
    """
    if example.prompt.file is None:
        return set()
    end = str(Path(example.prompt.file[1]).relative_to(EXAMPLES))
    paths = {record.cell.prompt.file[1] if record.cell.prompt.file else "random tokens" for record in records}
    for path in paths:
        if not path.endswith(f"/examples/{end}"):
            raise ValueError(f"a cell read {path}; the example's prompt is examples/{end}")
    return {path.removesuffix(end) for path in paths}


def neutral(record: Record, local: set[str]) -> Record:
    """The record with neutral paths, and the id of the cell with these."""
    values = json.loads(without(record.model_dump_json(), local))
    return Record.model_validate(values | {"id": Cell.model_validate(values["cell"]).id})


def without(text: str, local: set[str]) -> str:
    """The text with neutral paths."""
    for folder in local:
        text = text.replace(folder, NEUTRAL)
    return text


if __name__ == "__main__":
    main()
