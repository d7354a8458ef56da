"""Names of the segments of layers, by which recordings are found, and made from those of layers that are alike."""

from collections.abc import Hashable
from typing import NamedTuple


class LayerName(NamedTuple):
    """The name of what a step, or a pass, does in a layer.

    Attributes:
        layer: Index of the layer.
        kind: Layers of the same kind do the same, each with its own weights, on caches that look the same.
    """

    layer: int
    kind: Hashable


class ChunkName(NamedTuple):
    """The name of what a chunk of a prompt does in a layer; it is run once in each.

    Attributes:
        layer: Index of the layer.
        kind: As in `LayerName`.
    """

    layer: int
    kind: Hashable
