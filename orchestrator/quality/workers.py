"""Evaluates the prompts of a study in this process or in several."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import torch

from orchestrator.quality.results import Point, Result, ResultStore
from orchestrator.quality.study import Study
from orchestrator.quality.work import Bench, by_prompt, unfinished
from parties.errors import PartyError

_bench: Bench
"""The bench of this worker process; set once, before its first prompt."""


def evaluate(study: Study, store: ResultStore, tick: Callable[[Result], None], jobs: int = 1) -> None:
    """Evaluates the points of a study that have no result yet.

    Args:
        study: The study.
        store: Receives each result as soon as it is computed.
        tick: Called with each result; with several jobs, once per prompt for all its results.
        jobs: Number of worker processes, each of which loads the model.

    Raises:
        PartyError: The model, a file or a policy's heads cannot be used, or a worker died.
    """
    left, bench = unfinished(study, store), Bench(study, store)
    bench.prepare(left)
    if jobs == 1:
        for points in by_prompt(left):
            for result in bench.evaluate(points):
                tick(result)
        return
    spawning = multiprocessing.get_context("spawn")  # a fork would share the parent's threads and GPU
    with ProcessPoolExecutor(jobs, spawning, _begin, (study, store, jobs)) as pool:
        try:
            for done in as_completed([pool.submit(_one_prompt, points) for points in by_prompt(left)]):
                for result in done.result():
                    tick(result)
        except BrokenProcessPool:
            raise PartyError(
                f"one of {jobs} workers died, perhaps for lack of memory; finished results are kept: run again with "
                "fewer --jobs"
            ) from None
        except BaseException:  # unfinished prompts are evaluated again
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


def _begin(study: Study, store: ResultStore, jobs: int) -> None:
    global _bench
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    _bench = Bench(study, store)
    _bench.prepare(unfinished(study, store))


def _one_prompt(points: list[Point]) -> list[Result]:
    return list(_bench.evaluate(points))
