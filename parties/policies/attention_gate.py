"""Attention-Gate (arXiv 2410.12876): a small trained attention over the whole prompt says who stays."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from parties.decoding.program import Program, staged
from parties.policies.checks import number, one_of
from parties.policies.eviction import Eviction
from parties.policies.prompt_scores import ROWS

if TYPE_CHECKING:
    from parties.decoding.cache import Cache, LayerCache
    from parties.engines.base import Engine

LOGIT_LIMIT = 64.0


@dataclass(frozen=True)
class AttentionGate(Eviction):
    """Keeps, by key head, the tokens that a trained gate lets through.

    The gate is an attention of its own, with one narrow head for each key head, over the layer's normalised input; its
    output becomes a logit for each token and key head. `form: budget` keeps the highest of a public number. `form:
    threshold` keeps those with sigmoid(logit) >= `threshold` as published, at most that number, and fills up to it with
    rows that count for nothing: how many passed stays secret.

    Attributes:
        compression_ratio: share of the prompt's tokens that is removed, in [0, 1); 0 keeps everything.
        mode: what becomes of evicted rows, `compact` or `mask`.
        head: the trained gates: a model's name, such as `smollm2-135m`, where some come with the project, or the path
            of a safetensors file on the server's host.
        form: `budget` keeps a fixed number, `threshold` what the gate opens for, padded to a fixed number.
        threshold: least value of a gate that lets a token through, between 0 and 1.
    """

    name: ClassVar[str] = "attention_gate"
    trained: ClassVar[Literal["locret", "attention_gate"]] = "attention_gate"
    per_token: ClassVar[tuple[str, ...]] = ("logit",)
    keeps: ClassVar[str] = "by key head, the prompt's tokens that a trained gate rates highest, or lets through"
    prefill_cost: ClassVar[str] = (
        "G n^2 exponentials of the gate's attention; one selection of B among n by key head, which moves 2 G n rows; "
        "G B comparisons more for `form: threshold`"
    )
    step_cost: ClassVar[str] = "none; H T products for rows that do not count with `form: threshold`"
    training: ClassVar[str] = (
        "the gates, on frozen weights: the language-model loss and a loss on the mean of the gates; gates for "
        "`smollm2-135m` come with the project, `mpcache-bench train attention_gate` makes others"
    )
    experimental: ClassVar[str] = (
        "its gates recall less held-out attention than the sinks and the window of `streaming_llm` "
        "(docs/design/0013-trained-heads.md), "
        "and it is worse on text, too (docs/design/0014-policies-on-text.md)"
    )
    source: ClassVar[str] = (
        "Zeng et al., arXiv 2410.12876, no released code. Logits by key head, not by query head; tokens leave at the "
        "end of the prompt, which itself attends to all, where the paper evicts before the layer's attention"
    )

    head: str = ""
    form: Literal["budget", "threshold"] = "budget"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: names the parameter, its value and what is allowed.
        """
        super().__post_init__()
        one_of("form", self.form, ("budget", "threshold"))
        number("threshold", self.threshold, 1e-6, 1 - 1e-6)

    def on_projection(
        self,
        engine: "Engine",
        cache: "Cache",
        layer: int,
        normal: Any,
        qkv: Any,  # noqa: ARG002
    ) -> Program[None]:
        """The gate's queries, keys and values of a chunk."""
        here = cache.layers[layer]
        if self.compression_ratio:
            rows = yield from staged(engine.meter, "evict", engine.linear(normal, f"layers.{layer}.head_in"))
            known = here.state.get("gate")
            here.state["gate"] = rows if known is None else engine.cat([known, rows], dim=0)

    def after_prefill(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:  # noqa: ARG002
        """Lets the gate decide."""
        if self.compression_ratio:
            yield from staged(engine.meter, "evict", self._decide(engine, cache.layers[layer], layer))

    def _decide(self, engine: "Engine", here: "LayerCache", layer: int) -> Program[None]:
        n, budget = here.tokens, self.budget(here.tokens)
        here.state["logit"] = engine.bounded((yield from self._logits(engine, here, layer)), LOGIT_LIMIT)
        yield from self.evict(engine, here, here.state["logit"], 0, budget, n - budget, LOGIT_LIMIT)
        logit = here.state.pop("logit")
        if self.form == "threshold":
            least = engine.constant(torch.tensor(math.log(self.threshold / (1 - self.threshold))))
            shut = yield from engine.negative(engine.bounded(logit - least, 2 * LOGIT_LIMIT))
            passed = engine.constant(torch.ones(*logit.shape)) - shut
            here.alive = passed if here.alive is None else (yield from engine.mul(here.alive, passed))

    def _logits(self, engine: "Engine", here: "LayerCache", layer: int) -> Program[Any]:
        """[kv_heads, n]."""
        rows, kv_heads, n = here.state.pop("gate"), here.k.shape[0], here.tokens
        heads = rows.reshape(n, 3 * kv_heads, rows.shape[1] // (3 * kv_heads)).transpose(0, 1)
        q, k, v = (heads[part * kv_heads : (part + 1) * kv_heads] for part in range(3))
        mixed = []
        for start in range(0, n, ROWS):
            scores = yield from engine.scores(q[:, start : start + ROWS], k)
            weights = yield from engine.softmax(scores)
            mixed.append((yield from engine.weigh(weights, v)))
        joined = engine.cat(mixed, dim=1).transpose(0, 1).reshape(n, rows.shape[1] // 3)
        logits = yield from engine.linear(joined, f"layers.{layer}.head_out")
        return logits.transpose(0, 1)
