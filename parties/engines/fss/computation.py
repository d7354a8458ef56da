"""The programs of the `fss` engine: publicly masked values, correlated randomness from a dealer, few rounds."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

from parties.decoding.batch import Caches
from parties.decoding.cache import LayerCache
from parties.decoding.clusters import Selection, Span
from parties.decoding.program import Program, parallel, staged
from parties.engines.base import Engine, Shapes
from parties.engines.bounds import Bound
from parties.engines.fss import bounds
from parties.engines.fss.arithmetic import embedding, gates, ring
from parties.engines.fss.arithmetic.inputs import private_input
from parties.engines.fss.arithmetic.matrices import ServerMatrix, is_matrix
from parties.engines.fss.arithmetic.multiplication import multiply
from parties.engines.fss.arithmetic.values import Additive, Masked, cat
from parties.engines.fss.compare.signs import negative
from parties.engines.fss.functions import masked_cache, norm, softmax
from parties.engines.fss.functions.activation import activation, gated_activation, soft_cap
from parties.engines.fss.functions.first_order import Expansion
from parties.engines.fss.functions.norm import NormInput, inverse_root, normalise, to_norm
from parties.engines.fss.functions.raw_scores import RawScores, raw_scores
from parties.engines.fss.randomness.constants import Known
from parties.engines.fss.randomness.source import Source
from parties.engines.fss.topk import kept_rows, maximum, selection
from parties.engines.fss.topk.kept_rows import Kept
from parties.engines.fss.topk.selection import OneHot
from parties.engines.limits import FEW_ROWS
from parties.engines.operations import MatrixProduct
from parties.errors import Unsupported
from parties.options import RunOptions
from parties.randomness import uniform

T = TypeVar("T")

_LOGIT_BITS = 12  # fraction bits of compared logits; fewer bits leave room for their range


class Computation(Engine):
    """The engine's programs, the same at client, server and dealer.

    Args:
        source: This party's correlated randomness.
    """

    name = "fss"
    trust_model = (
        "two parties and a dealer, semi-honest, at most one of the three corrupted, the dealer does not collude; "
        "randomness from AES-256 in counter mode; nothing opened depends on a secret but shuffled comparisons; "
        "the dealer learns which segments are run again, which distinguishes x from x' with probability "
        "|x - x'| / 2^63 for each truncated number"
    )
    devices = ("cpu", "cuda")
    tolerance = 0.5
    bounds = bounds.BOUNDS
    block = 16
    scores_early = True
    masked_score = softmax.MASKED_SCORE

    def __init__(self, source: Source) -> None:
        super().__init__(source.meter)
        self.source = source
        self.matrices: dict[str, ServerMatrix] = {}
        self.parameters: dict[str, Masked] = {}
        self.biases: dict[str, Additive] = {}

    # -- values in and out ---------------------------------------------------------------------------------------------

    @classmethod
    def declared(cls, options: RunOptions) -> Mapping[str, Bound]:
        """The engine's bounds, or the model's where it has wider ones.

        Raises:
            Unsupported: The engine does not take such a bound.
        """
        try:
            return bounds.declared(options.bounds)
        except bounds.BoundRefused as error:
            raise Unsupported(f"engine {cls.name}: bounds: {error}") from None

    def configure(self, options: RunOptions) -> None:
        """Takes over a cell's options; the same at all three parties, before its first program."""
        self.source.comparison, self.source.softmax = options.comparison, options.softmax
        self.source.bounds = self.declared(options)

    def _limit(self, number: str) -> float:
        return self.source.bounds[number].limit

    def _limit_of(self, name: str) -> float:
        """The bound of products with a matrix."""
        return self._limit(name.rsplit(".", 1)[-1])

    def install(self, shapes: Shapes, weights: Mapping[str, Tensor] | None) -> Program[None]:
        """Takes the biases, which the server adds on its side, and opens positions and gains under a fixed mask."""
        for name, shape in shapes.items():
            if is_matrix(name, shape):
                continue
            integers = None if weights is None else ring.encode(weights[name])
            if name.endswith(".bias"):
                self.biases[name] = private_input(
                    self.source, shape, integers, ring.FRACTION_BITS, bounds.PARAMETER_LIMIT
                )
            else:
                self.parameters[name] = yield from gates.open_(
                    private_input(self.source, shape, integers, ring.FRACTION_BITS, bounds.PARAMETER_LIMIT)
                )

    def public(self, tensor: Tensor) -> Tensor:
        """The tensor itself: values encode their public factors."""
        return tensor

    def varying(self, numbers: Callable[[int], Tensor], limit: float) -> Known:
        """See `Engine.varying`."""
        return self.source.varying(lambda later: ring.encode(numbers(later)), ring.FRACTION_BITS, limit)

    def constant(self, tensor: Tensor) -> Masked:
        """A masked value whose mask is zero."""
        zeros = torch.zeros(tensor.shape, dtype=torch.int64, device=self.source.device)
        least = 2.0**-ring.FRACTION_BITS
        return Masked(self.source, zeros, zeros, ring.FRACTION_BITS, least, Masked.CONSTANT).plus(tensor)

    def bounded(self, value: Masked, limit: float) -> Masked:
        """Declares a bound, on which comparisons and truncations rely."""
        return value.bounded(limit)

    def adopt(self, share: Tensor) -> Additive:
        """Additive shares of a value; `mask_cache` turns a whole cache into masked values."""
        return Additive(self.source, share, ring.FRACTION_BITS, self._limit("qkv"))

    def mask_cache(self, caches: Caches) -> list[Callable[[], Program[None]]]:
        """Segments that open adopted caches under masks that stay. 1 round per 2^23 elements; see `masked_cache`."""
        return masked_cache.segments(caches)

    def export(self, value: Masked) -> Tensor:
        """An additive share, with 16 fraction bits."""
        return gates.truncate(value).additive().share

    @classmethod
    def split(cls, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """Additive shares of the fixed-point encoding, from a cryptographic generator."""
        mask = uniform(*tensor.shape)
        return mask, ring.encode(tensor) - mask

    @classmethod
    def combine(cls, parts: tuple[Tensor, Tensor]) -> Tensor:
        """The sum of the shares, divided by the scale."""
        return ring.decode(parts[0] + parts[1])

    def embed(self, tokens: Sequence[int] | None, count: int) -> Program[Masked]:
        """Rows of the server's embedding at the client's tokens. 3 rounds."""
        return embedding.rows(self.source, self.matrices["embed"], tokens, count, bounds.PARAMETER_LIMIT)

    def argmax(self, logits: Masked) -> Program[Additive]:
        """A tournament in each row."""
        return maximum.argmax(gates.truncate(logits, _LOGIT_BITS).bounded(self._limit("compared logit")))

    def open_index(self, index: Additive) -> list[int] | None:
        """The indices, opened to the client alone."""
        opened = self.open_to_client(index)
        return None if opened is None else (opened >> index.scale).tolist()

    def reveal(self, value: Masked) -> Program[Tensor | None]:
        """The value, at the client."""
        opened = self.open_to_client(gates.truncate(value).additive())
        return None if opened is None else ring.decode(opened)
        yield

    def open_to_client(self, value: Additive) -> Tensor | None:  # noqa: ARG002 - the dealer has no link to open it on
        """Opens integers to the client; None elsewhere."""
        return None

    # -- products and functions ----------------------------------------------------------------------------------------

    def linear(self, x: Masked, name: str, columns: int | None = None) -> Program[Masked]:
        """Product with the server's matrix. 1 round."""
        y = self.matrices[name].apply(gates.truncate(x), self._limit_of(name), columns)
        return (yield from self._with_bias(y, name))

    def normalised_linear(self, rows: NormInput, eps: float, *products: MatrixProduct) -> Program[list[Masked]]:
        """Products of normalised rows with the server's matrices. 3 rounds for a few rows with `dcf`, else 4 or 5."""
        if rows.x.shape[0] > FEW_ROWS:
            return (yield from super().normalised_linear(rows, eps, *products))
        unscaled = [self.matrices[p.name].apply(rows.narrow, rows.unscaled.limit, p.columns) for p in products]
        root, *opened = yield from parallel(
            staged(self.meter, "norm", norm.row_roots(rows, eps)),
            *(staged(self.meter, p.stage, gates.open_(y)) for p, y in zip(products, unscaled, strict=True)),
        )
        scaled = (
            staged(self.meter, p.stage, self._scaled_after(y, root, p.name))
            for p, y in zip(products, opened, strict=True)
        )
        return (yield from parallel(*scaled))

    def _scaled_after(self, product: Masked, root: Masked, name: str) -> Program[Masked]:
        return (yield from self._with_bias(norm.scaled_after(product, root, self._limit_of(name)), name))

    def scored_projection(
        self,
        rows: NormInput,
        eps: float,
        products: Sequence[MatrixProduct],
        turn: Callable[[Masked], Masked],
        layer: LayerCache,
        selection: Selection | None = None,
    ) -> Program[tuple[Masked, Masked, Masked, list[Masked]]]:
        """See `Engine.scored_projection`. 3 rounds, scores included; with `prefix` as many as `normalised_linear`."""
        qkv, *others = ((p, self.matrices[p.name].apply(rows.narrow, rows.unscaled.limit, p.columns)) for p in products)
        kv_heads, _, head_dim = layer.k.shape
        keys, place = self._keys(layer, selection, layer.tokens + 1)

        def scored() -> Program[RawScores]:
            opened = yield from staged(self.meter, qkv[0].stage, gates.open_(qkv[1]))
            raw = raw_scores(opened, kv_heads // rows.x.shape[0], head_dim, turn, keys)
            return (yield from staged(self.meter, "scores", raw))

        root, raw, *opened = yield from parallel(
            staged(self.meter, "norm", norm.row_roots(rows, eps)),
            scored(),
            *(staged(self.meter, p.stage, gates.open_(y)) for p, y in others),
        )
        places = torch.arange(sum(part.shape[1] for part in keys))
        own = self.source.varying(lambda later: (places == place + later).long(), 0, 1.0)
        (row, scores), *scaled = yield from parallel(
            staged(self.meter, qkv[0].stage, raw.scaled(root, own, self._limit_of(qkv[0].name))),
            *(
                staged(self.meter, p.stage, self._scaled_after(y, root, p.name))
                for (p, _), y in zip(others, opened, strict=True)
            ),
        )
        return row[:kv_heads], row[kv_heads:], scores, scaled

    def _with_bias(self, y: Additive, name: str) -> Program[Masked]:
        """Opens a product, after its bias is added, if it has one."""
        if (bias := self.biases.get(f"{name}.bias")) is not None:
            y = (y + bias[: y.shape[1]].reshape(1, y.shape[1])).bounded(y.limit)
        return gates.truncate((yield from gates.open_(y)))

    def parameter(self, name: str) -> Masked:
        """An installed parameter."""
        return self.parameters[name]

    def mul(self, x: Masked, y: Masked) -> Program[Masked]:
        """Elementwise product. 1 round."""
        limit = min(x.limit * y.limit, self._limit("product"))
        return gates.truncate((yield from gates.open_(multiply(self._cut(x, y), limit=limit))))

    def matmul(self, x: Masked, y: Masked) -> Program[Masked]:
        """Batched matrix product. 1 round."""
        return gates.truncate((yield from self._matmul(x, y, self._limit("product"))))

    def _matmul(self, x: Masked, y: Masked, limit: float) -> Program[Masked]:
        x, y = self._cut(x, y)
        return (yield from gates.open_(gates.matmul(x, y, limit)))

    @staticmethod
    def _cut(*values: Masked) -> list[Masked]:
        """Truncates values to at most 18 fraction bits, so that truncation failures of products stay rare."""
        return [gates.truncate(v) if v.scale > softmax.WEIGHT_SCALE else v for v in values]

    def to_norm(self, x: Masked, *, centre: bool) -> NormInput:
        """Rows less their mean if `centre`, and a narrower copy for their squares; see `norm.to_norm`."""
        return to_norm(x, centre=centre)

    def normalise(self, rows: NormInput, eps: float) -> Program[Masked]:
        """RMS norm. 3 rounds for a few rows with `dcf`, else 4."""
        return normalise(rows, eps)

    def activation(self, x: Masked, kind: str) -> Program[Masked]:
        """SiLU or GELU. 2 rounds."""
        return activation(x, kind)

    def gated_activation(self, gate: Masked, x: Masked, kind: str) -> Program[Masked]:
        """SiLU or GELU, times a number. 2 rounds."""
        return gated_activation(gate, x, kind)

    def soft_cap(self, x: Masked, cap: float) -> Program[Masked]:
        """Tanh over a declared range. 2 rounds."""
        return soft_cap(x, cap)

    def softmax(self, scores: Masked, mask: Tensor | Known | None = None) -> Program[Masked]:
        """Softmax over the last axis. 7 rounds and those of `count_below` for few queries (6 by `dpf`), 8 for many."""
        weights = yield from softmax.exponentials(scores, mask)
        return (yield from softmax.divide(weights, (yield from self._inverse_sums(weights)), 1.5))

    def softmax_weigh(
        self, scores: Masked, combine: Callable[[Masked], Program[Masked]], mask: Tensor | Known | None = None
    ) -> Program[Masked]:
        """Combines the exponentials and divides the result; their sum is inverted in parallel. See `softmax`."""
        weights = yield from staged(self.meter, "softmax", softmax.exponentials(scores, mask))
        mixed, inverse = yield from parallel(
            staged(self.meter, "attend", combine(weights)),
            staged(self.meter, "softmax", self._inverse_sums(weights)),
        )
        return (yield from staged(self.meter, "attend", softmax.divide(mixed, inverse, self._limit("mixed"))))

    @staticmethod
    def _inverse_sums(weights: Masked) -> Program[Expansion | Masked]:
        """Inverse sums of rows, [..., n, t]: a round less for few queries, fewer bytes and retries for a prompt's."""
        total = weights.sum(-1).bounded(bounds.TOTAL_LIMIT)
        if weights.shape[-2] <= FEW_ROWS:
            return (yield from softmax.inverse(total))
        return (yield from softmax.reciprocal(total))

    def attend(self, q: Masked, layer: LayerCache, mask: Tensor | None = None, *, window: int = 0) -> Program[Masked]:
        """See `Engine.attend`; a token's attention includes the spare rows."""
        visible, seen = (layer, None) if mask is not None else self._with_spare(layer, q.shape[1], window)
        return super().attend(q, visible, mask if seen is None else seen, window=window)  # type: ignore[arg-type]

    def attend_observed(
        self, q: Masked, layer: LayerCache, mask: Tensor | None = None
    ) -> Program[tuple[Masked, Masked]]:
        """See `Engine.attend_observed`; the spare rows have weights that count for nothing."""
        visible, seen = self._with_spare(layer, q.shape[1])
        return super().attend_observed(q, visible, mask if seen is None else seen)  # type: ignore[arg-type]

    def scores(self, q: Masked, k: Masked) -> Program[Masked]:
        """Q . k for grouped heads, with 32 fraction bits. 1 round."""
        heads, n, d = q.shape
        grouped = q.reshape(k.shape[0], heads // k.shape[0] * n, d)
        scores = yield from self._matmul(grouped, k.transpose(1, 2), bounds.SCORE_LIMIT)
        return scores.reshape(heads, n, k.shape[1])

    def weigh(self, weights: Masked, v: Masked) -> Program[Masked]:
        """Weighted sum of values for grouped heads. 1 round."""
        heads, n, t = weights.shape
        grouped = weights.reshape(v.shape[0], heads // v.shape[0] * n, t)
        mixed = yield from self._matmul(grouped, v, self._limit("mixed") * bounds.TOTAL_LIMIT)
        return gates.truncate(mixed).reshape(heads, n, v.shape[2])

    def maximum(self, x: Masked, y: Masked) -> Program[Masked]:
        """Elementwise maximum. 2 rounds."""
        return maximum.elementwise_maximum(gates.truncate(x), gates.truncate(y))

    def negative(self, x: Masked) -> Program[Masked]:
        """Signs, opened under a mask as integers. 2 rounds."""
        bits = yield from gates.xor_bits(self.source, (yield from negative(gates.truncate(x))))
        return (yield from gates.open_(gates.arithmetic(self.source, bits)))

    def inverse_root(self, x: Masked) -> Program[Masked]:
        """1 / sqrt(x). 1 round for a few numbers with `dcf`, else 2."""
        return inverse_root(x)

    def to_cache(self, value: Masked) -> Masked:
        """Truncates to 16 fraction bits, once for all products of a cached value."""
        return gates.truncate(value).bounded(min(value.limit, self._limit("qkv")))

    def cat(self, values: Sequence[Masked], dim: int) -> Masked:
        """Concatenation; parts with more fraction bits than the first are truncated to those of the first."""
        scale = values[0].scale
        return cat([gates.truncate(v, scale) if v.scale > scale else v for v in values], dim)  # type: ignore[no-any-return]

    def written(self, rows: Masked, new: Masked, place: int) -> Masked:
        """See `Operations.written`."""
        public = self.source.write(rows.public, new.public, place)
        return Masked(
            self.source,
            public,
            self.source.write(rows.mask, new.mask, place),
            rows.scale,
            max(rows.limit, new.limit),
            min(rows.epoch, new.epoch),
        )

    def rows_from(self, rows: Masked, first: int, count: int) -> Masked:
        """See `Operations.rows_from`."""
        return rows.map(lambda t: self.source.read(t, first, count), rows.scale, rows.limit)

    def _with_spare(self, layer: LayerCache, queries: int = 1, window: int = 0) -> tuple[LayerCache, Known | None]:
        """The layer with its spare rows, whose scores the mask hides, while shapes shall last.

        For each of the queries of the latest tokens the mask also hides later tokens, and what is outside of a `window`
        of tokens up to its own, unless that is 0.
        """
        block, tokens = layer.spare(), layer.tokens
        if block is None:
            return layer, None
        places, own = torch.arange(block.capacity), torch.arange(tokens - queries, tokens).unsqueeze(1)

        def seen(more: int) -> Tensor:
            behind = own + more - places
            return ((behind >= 0) & (behind < (window or block.capacity))).long()

        return LayerCache(block.k, block.v, layer.alive), self.source.varying(seen, 0, 1.0, by_row=True)

    # -- selection -----------------------------------------------------------------------------------------------------

    def keep_top(self, scores: Masked, count: int) -> Program[Kept]:
        """Flags of the kept rows and their number. Rounds: see `selection.shuffled_top_k`."""
        return kept_rows.keep_top(scores, count)

    def kept_from(self, flags: Masked, count: int) -> Program[Kept]:
        """The flags themselves."""
        return kept_rows.kept_from(flags, count)

    def flags(self, kept: Kept, n: int) -> Program[Masked]:  # noqa: ARG002 - the flags have that length
        """The flags, masked. 1 round."""
        return kept_rows.open_flags(kept)

    def compact(self, kept: Kept, rows: Sequence[Masked]) -> Program[list[Masked]]:
        """The kept rows, in order. 4 rounds."""
        return kept_rows.compact(kept, rows)

    def top_clusters(
        self,
        coarse: Masked,
        fine: Masked,
        parents: Sequence[int | None],
        k_coarse: int,
        k_fine: int,
        *,
        fraction_bits: int = 16,
        spare_rounds: bool = False,
    ) -> Program[OneHot]:
        """Masked one-hot rows of the selected clusters. 6 rounds, or 14 by pivots."""
        coarse, fine = (
            gates.truncate(level, fraction_bits).bounded(self._limit("similarity")) for level in (coarse, fine)
        )
        program = selection.top_two_levels(coarse, fine, parents, k_coarse, k_fine, spare_rounds=spare_rounds)
        return (yield from program)

    def pick(self, selected: OneHot, blocks: Masked) -> Program[Masked]:
        """The selected blocks. 1 round."""
        group = torch.arange(selected.rows.shape[0]) // (selected.rows.shape[0] // blocks.shape[0])
        return (yield from gates.open_(selected.fetch(blocks[group])))

    def attend_selected(self, q: Masked, layer: LayerCache, selection: Selection) -> Program[Masked]:
        """Attention over a selection, by rows that were fetched, or by scores: see `attend_scored`."""
        keys, _ = self._keys(layer, selection, layer.tokens)
        scores = yield from staged(self.meter, "scores", parallel(*(self.attention_scores(q, part) for part in keys)))
        return (yield from self.attend_scored(cat(scores, 2), layer, selection))

    def attend_scored(
        self, scores: Masked, layer: LayerCache, selection: Selection | None = None, *, window: int = 0
    ) -> Program[Masked]:
        """See `Engine.attend_scored`: over all tokens, by fetched rows, or by fetching scores."""
        if selection is None:
            visible, seen = self._with_spare(layer, window=window)
            mixed: Program[Masked] = self.softmax_weigh(scores, lambda weights: self.weigh(weights, visible.v), seen)
            return mixed
        if selection.rows is not None:
            return self._attend_rows(scores, layer, selection, selection.rows[1])
        return self._attend_gathered(scores, layer, selection)

    def _keys(self, layer: LayerCache, selection: Selection | None, tokens: int) -> tuple[list[Masked], int]:
        """The keys whose scores a step computes, with spare rows, and the place of the newest of `tokens` tokens."""
        visible, _ = self._with_spare(layer)
        if selection is None or selection.rows is None:
            return [visible.k], tokens - 1
        spans = _with_room(selection, tokens, visible.tokens)
        *earlier, (newest, _) = spans
        place = sum(stop - start for start, stop in earlier) + tokens - 1 - newest
        return [cat([visible.k[:, start:stop] for start, stop in spans], 1), selection.rows[0]], place

    def _attend_rows(self, scores: Masked, layer: LayerCache, selection: Selection, picked: Masked) -> Program[Masked]:
        """Attention over the values that were fetched, and those that are always attended to."""
        visible, seen = self._with_spare(layer, scores.shape[1])
        spans = _with_room(selection, layer.tokens, visible.tokens)
        values: Masked = cat([visible.v[:, start:stop] for start, stop in spans], 1)
        cut = values.shape[1]

        def combine(weights: Masked) -> Program[Masked]:
            parts = [(weights[:, :, :cut], values), (weights[:, :, cut:], picked)]
            first, second = yield from parallel(*(self.weigh(part, rows) for part, rows in parts))
            mixed: Masked = first + second
            return mixed

        return self.softmax_weigh(scores, combine, _seen_spans(seen, spans, picked.shape[1]))

    def _attend_gathered(self, scores: Masked, layer: LayerCache, selection: Selection) -> Program[Masked]:
        """Attention by fetching the selected *scores* of all and putting their weights back: [heads, n, d].

        Rows of keys and values are not moved: a score is one number, a row has head_dim.
        """
        meter, (heads, n, _) = self.meter, scores.shape
        visible, seen = self._with_spare(layer, n)
        a, b = selection.candidates
        always = _with_room(selection, layer.tokens, visible.tokens)
        parts = [scores[:, :, start:stop] for start, stop in always]
        if selection.count:
            groups = selection.selected.rows.shape[0]
            blocks = _grouped(scores[:, :, a:b].reshape(heads * n, -1, selection.size), groups)
            fetched = yield from staged(meter, "gather", self.pick(selection.selected, blocks))
            parts.append(_ungrouped(fetched, heads * n).reshape(heads, n, -1))

        def combine(weights: Masked) -> Program[Masked]:
            lengths = [stop - start for start, stop in always]
            cuts = list(torch.tensor([0, *lengths]).cumsum(0).tolist())
            placed = [weights[:, :, i:j] for i, j in pairwise(cuts)]
            values = [visible.v[:, start:stop] for start, stop in always]
            if selection.count:
                picked = weights[:, :, cuts[-1] :].reshape(heads * n, selection.count, selection.size)
                chosen = _grouped(picked, groups)
                back = yield from staged(meter, "gather", gates.open_(selection.selected.put_back(chosen)))
                placed.append(_ungrouped(back, heads * n).reshape(heads, n, -1))
                values.append(visible.v[:, a:b])
            return (yield from self.weigh(cat(placed, 2), cat(values, 1)))

        seen = _seen_spans(seen, always, selection.count * selection.size)
        return (yield from self.softmax_weigh(cat(parts, 2), combine, seen))


def _grouped(blocks: Masked, groups: int) -> Masked:
    """Blocks [heads, n, m] of the heads of a group next to each other: [groups, n, heads / groups * m]."""
    heads, n, m = blocks.shape
    return blocks.reshape(groups, heads // groups, n, m).transpose(1, 2).reshape(groups, n, heads // groups * m)


def _ungrouped(blocks: Masked, heads: int) -> Masked:
    """The inverse of `_grouped`."""
    groups, n, m = blocks.shape
    of_head = blocks.reshape(groups, n, heads // groups, m * groups // heads)
    return of_head.transpose(1, 2).reshape(heads, n, m * groups // heads)


def _with_room(selection: Selection, tokens: int, capacity: int) -> list[Span]:
    """The spans that are always attended to, the newest of `tokens` tokens followed by the spare rows."""
    return [(start, capacity if stop == tokens else stop) for start, stop in selection.always]


def _seen_spans(seen: Known | None, spans: Sequence[Span], picked: int) -> Known | None:
    """The part of a mask in spans, followed by selected tokens, which all count."""
    if seen is None:
        return None
    within = [seen.integers[..., start:stop] for start, stop in spans]
    chosen = seen.integers.new_ones(*seen.integers.shape[:-1], picked)
    return Known(torch.cat([*within, chosen], -1), 0, 1.0)
