"""The plain engine with gates on cached tokens that gradients go through."""

import torch
from torch import Tensor

from parties.decoding.cache import LayerCache
from parties.decoding.program import Program
from parties.engines.plain import PlainEngine


class GatedEngine(PlainEngine):
    """Attention in which each cached token counts as much as its gate is open.

    Gates are in a layer's state under `gates`, [kv_heads, t], 0 or 1, for the first t tokens; those that follow are
    open. A closed gate takes a token's share of the attention away, and the others share the rest: exactly what its
    eviction does. The gradient of a closed gate is that of opening it as far as it goes: the token's share among those
    that are open and itself. The derivative at the closed gate has no bound where the open ones have nearly no share,
    as where a text's first token is closed, and a few such gates would drown all others.
    """

    def attend(self, q: Tensor, layer: LayerCache, mask: Tensor | None = None) -> Program[Tensor]:
        """Attention over everything cached, [heads, n, d] -> [heads, n, d]."""
        if (gates := layer.state.get("gates")) is None:
            mixed: Tensor = yield from super().attend(q, layer, mask)
            return mixed
        scores = yield from self.scores(q, layer.k)
        if mask is not None:
            scores = scores.masked_fill(~mask.to(scores.device), -torch.inf)
        heads, n, t = scores.shape
        kv_heads, gated = gates.shape
        grouped = scores.reshape(kv_heads, heads // kv_heads * n, t)
        follow = torch.ones(kv_heads, t - gated, dtype=gates.dtype, device=gates.device)
        shares = _shares(grouped, torch.cat([gates, follow], dim=1).unsqueeze(1))
        mixed = yield from self.weigh(shares.reshape(heads, n, t), layer.v)
        return mixed


def _shares(scores: Tensor, gates: Tensor) -> Tensor:
    """Attention weights behind gates [kv_heads, 1, t] from scores [kv_heads, rows, t]; 0 where a gate is closed."""
    closed = gates.detach() == 0
    left = scores.masked_fill(closed, -torch.inf)
    opened = (scores - left.logsumexp(-1, keepdim=True)).sigmoid().detach()
    passed = torch.where(closed, opened, left.softmax(-1)) * gates
    return passed / passed.sum(-1, keepdim=True)
