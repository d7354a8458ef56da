"""Checkpoints of a training: the parameters, the moments of the optimiser and the losses so far."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from orchestrator.training.files import write_file
from orchestrator.training.loop import Run
from orchestrator.training.settings import TrainingError

FORMAT = "mpcache-bench.training.1"


def save_checkpoint(run: Run, identity: dict[str, Any], path: Path) -> None:
    """Writes a checkpoint atomically.

    Args:
        run: The training between two blocks.
        identity: Settings, model and texts, none of which may change on resumption.
        path: The file.

    Raises:
        TrainingError: The file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in run.parameters.items():
        moments = run.optimiser.state[parameter]
        parts = {"value": parameter.detach(), "first": moments["exp_avg"], "second": moments["exp_avg_sq"]}
        tensors |= {f"{part}.{name}": tensor.contiguous().cpu() for part, tensor in parts.items()}
    state = {"step": run.step, "seconds": run.seconds, "history": run.history, "identity": identity}
    metadata = {"format": FORMAT, "told": json.dumps(state)}
    write_file(path, lambda fresh: save_file(tensors, fresh, metadata=metadata))


def restore(run: Run, identity: dict[str, Any], path: Path) -> None:
    """Restores a training from its checkpoint.

    Args:
        run: The training before its first step; changed in place.
        identity: Settings, model and texts, which must equal those of the checkpoint.
        path: The file.

    Raises:
        TrainingError: The checkpoint is missing, damaged or of another training; the message names the difference.
    """
    if not path.exists():
        raise TrainingError(f"resume: there is no checkpoint {path}; leave --resume out to begin")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        state = json.loads(metadata["told"]) if metadata.get("format") == FORMAT else None
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise TrainingError(f"resume: {path} cannot be read: {error}; remove it to begin again") from None
    if state is None:
        raise TrainingError(f"resume: {path} is not a checkpoint of this version; remove it to begin again")
    for key, value in identity.items():
        if (then := state["identity"].get(key)) != value:
            raise TrainingError(f"resume: {path} was trained with {key} {then!r}, not {value!r}; use the same command")
    for name, parameter in run.parameters.items():
        parameter.data.copy_(tensors[f"value.{name}"])
        moments = {"exp_avg": tensors[f"first.{name}"], "exp_avg_sq": tensors[f"second.{name}"]}
        on_device = {key: tensor.to(parameter.device) for key, tensor in moments.items()}
        run.optimiser.state[parameter] = {"step": _count(run, state["step"]), **on_device}
    run.step, run.seconds, run.history = state["step"], state["seconds"], state["history"]


def _count(run: Run, step: int) -> Tensor:
    """The optimiser's own count of steps."""
    return next(iter(run.parameters.values())).new_tensor(float(step)).cpu()
