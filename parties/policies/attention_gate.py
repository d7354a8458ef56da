"""Attention-Gate (arXiv 2410.12876): a small trained attention over the whole prompt decides which tokens are kept."""

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
    """Keeps, by key head, the tokens that a trained gate passes.

    The gate is a separate attention over the layer's normalised input, with one narrow head per key head; its output is
    mapped to a logit per token and key head. `form: budget` keeps a public number of the highest logits. `form:
    threshold` keeps tokens with sigmoid(logit) >= `threshold` as published, at most that number, and pads them with
    masked rows, so that the number of passed tokens stays secret.

    Attributes:
        compression_ratio: Share of the prompt's tokens that is removed, in [0, 1); 0 keeps everything.
        mode: What happens to evicted rows, `compact` or `mask`.
        head: The trained gates: a model's name, such as `smollm2-135m`, if gates for it come with the project, or the
            path of a safetensors file on the server's host.
        form: `budget` keeps a fixed number of tokens, `threshold` those that the gate passes, padded to that number.
        threshold: Least value of a gate that passes a token, between 0 and 1.
    """

    name: ClassVar[str] = "attention_gate"
    trained: ClassVar[Literal["locret", "attention_gate"]] = "attention_gate"
    per_token: ClassVar[tuple[str, ...]] = ("logit",)
    keeps: ClassVar[str] = "by key head, the prompt's tokens that a trained gate rates highest, or passes"
    prefill_cost: ClassVar[str] = (
        "G n^2 exponentials of the gate's attention; one selection of B among n by key head, which moves 2 G n rows; "
        "G B more comparisons for `form: threshold`"
    )
    step_cost: ClassVar[str] = "none; H T products for masked rows with `form: threshold`"
    training: ClassVar[str] = (
        "the gates, with the model's weights fixed: the language-model loss and a loss on the mean of the gates; gates "
        "for `smollm2-135m` come with the project, `mpcache-bench train attention_gate` trains others"
    )
    experimental: ClassVar[str] = (
        "its gates recall less held-out attention than the sinks and the window of `streaming_llm` "
        "(docs/design/0013-trained-heads.md), "
        "and it is worse on text, too (docs/design/0014-policies-on-text.md)"
    )
    source: ClassVar[str] = (
        "Zeng et al., arXiv 2410.12876, no released code. Logits by key head, not by query head; tokens are evicted at "
        "the end of the prompt, which itself attends to all; the paper evicts before the layer's attention"
    )

    head: str = ""
    form: Literal["budget", "threshold"] = "budget"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A parameter is outside its range; the message names it, its value and the allowed values.
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
        """Computes the gate's queries, keys and values of a chunk."""
        here = cache.layers[layer]
        if self.compression_ratio:
            rows = yield from staged(engine.meter, "evict", engine.linear(normal, f"layers.{layer}.head_in"))
            known = here.state.get("gate")
            here.state["gate"] = rows if known is None else engine.cat([known, rows], dim=0)

    def after_prefill(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:  # noqa: ARG002
        """Evicts by the gate's logits."""
        if self.compression_ratio:
            yield from staged(engine.meter, "evict", self._decide(engine, cache.layers[layer], layer))

    def _decide(self, engine: "Engine", here: "LayerCache", layer: int) -> Program[None]:
        n, budget = here.tokens, self.budget(here.tokens)
        here.state["logit"] = engine.bounded((yield from self._logits(engine, here, layer)), LOGIT_LIMIT)
        yield from self.evict(engine, here, here.state["logit"], 0, budget, n - budget, LOGIT_LIMIT)
        logit = here.state.pop("logit")
        if self.form == "threshold":
            least = engine.constant(torch.tensor(math.log(self.threshold / (1 - self.threshold))))
            blocked = yield from engine.negative(engine.bounded(logit - least, 2 * LOGIT_LIMIT))
            passed = engine.constant(torch.ones(*logit.shape)) - blocked
            here.alive = passed if here.alive is None else (yield from engine.mul(here.alive, passed))

    def _logits(self, engine: "Engine", here: "LayerCache", layer: int) -> Program[Any]:
        """Computes the gate's logits, [kv_heads, n]."""
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
