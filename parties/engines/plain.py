"""The `plain` engine: float tensors in one process, without security; the reference for private runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from parties.decoding.cache import LayerCache
from parties.decoding.program import Program, eager, staged
from parties.engines.base import Engine, Shapes
from parties.metering.meter import StageMeter

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
}
QUERIES = 64
"""Number of queries whose attention is computed at once, so that their scores stay in the processor's cache."""
FUSED_QUERIES = 256
"""The same where torch's fused attention keeps the scores of a few queries only; smaller blocks cost more calls."""


@dataclass(frozen=True)
class Selected:
    """Indices of the selected blocks of each head, [heads, k]."""

    index: Tensor


class PlainEngine(Engine):
    """Reference arithmetic in `dtype` on `device`.

    Attributes:
        fused: Type of fused attention; `dtype` if None.
    """

    name = "plain"
    trust_model = "none: one process sees the prompt, the weights and everything computed from them"
    devices = ("cpu", "cuda")
    tolerance = 1e-3
    fused: torch.dtype | None = None
    masked_score = -1e4  # far below any score, and small enough that sums with a score keep its digits

    def __init__(self, meter: StageMeter, dtype: torch.dtype = torch.float64, device: str = "cpu") -> None:
        super().__init__(meter)
        self.dtype, self.device = dtype, device
        self._parameters: dict[str, Tensor] = {}

    @eager
    def install(self, shapes: Shapes, weights: Mapping[str, Tensor] | None) -> None:  # noqa: ARG002
        """Keeps the weights in the engine's dtype; on a GPU, whose memory is scarce, as they are, float32."""
        kept = self.dtype if self.device == "cpu" else None
        self._parameters = {name: w.to(self.device, kept) for name, w in (weights or {}).items()}

    def public(self, tensor: Tensor) -> Tensor:
        """The tensor in the engine's dtype, on its device."""
        return tensor.to(self.device, self.dtype)

    def constant(self, tensor: Tensor) -> Tensor:
        """The tensor in the engine's dtype, on its device."""
        return self.public(tensor)

    def adopt(self, share: Tensor) -> Tensor:
        """The tensor itself."""
        return share

    def export(self, value: Tensor) -> Tensor:
        """The tensor itself."""
        return value

    @classmethod
    def split(cls, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """The client's part is zero: nothing is hidden."""
        return torch.zeros_like(tensor), tensor

    @classmethod
    def combine(cls, parts: tuple[Tensor, Tensor]) -> Tensor:
        """The sum."""
        return (parts[0] + parts[1]).double()

    @eager
    def embed(self, tokens: Sequence[int] | None, count: int) -> Tensor:  # noqa: ARG002 - one process owns the tokens
        """Rows of the embedding."""
        return self._parameters["embed"][list(tokens or ())].to(self.dtype)

    @eager
    def argmax(self, logits: Tensor) -> list[int]:
        """Index of the largest logit of each row."""
        largest: list[int] = logits.argmax(1).tolist()
        return largest

    @eager
    def reveal(self, value: Tensor) -> Tensor:
        """The tensor itself."""
        return value

    def announce(self, number: int | None, most: int) -> int:
        """The number itself: there is one party."""
        assert number is not None  # noqa: S101 - one process is the client, too
        assert number <= most  # noqa: S101
        return number

    @eager
    def linear(self, x: Tensor, name: str, columns: int | None = None) -> Tensor:
        """Computes x @ W + b."""
        y = x @ self._parameters[name][:, :columns].to(self.dtype)
        bias = self._parameters.get(f"{name}.bias")
        return y if bias is None else y + bias[:columns].to(self.dtype)

    def parameter(self, name: str) -> Tensor:
        """An installed tensor."""
        return self._parameters[name].to(self.dtype)

    @eager
    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        """Elementwise product."""
        return x * y

    @eager
    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        """Batched matrix product."""
        return x @ y

    def to_norm(self, x: Tensor, *, centre: bool) -> Tensor:
        """Rows, less their mean if `centre`."""
        return x - x.mean(-1, keepdim=True) if centre else x

    @eager
    def normalise(self, rows: Tensor, eps: float) -> Tensor:
        """RMS norm, without gain and bias."""
        return rows * torch.rsqrt(rows.square().mean(-1, keepdim=True) + eps)

    @eager
    def activation(self, x: Tensor, kind: str) -> Tensor:
        """The model's non-linearity."""
        return ACTIVATIONS[kind](x)

    @eager
    def soft_cap(self, x: Tensor, cap: float) -> Tensor:
        """The tanh."""
        return cap * torch.tanh(x / cap)

    @eager
    def softmax(self, scores: Tensor, mask: Tensor | None = None) -> Tensor:
        """Softmax over the last axis."""
        if mask is not None:
            scores = scores.masked_fill(~mask.to(scores.device), -torch.inf)
        return scores.softmax(-1)

    def attend(self, q: Tensor, layer: LayerCache, mask: Tensor | None = None, *, window: int = 0) -> Program[Tensor]:
        """Attention in blocks of queries; keys that no query of a block may see are not scored."""
        n = q.shape[1]
        if mask is None or n <= QUERIES:
            whole: Tensor = yield from super().attend(q, layer, mask, window=window)
            return whole
        fused = self._fuses(layer)
        attend = self._fused if fused else super().attend
        mixed = []
        for rows in torch.arange(n).tensor_split(-(-n // (FUSED_QUERIES if fused else QUERIES))):
            block = slice(int(rows[0]), int(rows[-1]) + 1)
            end = int(mask[block].any(0).nonzero()[-1]) + 1
            alive = None if layer.alive is None else layer.alive[:, :end]
            visible = LayerCache(layer.k[:, :end], layer.v[:, :end], alive)
            mixed.append((yield from attend(q[:, block], visible, mask[block, :end])))
        return torch.cat(mixed, dim=1)

    def causal_weights(self, q: Tensor, k: Tensor, first: int) -> Program[Tensor]:
        """Attention weights in blocks of queries; keys that no query of a block may see are not scored."""
        weights = q.new_zeros(q.shape[0], q.shape[1], k.shape[1])
        for start in range(0, q.shape[1], QUERIES):
            block = q[:, start : start + QUERIES]
            end = first + start + block.shape[1]
            part = yield from super().causal_weights(block, k[:, :end], first + start)
            weights[:, start : start + QUERIES, :end] = part
        return weights

    def _fuses(self, layer: LayerCache) -> bool:
        """Whether nothing between scores and result is needed: no cap, no evicted rows."""
        return not self.score_cap and layer.alive is None

    def _fused(self, q: Tensor, layer: LayerCache, mask: Tensor) -> Program[Tensor]:
        """Torch's attention, whose scores are never in memory at once (FlashAttention, Dao et al., NeurIPS 2022)."""
        return staged(self.meter, "attend", self._scaled_dot_product(q, layer.k, layer.v, mask))

    @eager
    def _scaled_dot_product(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (part[None].to(self.fused or q.dtype) for part in (q, k, v))
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask.to(q.device), scale=1.0, enable_gqa=True
        )
        return mixed[0].to(q.dtype)

    @eager
    def maximum(self, x: Tensor, y: Tensor) -> Tensor:
        """Elementwise maximum."""
        return torch.maximum(x, y)

    @eager
    def negative(self, x: Tensor) -> Tensor:
        """1 where x < 0, else 0."""
        return (x < 0).to(x.dtype)

    @eager
    def inverse_root(self, x: Tensor) -> Tensor:
        """1 / sqrt(x)."""
        return x.rsqrt()

    def cat(self, values: Sequence[Tensor], dim: int) -> Tensor:
        """Concatenation."""
        return torch.cat(list(values), dim)

    @eager
    def keep_top(self, scores: Tensor, count: int) -> Tensor:
        """Indices of the highest scores, ascending."""
        return scores.sort(descending=True, stable=True).indices[..., :count].sort().values

    @eager
    def compact(self, kept: Tensor, rows: Sequence[Tensor]) -> list[Tensor]:
        """The kept rows."""
        if kept.dim() == 1 or kept.shape[0] == 1:
            return [row[:, kept.reshape(-1)] for row in rows]
        heads = torch.arange(kept.shape[0], device=kept.device).unsqueeze(1)
        return [row[heads, kept] for row in rows]

    @eager
    def flags(self, kept: Tensor, n: int) -> Tensor:
        """The sum of the one-hot rows of the indices."""
        index = kept.reshape(-1, kept.shape[-1])
        return torch.zeros(len(index), n, dtype=self.dtype, device=kept.device).scatter(1, index, 1.0)

    @eager
    def top_clusters(
        self,
        coarse: Tensor,
        fine: Tensor,
        parents: Sequence[int | None],
        k_coarse: int,
        k_fine: int,
        *,
        fraction_bits: int = 16,  # noqa: ARG002 - nothing takes rounds here
        spare_rounds: bool = False,  # noqa: ARG002 - nothing takes rounds here
    ) -> Selected:
        """The top fine candidates among those whose parent is selected or that have none."""
        alive = torch.zeros_like(coarse, dtype=torch.bool)
        alive.scatter_(1, coarse.sort(dim=1, descending=True, stable=True).indices[:, :k_coarse], True)
        orphan = [parent is None for parent in parents]
        by_child = torch.tensor([parent or 0 for parent in parents], device=fine.device)
        competes = torch.tensor(orphan, device=fine.device).expand_as(fine)
        if coarse.shape[1]:
            competes = competes | (alive[:, by_child] & ~competes)
        ranked = fine.masked_fill(~competes, -torch.inf).sort(dim=1, descending=True, stable=True)
        return Selected(ranked.indices[:, :k_fine])

    @eager
    def pick(self, selected: Selected, blocks: Tensor) -> Tensor:
        """The selected blocks of each head."""
        heads = selected.index.shape[0]
        group = torch.arange(heads, device=blocks.device) // (heads // blocks.shape[0])
        return blocks[group.unsqueeze(1), selected.index]
