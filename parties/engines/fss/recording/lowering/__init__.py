"""Instructions for operations and kernels; each module registers its own."""

from parties.engines.fss.recording.lowering import copies, elementwise, indexing, kernels, reductions
from parties.engines.fss.recording.lowering.registry import KERNELS, LOWERINGS

__all__ = ["KERNELS", "LOWERINGS", "copies", "elementwise", "indexing", "kernels", "reductions"]
