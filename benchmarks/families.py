"""Largest error of a logit of each family of models in each private engine, against the engine `plain`.

    python -m benchmarks.families [--families gemma2,qwen3] [--engines fss,crypten] [--seq-len 24] [--new-tokens 2]
        [--prefill shared] [--out docs/results/families]

Each family is a tiny model of random weights, `random:tiny-<family>`, so errors are those of its operations, not of the
depth or the numbers of a published model. The cells run as those of an experiment do: client, server and dealer are
processes, and the referee compares their logits with its own.
"""

import argparse
import tempfile
from pathlib import Path

from rich.console import Console

from orchestrator.experiment.cells import expand
from orchestrator.experiment.experiment import Experiment
from orchestrator.records.record import Record
from orchestrator.records.store import RecordStore
from orchestrator.run.ray_session import ray_session
from orchestrator.run.sweep import run_sweep
from parties.models.architecture import ARCHITECTURES


def main() -> None:
    given = parse()
    engines = given.engines.split(",")
    print(f"| family | {' | '.join(engines)} |\n|---|{'---|' * len(engines)}")
    with ray_session(None), tempfile.TemporaryDirectory() as folder:
        for family in given.families.split(","):
            records = measured(family, engines, given, (given.out or Path(folder)) / family)
            found = {str(record.cell.engine): shown(record) for record in records}
            print(f"| {family} | {' | '.join(found.get(engine, '-') for engine in engines)} |", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Errors of each family of models in each engine.")
    parser.add_argument("--families", default=",".join(ARCHITECTURES))
    parser.add_argument("--engines", default="fss,crypten")
    parser.add_argument("--seq-len", type=int, default=24)
    parser.add_argument("--new-tokens", type=int, default=2)
    parser.add_argument("--prefill", choices=["shared", "mpc"], default="shared")
    parser.add_argument("--out", type=Path, help="folder that keeps the records, in one folder per family")
    return parser.parse_args()


def measured(family: str, engines: list[str], given: argparse.Namespace, out: Path) -> list[Record]:
    """Runs a family in all engines; returns a record of each."""
    experiment = Experiment.model_validate({
        "name": family, "model": f"random:tiny-{family}", "prompt": {"random_tokens": True}, "engines": engines,
        "policies": ["full"], "seq_lens": [given.seq_len], "new_tokens": given.new_tokens, "prefill": given.prefill,
    })  # fmt: skip
    with RecordStore(out) as store:
        return list(run_sweep(experiment, expand(experiment), store, console=Console(quiet=True)).records)


def shown(record: Record) -> str:
    """The error, or why there is none."""
    if record.check is None or record.check.max_abs_logit_error is None:
        return str(record.status)
    return f"{record.check.max_abs_logit_error:.1e}"


if __name__ == "__main__":
    main()
