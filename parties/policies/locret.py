"""Locret (arXiv 2410.01805, TMLR 2025): a trained head rates each token by its own query, key and value."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from parties.decoding.program import Program, parallel, staged
from parties.policies.checks import OutOfRange, whole
from parties.policies.eviction import Eviction
from parties.policies.quantise import quantised

if TYPE_CHECKING:
    from parties.decoding.cache import Cache, LayerCache
    from parties.engines.base import Engine

SCORE_LIMIT = 64.0
QUANTISED_TOGETHER = 32


@dataclass(frozen=True)
class Locret(Eviction):
    """Keeps, by key head, the tokens that a small trained network rates highest, and the prompt's last tokens.

    A token's score is W2 silu(W1 [q; k; v]) of its layer, before positions. It depends on no other token, so the prompt
    may run in chunks. After each chunk the layer is evicted to the budget, and later chunks attend to the kept tokens;
    before the last chunk the `stabilizers` newest tokens are kept whatever their scores. The `n_local` last tokens of
    the prompt are always kept. Nothing is evicted while decoding.

    Attributes:
        compression_ratio: Share of the prompt's tokens that is removed, in [0, 1); 0 keeps everything.
        mode: What happens to evicted rows, `compact` or `mask`.
        head: The trained heads: a model's name, such as `smollm2-135m`, if heads for it come with the project, or the
            path of a safetensors file on the server's host.
        chunk_size: Number of prompt tokens per chunk; 0 runs the prompt in one chunk.
        stabilizers: Number of newest tokens that only the last chunk may evict.
        n_local: Number of last prompt tokens, which are always kept.
        nbits: Bits to which kept tokens are quantised after the prompt, in groups of 32 as in `kivi`; 0 for none.
    """

    name: ClassVar[str] = "locret"
    trained: ClassVar[Literal["locret", "attention_gate"]] = "locret"
    per_token: ClassVar[tuple[str, ...]] = ("score",)
    keeps: ClassVar[str] = "by key head, the prompt's tokens with the highest learned scores, and its last ones"
    prefill_cost: ClassVar[str] = (
        "one activation of the head's width per token; after each chunk one selection among the budget and a chunk by "
        "key head, which moves as many rows; no attention weights"
    )
    training: ClassVar[str] = (
        "the heads, with the model's weights fixed: a regression to the largest logit that answers give a key; heads "
        "for `smollm2-135m` come with the project, `mpcache-bench train locret` trains others"
    )
    experimental: ClassVar[str] = (
        "its heads recall held-out attention best (docs/design/0013-trained-heads.md), and yet it finds no needle and "
        "loses more KL than `snapkv` at 4,096 tokens (docs/design/0014-policies-on-text.md): they were trained on "
        "windows of 640 tokens of plain text"
    )
    source: ClassVar[str] = (
        "Huang et al., arXiv 2410.01805; huangyuxiang03/Locret, whose budgets are numbers of tokens (chunks of 1024, "
        "2500 stabilizers, 100 local). Keys keep the positions they were cached with; the code renumbers kept tokens"
    )

    head: str = ""
    chunk_size: int = 0
    stabilizers: int = 64
    n_local: int = 32
    nbits: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A parameter is outside its range; the message names it, its value and the allowed values.
        """
        super().__post_init__()
        for name in ("chunk_size", "stabilizers", "n_local", "nbits"):
            whole(name, getattr(self, name), 0)
        if self.nbits > 8:
            raise OutOfRange("nbits", self.nbits, "at most 8: each number is compared with 2^nbits levels")
        if self.nbits and self.mode == "mask":
            allowed = "0, or in mode compact: masked rows would share scales with kept ones"
            raise OutOfRange("nbits", self.nbits, allowed)

    @property
    def chunk(self) -> int | None:
        """The chunk's length, since it determines what later chunks attend to."""
        return self.chunk_size or None

    def on_projection(
        self,
        engine: "Engine",
        cache: "Cache",
        layer: int,
        normal: Any,  # noqa: ARG002
        qkv: Any,
    ) -> Program[None]:
        """Rates the chunk's tokens: [kv_heads, tokens]."""
        if not self.compression_ratio:
            return
        here = cache.layers[layer]
        inner = yield from staged(engine.meter, "evict", engine.linear(qkv, f"layers.{layer}.head_in"))
        active = yield from staged(engine.meter, "evict", engine.activation(inner, "silu"))
        rated = yield from staged(engine.meter, "evict", engine.linear(active, f"layers.{layer}.head_out"))
        score, known = engine.bounded(rated.transpose(0, 1), SCORE_LIMIT), here.state.get("score")
        here.state["score"] = score if known is None else engine.cat([known, score], dim=1)

    def after_chunk(self, engine: "Engine", cache: "Cache", layer: int, position: int) -> Program[None]:
        """Evicts to the budget."""
        here = cache.layers[layer]
        prompt = sum(rows.shape[0] for rows in here.rows)
        if not self.compression_ratio or (not self.chunk_size and position < prompt):
            return
        budget, size = self.budget(prompt), self.chunk_size or prompt
        before = (position - 1) // size * size
        going = min(before, budget) + position - before - budget
        local = self.n_local - (prompt - position)
        spared = min(budget, local if position == prompt else max(self.stabilizers, local))
        candidates = here.state["score"][:, : here.tokens - spared]
        yield from staged(engine.meter, "evict", self.evict(engine, here, candidates, 0, budget, going, SCORE_LIMIT))

    def after_prefill(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:  # noqa: ARG002
        """Drops the scores, and quantises the kept tokens."""
        here = cache.layers[layer]
        here.state.pop("score", None)
        if self.nbits:
            yield from staged(engine.meter, "evict", self._quantise(engine, here))

    def _quantise(self, engine: "Engine", here: "LayerCache") -> Program[None]:
        """Quantises keys per channel and values per token."""
        k, v = yield from parallel(
            quantised(engine, here.k.transpose(1, 2), self.nbits, QUANTISED_TOGETHER),
            quantised(engine, here.v, self.nbits, QUANTISED_TOGETHER),
        )
        here.k, here.v = k.transpose(1, 2), v
