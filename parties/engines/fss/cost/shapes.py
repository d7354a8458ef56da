"""The public shapes of a model and of a cache, before anything is loaded or run."""

from dataclasses import replace

import torch
from torch import Tensor

from parties.decoding.cache import Cache, LayerCache
from parties.decoding.decoder import Decoder
from parties.decoding.program import Program, run
from parties.engines.base import Engine, Shapes
from parties.engines.fss.cost.meta_tensors import MetaTensors, meta_tensor
from parties.engines.plain import PlainEngine
from parties.heads.folding import fold_head, shapes_of
from parties.heads.format import read_head
from parties.metering.meter import StageMeter
from parties.models.folding import folded_shapes
from parties.models.spec import ModelSpec
from parties.policies.base import Policy


class _ShapesEngine(PlainEngine):
    """The plain engine on meta tensors: nothing takes memory, so attention is one step for the whole prompt."""

    number_bytes = 0

    @staticmethod
    def causal_mask(first: int, n: int, window: int = 0) -> Tensor:  # noqa: ARG004 - the shape is the same
        """The mask's shape."""
        return meta_tensor((n - first, n), torch.bool)

    def attend(self, q: Tensor, layer: LayerCache, mask: Tensor | None = None, *, window: int = 0) -> Program[Tensor]:
        """Attention of all queries at once."""
        return Engine.attend(self, q, layer, mask, window=window)


def installed_shapes(spec: ModelSpec, policy: Policy) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what an engine installs, the policy's trained heads included.

    Raises:
        HeadError: The policy's file of heads cannot be read.
    """
    if policy.trained is None:
        return folded_shapes(spec)
    head = read_head(getattr(policy, "head", ""), policy.trained)
    with MetaTensors():
        head = replace(head, tensors=_meta(head.shapes(spec)))
        folded = fold_head(head, spec, _meta(spec.shapes()))
    return folded_shapes(spec) | shapes_of(folded)


def prefilled(spec: ModelSpec, policy: Policy, tokens: int) -> Cache:
    """The cache as the policy leaves it after a prompt that is run in the clear, of meta tensors.

    Raises:
        HeadError: As `installed_shapes`.
    """
    weights = _meta(installed_shapes(spec, policy))
    engine, cache = _ShapesEngine(StageMeter(), device="meta"), Cache.empty(spec.n_layers)
    with MetaTensors():
        run(engine.install({}, weights))
        decoder = Decoder(engine, spec, policy)
        run(decoder.prefill(run(decoder.embed([0] * tokens, tokens, 0)), cache))
    return cache


def _meta(shapes: Shapes) -> dict[str, Tensor]:
    return {name: meta_tensor(shape, torch.float64) for name, shape in shapes.items()}
