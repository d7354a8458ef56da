"""Loads the weights of a model, if the host has enough memory."""

from torch import Tensor

from parties.errors import NotEnoughMemory
from parties.metering.cgroup import memory
from parties.models.sources import open_source


def load_weights(source: str) -> dict[str, Tensor]:
    """The canonical parameters of a model, float32, contiguous, with the names and shapes of `ModelSpec.shapes`.

    Args:
        source: Name of the model as in an experiment file; see `parties.models.sources`.

    Raises:
        ModelError: There is no such model, its files are damaged, or the decoder does not support its type.
        NotEnoughMemory: The host, or the cgroup of this process, has less free memory than the weights need.
    """
    model = open_source(source)
    needed, usable = 4 * model.spec().parameters, memory()
    if needed > usable.available:
        raise NotEnoughMemory(
            f"the weights of {source} take {needed / 2**30:.1f} GiB as float32 and {usable.available / 2**30:.1f} GiB "
            f"are free of the {usable.limit / 2**30:.1f} GiB that {usable.source} allows; free some memory, or choose "
            f"a smaller model"
        )
    return model.weights()


def check_weights(source: str) -> None:
    """Checks the weight files of a model without reading the weights.

    Args:
        source: Name of the model as in an experiment file; see `parties.models.sources`.

    Raises:
        ModelError: There is no such model, or its weights are missing, damaged or of another model.
    """
    open_source(source).check()
