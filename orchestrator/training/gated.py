"""The plain engine with differentiable gates on cached tokens."""

import torch
from torch import Tensor

from parties.decoding.cache import LayerCache
from parties.decoding.program import Program
from parties.engines.plain import PlainEngine


class GatedEngine(PlainEngine):
    """Attention in which a gate weights each cached token.

    Gates are in a layer's state under `gates`, [kv_heads, t], 0 or 1, for the first t tokens; later tokens are open.
    A closed gate removes a token's share of the attention, which the other tokens divide among them, exactly as an
    eviction does. The gradient of a closed gate is the effect of opening it fully: the token's share among itself and
    the open tokens. The true derivative at a closed gate is unbounded where the open tokens have almost no share, for
    example if the first token of a text is closed, and a few such gates would dominate all others.
    """

    def attend(self, q: Tensor, layer: LayerCache, mask: Tensor | None = None, *, window: int = 0) -> Program[Tensor]:
        """Attention over everything cached, [heads, n, d] -> [heads, n, d]."""
        if (gates := layer.state.get("gates")) is None:
            mixed: Tensor = yield from super().attend(q, layer, mask, window=window)
            return mixed
        scores = yield from self.attention_scores(q, layer.k)
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
