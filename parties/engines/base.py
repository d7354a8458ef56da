"""The contract between a secure computation and what is computed on it.

The decoder and every policy are written once against `Engine`. What it computes with is in
`parties.engines.operations`; here is how it lives through a run, how values come in and go out, and what is composed of
its operations.

All parties of a run execute the same programs in the same order. Control flow depends on public numbers alone.
"""

from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch

from parties.decoding.batch import AnyCaches, Caches
from parties.decoding.cache import LayerCache
from parties.decoding.clusters import Selection
from parties.decoding.program import Openings, Program, parallel, run, staged
from parties.decoding.workload import Workload
from parties.engines.bounds import Bound
from parties.engines.operations import MatrixProduct, Operations
from parties.metering.meter import StageMeter
from parties.options import RunOptions

T = TypeVar("T")
Shapes = Mapping[str, tuple[int, ...]]


class Engine(Operations):
    """One party's side of a secure computation.

    Attributes:
        name: Key in `parties.engines.ENGINES`.
        trust_model: Who must not collude with whom, for the record and the report.
        devices: Devices that it supports, `cpu` and maybe `cuda`.
        tolerance: Largest absolute error of a logit, against the `plain` engine, that still counts as correct.
        bounds: Ranges of the numbers that it supports, by the keys of `parties.engines.watched`; empty if it takes any.
        scores_early: Whether a token's scores may be computed with its projection: `scored_projection`.
        number_bytes: Memory that a function of one number takes while it is computed; bounds the chunks of a prompt. 0
            on shapes alone.
        meter: The party's stage meter.
        exchange: Opens what programs yield; None if they never do.
        score_cap: Cap of attention scores in the model that is decoded; 0: none.
    """

    name: ClassVar[str]
    trust_model: ClassVar[str]
    devices: ClassVar[tuple[str, ...]]
    tolerance: ClassVar[float]
    bounds: ClassVar[Mapping[str, Bound]] = {}
    verifies: ClassVar[bool] = True
    number_bytes: ClassVar[int] = 512
    scores_early: ClassVar[bool] = False

    def __init__(self, meter: StageMeter) -> None:
        self.meter = meter
        self.exchange: Callable[[Openings], Openings] | None = None
        self.score_cap = 0.0

    @classmethod
    def require(cls) -> None:
        """Called before a cell's model is loaded, where the party runs.

        Raises:
            Unsupported: This host lacks a part of the engine.
        """

    @classmethod
    def declared(cls, options: RunOptions) -> Mapping[str, Bound]:  # noqa: ARG003 - for engines whose bounds may change
        """The bounds that hold in a cell with these options."""
        return cls.bounds

    def prepare(self, workload: Workload, caches: AnyCaches) -> AnyCaches:  # noqa: ARG002
        """Called before a cell's first program: the adopted caches in the form that the engine decodes from.

        Args:
            workload: The programs that will be run, by their public values, and how.
            caches: The prefilled caches, of adopted values; empty if prompts are run.

        Raises:
            Unsupported: The engine does not take a sequence so long, or a model so wide.
        """
        return caches

    def run_segment(self, program: Callable[[], Program[T]], caches: Caches, name: Hashable = None) -> T:  # noqa: ARG002
        """Runs a segment of a cell; an engine may run it again, with the caches as they were before.

        Args:
            program: The segment.
            caches: What it reads and changes.
            name: Segments of the same name do the same on values of the same shapes; None if nothing is known.
        """
        return run(program(), self.exchange)

    def rehearse(self, segments: Sequence[Callable[[], Program[Any]]], caches: Caches) -> None:
        """Called before the first token: does what the tokens' segments need only once.

        Args:
            segments: Those of the first token, in order; see `run_segment`.
            caches: What they will read and change; they stay as they are.
        """

    def prefilled(self) -> None:
        """Called between the last segment of a prompt and the first token, which the dealer accounts for separately.

        This party has accounted for the prompt before: from here on, the dealer may send what belongs to the tokens.
        """

    @property
    def replayed_segments(self) -> int:
        """Segments of this cell's tokens that were replayed from a recording."""
        return 0

    @property
    def interpreted_segments(self) -> Mapping[str, int]:
        """The other segments of an engine that records, by the reason."""
        return {}

    def finish(self) -> None:
        """Called once a run needs no more correlated randomness."""

    # -- values in and out ---------------------------------------------------------------------------------------------

    @abstractmethod
    def install(self, shapes: Shapes, weights: Mapping[str, torch.Tensor] | None) -> Program[None]:
        """Takes in the model: `shapes` is public, `weights` (float32, same names) is the server's, None elsewhere."""

    @abstractmethod
    def public(self, tensor: torch.Tensor) -> torch.Tensor:
        """A public tensor on the device and in the format of the factors of the engine's values."""

    def varying(self, numbers: Callable[[int], torch.Tensor], limit: float) -> Any:  # noqa: ARG002
        """Public factors that change from token to token and keep their shape.

        Args:
            numbers: The factors of the token so many steps after the current one, 0 for the current one, float64.
            limit: All |factors| are at most so large, at every token.
        """
        return self.public(numbers(0))

    @abstractmethod
    def adopt(self, share: torch.Tensor) -> Any:
        """A value from this party's part of what `split` made."""

    @abstractmethod
    def export(self, value: Any) -> torch.Tensor:
        """This party's part of a value, for `combine`."""

    @classmethod
    @abstractmethod
    def split(cls, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cuts a float tensor into a part for the client and one for the server; each alone is uniformly random."""

    @classmethod
    @abstractmethod
    def combine(cls, parts: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """The inverse of `split`, as float64."""

    @abstractmethod
    def embed(self, tokens: Sequence[int] | None, count: int) -> Program[Any]:
        """Rows of the parameter `embed`, [count, hidden].

        Args:
            tokens: The client's tokens; None elsewhere. A recorded step reads the sequence again at each token.
            count: Their number, public.
        """

    @abstractmethod
    def argmax(self, logits: Any) -> Program[Any]:
        """Index of the largest of each row of `logits` [n, vocab], for `open_index`."""

    def open_index(self, index: Any) -> list[int] | None:
        """Opens the result of `argmax` to the client; None elsewhere. By default, as in the clear, it is open."""
        return index  # type: ignore[no-any-return]

    @abstractmethod
    def reveal(self, value: Any) -> Program[torch.Tensor | None]:
        """The value as a float tensor, for the client; None at the server."""

    def announce(self, number: int | None, most: int) -> int:
        """Sends a public number from the client, which alone passes it, to all parties. Half a round.

        Args:
            number: The number, 1 to `most`.
            most: The largest number that the others accept.

        Raises:
            PartyError: The number that arrives is another one.
        """
        raise NotImplementedError(f"engine {self.name} announces nothing")

    # -- compositions that an engine may replace by something faster ------------------------------------------

    @staticmethod
    def causal_mask(first: int, n: int, window: int = 0) -> torch.Tensor:
        """The mask of n tokens for queries at positions first..n-1, True where a query may attend: [n - first, n].

        Args:
            first: Position of the first query.
            n: Number of tokens.
            window: Latest tokens that a query attends to, its own included; 0: all.
        """
        queries, keys = torch.arange(first, n).unsqueeze(1), torch.arange(n)
        seen = keys <= queries  # a byte per pair, and no difference of 8
        return seen & (keys > queries - window) if window else seen

    def normalised_linear(self, rows: Any, eps: float, *products: MatrixProduct) -> Program[list[Any]]:
        """Each `linear` of `normalise`; an engine may divide after the products.

        Args:
            rows: See `normalise`.
            eps: See `normalise`.
            products: The matrices.
        """
        normal = yield from staged(self.meter, "norm", self.normalise(rows, eps))
        linear = (staged(self.meter, p.stage, self.linear(normal, p.name, p.columns)) for p in products)
        return (yield from parallel(*linear))

    def scores(self, q: Any, k: Any) -> Program[Any]:
        """Q . k for grouped heads: [heads, n, d], [kv_heads, t, d] -> [heads, n, t]."""
        heads, n, d = q.shape
        grouped = q.reshape(k.shape[0], heads // k.shape[0] * n, d)
        product = yield from self.matmul(grouped, k.transpose(1, 2))
        return product.reshape(heads, n, k.shape[1])

    def attention_scores(self, q: Any, k: Any) -> Program[Any]:
        """The result of `scores`, capped if the model caps it."""
        scores = yield from self.scores(q, k)
        return (yield from self.soft_cap(scores, self.score_cap)) if self.score_cap else scores

    def weigh(self, weights: Any, v: Any) -> Program[Any]:
        """Weighted sum of values for grouped heads: [heads, n, t], [kv_heads, t, d] -> [heads, n, d]."""
        heads, n, t = weights.shape
        grouped = weights.reshape(v.shape[0], heads // v.shape[0] * n, t)
        product = yield from self.matmul(grouped, v)
        return product.reshape(heads, n, v.shape[2])

    def softmax_weigh(
        self, scores: Any, combine: Callable[[Any], Program[Any]], mask: torch.Tensor | None = None
    ) -> Program[Any]:
        """combine(softmax(scores)) for a linear `combine`; an engine may divide by the sum after combining."""
        weights = yield from staged(self.meter, "softmax", self.softmax(scores, mask))
        return (yield from staged(self.meter, "attend", combine(weights)))

    def attend(self, q: Any, layer: LayerCache, mask: torch.Tensor | None = None, *, window: int = 0) -> Program[Any]:
        """Attention over everything cached that is alive: [heads, n, d] -> [heads, n, d].

        Args:
            q: Queries.
            layer: Keys and values.
            mask: True where a query may attend, [n, tokens]; None: the queries are those of the latest tokens.
            window: Without a mask, latest tokens that a query attends to, its own included; 0: all.
        """
        mask = self._latest(q, layer, window) if mask is None else mask
        scores = yield from self._alive_scores(q, layer)
        return (yield from self.softmax_weigh(scores, lambda weights: self.weigh(weights, layer.v), mask))

    def _latest(self, q: Any, layer: LayerCache, window: int = 0) -> torch.Tensor | None:
        """The mask for queries of the latest tokens; None if they attend to all, as one does without a window."""
        n, tokens = q.shape[1], layer.tokens
        return self.causal_mask(tokens - n, tokens, window) if n > 1 or 0 < window < tokens else None

    def attend_observed(self, q: Any, layer: LayerCache, mask: torch.Tensor | None = None) -> Program[tuple[Any, Any]]:
        """The result of `attend`, and the attention weights, [heads, n, tokens and the layer's room]."""
        mask = self._latest(q, layer) if mask is None else mask
        scores = yield from self._alive_scores(q, layer)
        weights = yield from staged(self.meter, "softmax", self.softmax(scores, mask))
        mixed = yield from staged(self.meter, "attend", self.weigh(weights, layer.v))
        return mixed, weights

    def _alive_scores(self, q: Any, layer: LayerCache) -> Program[Any]:
        """Scores of a layer's keys; those of evicted rows that are still there count for nothing."""
        scores = yield from staged(self.meter, "scores", self.attention_scores(q, layer.k))
        if layer.alive is None:
            return scores
        heads, n, t = scores.shape
        groups, low = layer.alive.shape[0], self.constant(torch.tensor(self.masked_score))
        lifted = scores.reshape(groups, heads // groups * n, t) - low
        kept = yield from staged(self.meter, "scores", self.mul(lifted, layer.alive.reshape(groups, 1, t)))
        return (kept + low).reshape(heads, n, t)

    def scored_projection(
        self,
        rows: Any,
        eps: float,
        products: Sequence[MatrixProduct],
        turn: Callable[[Any], Any],
        layer: LayerCache,
        selection: Selection | None = None,
    ) -> Program[tuple[Any, Any, Any, list[Any]]]:
        """`normalised_linear` of a row of each lane and their attention scores, before keys and values join the layer.

        Only for engines that score early, and models whose queries and keys are products, without bias and norms.

        Args:
            rows: See `normalise`; one row of each sequence that the layer holds.
            eps: See `normalise`.
            products: Queries, keys and values of this layer; and others.
            turn: Gives queries and keys, [lanes * (heads + kv_heads), 1, head_dim], their positions; local.
            layer: The layer, with room for the token.
            selection: What the token will attend to; None: to all tokens.

        Returns:
            Keys, values, [lanes * kv_heads, 1, head_dim]; scores for `attend_scored`; and the other products.
        """
        raise NotImplementedError

    def attend_scored(
        self, scores: Any, layer: LayerCache, selection: Selection | None = None, *, window: int = 0
    ) -> Program[Any]:
        """`attend`, or `attend_selected`, with scores of `scored_projection`, once key and value have joined."""
        raise NotImplementedError

    def fetch(self, selection: Selection, layer: LayerCache) -> Program[tuple[Any, Any]]:
        """Keys and values of the selected clusters, at least one: [heads, count * size, d] each."""
        (a, b), d = selection.candidates, layer.k.shape[2]
        both = self.cat([layer.k[:, a:b], layer.v[:, a:b]], dim=2)
        blocks = both.reshape(both.shape[0], (b - a) // selection.size, selection.size * 2 * d)
        picked = yield from staged(self.meter, "gather", self.pick(selection.selected, blocks))
        rows = picked.reshape(picked.shape[0], selection.count * selection.size, 2 * d)
        return rows[:, :, :d], rows[:, :, d:]

    def attend_selected(self, q: Any, layer: LayerCache, selection: Selection) -> Program[Any]:
        """Attention over a selection, by fetching the chosen rows (MPCache's Pi_Gather): [heads, n, d].

        Args:
            q: Queries of the latest n tokens.
            layer: Keys and values.
            selection: What each of the n queries of each head attends to, as if there were n times as many heads.
        """
        heads, n, d = q.shape
        near = tuple(self.cat([rows[:, a:b] for a, b in selection.always], dim=1) for rows in (layer.k, layer.v))
        scores = [self.attention_scores(q, near[0])]
        if selection.count:
            far = selection.rows or (yield from self.fetch(selection, layer))
            scores.append(self.attention_scores(q if n == 1 else q.reshape(heads * n, 1, d), far[0]))
        found = yield from staged(self.meter, "scores", parallel(*scores))
        cut, mask = found[0].shape[2], self._latest(q, layer)
        if mask is not None:
            chosen = mask.new_ones(n, selection.count * selection.size)
            mask = torch.cat([*(mask[:, a:b] for a, b in selection.always), chosen], dim=1)

        def combine(weights: Any) -> Program[Any]:
            sums = [self.weigh(weights[:, :, :cut], near[1])]
            if selection.count:
                rest = weights[:, :, cut:]
                sums.append(self.weigh(rest if n == 1 else rest.reshape(heads * n, 1, rest.shape[2]), far[1]))
            mixed = yield from parallel(*sums)
            return mixed[0] if len(mixed) == 1 else mixed[0] + mixed[1].reshape(heads, n, d)

        parts = [part if n == 1 else part.reshape(heads, n, part.shape[2]) for part in found]
        return (yield from self.softmax_weigh(self.cat(parts, dim=2), combine, mask))

    def largest(self, x: Any, dim: int) -> Program[Any]:
        """Maximum over an axis, which stays with length 1, by halving: log2 levels of `maximum`."""
        axis = [slice(None)] * len(x.shape)

        def part(start: int, stop: int) -> Any:
            axis[dim] = slice(start, stop)
            return x[tuple(axis)]

        while (length := x.shape[dim]) > 1:
            half = length // 2
            larger = yield from self.maximum(part(0, half), part(half, 2 * half))
            x = self.cat([larger, part(2 * half, length)], dim) if length % 2 else larger
        return x
