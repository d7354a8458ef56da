"""Tables of docs/results/gpus.md."""

from functools import partial

from benchmarks.results.markdown import table
from benchmarks.results.networks import by_length
from benchmarks.results.sources import Tables, records


def each_token(folder: str) -> str:
    """The seconds in which a token came after the one before, in order; a retry with all that it waits for counts."""
    found = sorted(records(folder), key=lambda record: (record.cell.seq_len, str(record.cell.policy)))
    lines = [
        [f"{cell.seq_len:,}", f"`{cell.policy}`", cell.network.name, ", ".join(f"{s:.2f}" for s in served.pass_seconds)]
        for cell, served in ((record.cell, record.serving) for record in found)
        if served is not None
    ]
    return table(["prompt", "policy", "network", "seconds of each token"], lines)


TABLES: Tables = {
    "gpu": partial(by_length, "gpu"),
    "gpu-tokens": partial(each_token, "gpu"),
    "gpu-small": partial(by_length, "gpu_small"),
}
