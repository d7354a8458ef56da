"""The training loop: the frozen model runs a block of windows, then the heads are trained on the block's tensors."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn.utils import clip_grad_norm_

from orchestrator.training.settings import Settings, TrainingError
from orchestrator.training.task import Observed, Parameters, Task

BETAS = (0.9, 0.95)
WARM_UP = 0.1


@dataclass
class Run:
    """A training between two blocks.

    Attributes:
        parameters: The parameters of the heads.
        optimiser: AdamW on them, with the betas of Locret's paper.
        step: Completed steps of the optimiser.
        seconds: Time spent in the model and the optimiser.
        history: The mean of each part of the loss, for each block.
    """

    parameters: Parameters
    optimiser: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def begin(task: Task) -> Run:
    """A training before its first step."""
    parameters = {name: tensor.requires_grad_() for name, tensor in task.start().items()}
    return Run(parameters, torch.optim.AdamW(parameters.values(), lr=task.settings.learning_rate, betas=BETAS))


def train(
    task: Task,
    windows: Sequence[list[int]],
    run: Run,
    after_block: Callable[[Run], None],
    tick: Callable[[float], None],
) -> None:
    """Trains from the current step of `run` to the end.

    Args:
        task: The heads to train.
        windows: All windows of the training, in order.
        run: The training; changed in place.
        after_block: Called after each block, before the next begins.
        tick: Called after each window and each step with the number of completed steps; the model's run of a window
            counts as half of the window's steps.

    Raises:
        TrainingError: A loss is not a finite number.
    """
    settings = task.settings
    for block in range(run.step // (settings.block * settings.repeats), settings.blocks):
        start = time.perf_counter()
        mine = windows[block * settings.block : (block + 1) * settings.block]
        seen = []
        for index, window in enumerate(mine):
            seen.append(task.observe(window))
            tick(run.step + (index + 1) * settings.repeats / 2)
        run.history.append(_descend(task, run, seen, block, tick))
        run.seconds += time.perf_counter() - start
        after_block(run)


def _descend(
    task: Task, run: Run, seen: Sequence[Observed], block: int, tick: Callable[[float], None]
) -> dict[str, float]:
    """Trains with each window of a block `repeats` times, in random order; returns the mean parts of the loss."""
    settings, sums = task.settings, dict.fromkeys(task.objective, 0.0)
    generator = torch.Generator().manual_seed(settings.seed + block + 1)
    orders = [torch.randperm(len(seen), generator=generator).tolist() for _ in range(settings.repeats)]
    first, count = run.step, len(seen) * settings.repeats
    for index in (index for order in orders for index in order):
        run.optimiser.param_groups[0]["lr"] = settings.learning_rate * pace(settings, run.step)
        parts = task.loss(run.parameters, seen[index])
        loss = torch.stack([parts[name] for name in task.objective]).sum()
        if not bool(torch.isfinite(loss)):
            raise TrainingError(
                f"learning_rate: {settings.learning_rate:g} is too large, step {run.step} has no finite loss"
            )
        run.optimiser.zero_grad()
        torch.autograd.backward(loss)
        clip_grad_norm_(run.parameters.values(), settings.clip)
        run.optimiser.step()
        run.step += 1
        for name in sums:
            sums[name] += parts[name].item() / count
        tick(first + count / 2 + (run.step - first) / 2)
    return sums


def pace(settings: Settings, step: int) -> float:
    """Share of the learning rate at a step: up linearly over a tenth of all steps, then down linearly to nothing."""
    rise = max(1, math.ceil(settings.steps * WARM_UP))
    return min((step + 1) / rise, (settings.steps - step) / max(1, settings.steps - rise))
