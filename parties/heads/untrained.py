"""Random heads: for tests, and as the baseline that training has to beat."""

from collections.abc import Mapping

import torch
from torch import Tensor

from parties.heads.format import Head, Kind, fingerprint
from parties.models.spec import ModelSpec


def random_head(kind: Kind, spec: ModelSpec, weights: Mapping[str, Tensor], *, width: int = 8, seed: int = 0) -> Head:
    """Draws heads whose scores are of order one.

    Args:
        kind: The policy that uses them.
        spec: The model's specification.
        weights: The model's canonical parameters, for the fingerprint.
        width: Hidden width of a `locret` head, or of each of a gate's attention heads.
        seed: Seed of the draw.
    """
    empty = Head(kind, "random", fingerprint(spec, weights), width, {})
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(shape, generator=generator) * (0.5 if name.endswith("bias") else shape[0] ** -0.5)
        for name, shape in empty.shapes(spec).items()
    }
    return Head(kind, empty.model, empty.fingerprint, width, tensors)
