"""Tables of docs/results/gpus.md."""

from functools import partial

from benchmarks.results.networks import by_length
from benchmarks.results.sources import Tables

TABLES: Tables = {"gpu": partial(by_length, "gpu"), "gpu-small": partial(by_length, "gpu_small")}
