"""Runs a model in the clear over texts and measures every number that has a declared range, by layer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import run
from parties.decoding.steps import decode_token
from parties.engines.bounds import Bound, Watch
from parties.engines.watched import WatchedEngine
from parties.errors import PromptError
from parties.metering.meter import StageMeter
from parties.models import load_spec, load_tokenizer, load_weights
from parties.models.folding import Folded, folded_shapes
from parties.policies.base import Policy

POWERS = 40
"""Bounds up to 2^39 are considered."""


@dataclass
class Range:
    """The values of one number in one layer.

    Attributes:
        least, largest: The extremes.
        count: Number of values.
        beyond: For each power of two 2^k, the sum of what exceeds it: |x| - 2^k where that is positive, float64.
    """

    least: float
    largest: float
    count: int
    beyond: Tensor

    @property
    def magnitude(self) -> float:
        """Largest absolute value."""
        return max(-self.least, self.largest)

    def __add__(self, other: "Range") -> "Range":
        ends = min(self.least, other.least), max(self.largest, other.largest)
        return Range(*ends, self.count + other.count, self.beyond + other.beyond)


@dataclass
class Measured(Watch):
    """A watch that keeps the range of every number by layer instead of comparing it with a bound.

    Attributes:
        ranges: Ranges by key and layer; the layer is None outside the layers.
        tokens: Tokens that were run, of all texts together.
        policy: The first number beyond the range that the policy declares for it, in words; empty if there is none.
    """

    ranges: dict[tuple[str, int | None], Range] = field(default_factory=dict)
    tokens: int = 0
    policy: str = ""

    def see(self, key: str, values: Tensor, layer: int | None, limit: float | None = None) -> None:
        """Adds values to the range of their number."""
        if key not in self.bounds or not values.numel():
            return
        if limit is not None and not self.policy:
            own = Watch(self.bounds, self.token)
            own.see(key, values, layer, limit)
            self.policy = "".join(map(str, own.first.values()))
        least, largest = (float(end) for end in values.aminmax())
        found = Range(least, largest, values.numel(), _beyond(values))
        known = self.ranges.get((key, layer))
        self.ranges[key, layer] = found if known is None else known + found

    def together(self, key: str) -> Range | None:
        """The range of a number over all layers; None if it was not seen."""
        found = [each for (name, _), each in self.ranges.items() if name == key]
        return sum(found[1:], start=found[0]) if found else None

    def layer_of(self, key: str) -> int | None:
        """The layer with the largest absolute value of a number."""
        found = {layer: each.magnitude for (name, layer), each in self.ranges.items() if name == key}
        return max(found, key=lambda layer: found[layer])


def _beyond(values: Tensor) -> Tensor:
    sums, sizes = torch.zeros(POWERS, dtype=torch.float64), values.abs().double()
    for power in range(POWERS):
        sizes = sizes[sizes > 2.0**power]
        if not sizes.numel():
            break
        sums[power] = (sizes - 2.0**power).sum()
    return sums


def measure(
    model: str,
    texts: Sequence[Path],
    policy: Policy,
    bounds: Mapping[str, Bound],
    *,
    tokens: int,
    new: int,
    progress: Callable[[str], None] = lambda _: None,
) -> Measured:
    """Runs each text and decodes a few tokens greedily, all in the clear, in float32.

    Args:
        model: The model, as in an experiment file.
        texts: UTF-8 files; the first `tokens` tokens of each are the prompt.
        policy: The cache policy, whose own numbers are measured too.
        bounds: The numbers to measure, by the keys of `parties.engines.watched`.
        tokens: Most tokens of a prompt.
        new: Tokens to decode after each prompt.
        progress: Called with the name of each text before it is run.

    Raises:
        ModelError: The model cannot be loaded.
        PromptError: A text cannot be read, or has fewer than two tokens.
    """
    spec, tokenizer, engine = load_spec(model), load_tokenizer(model), WatchedEngine(StageMeter(), torch.float32)
    prompts = [_tokens(text, tokenizer.encode, min(tokens, spec.max_positions - new)) for text in texts]
    run(engine.install(folded_shapes(spec), Folded(spec, load_weights(model))))
    engine.watch = watch = Measured(bounds)
    for text, (*prompt, token) in zip(texts, prompts, strict=True):
        progress(str(text))
        decoder, cache = Decoder(engine, spec, policy), Cache.empty(spec.n_layers)
        watch.token = 0
        run(decoder.prefill(run(decoder.embed(prompt, len(prompt), 0)), cache))
        for index in range(new):
            watch.token = index + 1
            (token,) = run(decode_token(decoder, cache, [token], "private"))[1] or [0]
        watch.tokens += len(prompt) + new
    return watch


def _tokens(text: Path, encode: Callable[[str], list[int]], most: int) -> list[int]:
    try:
        found = encode(text.read_text(encoding="utf-8"))[:most]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise PromptError(f"--text {text}: cannot be read: {reason}; name a UTF-8 text") from None
    if len(found) < 2:
        raise PromptError(f"--text {text}: has {len(found)} tokens; name a text of at least 2, better some hundred")
    return found
