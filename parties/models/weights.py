"""Loads the weights of a model, if the host has room for them."""

from torch import Tensor

from parties.errors import NotEnoughMemory
from parties.metering.cgroup import memory
from parties.models.sources import open_source


def load_weights(source: str) -> dict[str, Tensor]:
    """The canonical parameters of a model, float32, contiguous, with the names and shapes of `ModelSpec.shapes`.

    Args:
        source: As in an experiment file; see `parties.models.sources`.

    Raises:
        ModelError: There is no such model, its files are damaged, or the decoder does not know its kind.
        NotEnoughMemory: The host, or the cgroup that this process is in, has less free memory than the weights take.
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
    """Looks at a model's files of weights without reading the weights.

    Args:
        source: As in an experiment file; see `parties.models.sources`.

    Raises:
        ModelError: There is no such model, or its weights are missing, torn or of another model.
    """
    open_source(source).check()
