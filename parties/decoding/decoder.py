"""A decoder-only transformer, written once for all engines and policies.

A layer is x + O attention(norm x), then x + D mlp(norm x). Which norm, which positions, which activation and what else
a family of models has follows from `ModelSpec`; no family has code of its own. Parameters are those of
`parties.models.folding`.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from parties.decoding.batch import Caches
from parties.decoding.cache import Cache, LayerCache, Rows
from parties.decoding.clusters import Selection
from parties.decoding.program import Program, parallel, staged
from parties.decoding.workload import Prefill, Start, Workload
from parties.engines.base import Engine
from parties.engines.operations import MatrixProduct
from parties.errors import Unsupported
from parties.models.folding import has_bias
from parties.models.rope import Rope
from parties.models.spec import ModelSpec
from parties.options import DEFAULTS, RunOptions
from parties.policies.base import Policy


@lru_cache(maxsize=4)
def _turns(rope: Rope, first: int, count: int, length: int | None) -> tuple[Tensor, Tensor]:
    """Cosines and sines of positions first .. first + count - 1, [count, dims]; those of a token serve all its layers.

    Args:
        rope: The rotary positions.
        first: The first position.
        count: Number of positions.
        length: Tokens of the sequence; None if each position is the last one of a sequence of its own.
    """
    if length is None:
        each = [rope.angles(torch.tensor([float(last)]).double(), last + 1) for last in range(first, first + count)]
        angles = torch.cat(each)
    else:
        angles = rope.angles(torch.arange(first, first + count, dtype=torch.float64), length)
    return angles.cos() * rope.scale, angles.sin() * rope.scale


class Decoder:
    """One model on one engine with one policy.

    Args:
        engine: The engine.
        spec: The model.
        policy: The cache policy.
        end: Position after the last token that will be decoded; 0 if that is not known before `workload`.
    """

    def __init__(self, engine: Engine, spec: ModelSpec, policy: Policy, end: int = 0) -> None:
        self.engine, self.spec, self.policy, self._end = engine, spec, policy, end
        engine.score_cap = spec.score_cap

    def workload(
        self, caches: Caches, steps: int, options: RunOptions = DEFAULTS, prefill: Sequence[Prefill] = ()
    ) -> Workload:
        """The workload of this decoder: the prompts, if there is a `prefill`, then `steps` tokens.

        Args:
            caches: The prefilled caches, or empty ones and a `prefill`.
            steps: Tokens to decode, of each sequence.
            options: The cell's engine options.
            prefill: Sizes of each prompt, if they are run.

        Raises:
            Unsupported: The model has windows that the policy's cache cannot have, or drafts cannot be verified.
        """
        drafts = options.draft.count if options.draft else 0
        if drafts and (problem := draft_problem(type(self.engine), self.policy, len(caches.sequences))):
            raise Unsupported(f"draft: {problem}")
        starts = [Start(prefill=sizes) for sizes in prefill] or [
            Start(cache.position, {name: tuple(value.shape) for name, value in cache.values().items()})
            for cache in caches.sequences
        ]
        policy, parameters = self.policy.name, asdict(self.policy)
        work = Workload(self.spec, policy, parameters, steps, options, tuple(starts), drafts)
        self._check_windows(work.tokens)
        self._end = work.end
        return work

    def _check_windows(self, tokens: int) -> None:
        if problem := self.policy.window_problem(self.spec, tokens):
            raise Unsupported(problem)

    def prefill(self, x: Any, cache: Cache, inputs: list[Any] | None = None) -> Program[None]:
        """Runs the prompt's n tokens into an empty cache, whole or in the policy's chunks, which it then compresses.

        Without chunks no policy changes what the prompt's tokens attend to, so the rows that enter a layer are the
        same for all policies. A layer whose output is known is only projected and compressed.

        Args:
            x: Embedded tokens (`embed`), [n, hidden].
            cache: An empty cache; filled in place.
            inputs: The rows, [n, hidden], that enter each of the first layers, from an earlier run of the same tokens;
                the other layers' are appended. Only for a policy without `chunk`.
        """
        size = self.policy.chunk or x.shape[0]
        chunks = tuple(x[start : start + size] for start in range(0, x.shape[0], size))
        cache.layers[0].rows = tuple(map(self.rows, chunks))
        for layer in range(self.spec.n_layers):
            if inputs is not None:
                self._reuse(cache, layer, inputs)
            for chunk in range(len(chunks)):
                yield from self.advance(cache, layer, chunk)
            yield from self.settle(cache, layer)

    def _reuse(self, cache: Cache, layer: int, inputs: list[Any]) -> None:
        """Adds a layer's input to the known ones, and gives the next layer its own if it is known."""
        if layer == len(inputs):
            inputs.append(cache.layers[layer].rows[0].x)
        for after, x in zip(cache.layers[layer + 1 : layer + 2], inputs[layer + 1 : layer + 2], strict=False):
            after.rows = (self.rows(x),)

    def advance(self, cache: Cache, layer: int, chunk: int) -> Program[None]:
        """Takes the next chunk of the prompt through a layer.

        Its keys and values are appended to the cache, its queries are kept for the policy, and its rows become the
        input of the next layer, unless that has them already. The output of the last layer is not needed, so it is not
        computed. A query attends to the tokens up to its own; tokens after its chunk are not scored at all.
        """
        here, policy, engine = cache.layers[layer], self.policy, self.engine
        rows, held, position = here.rows[chunk], here.tokens, sum(rows.shape[0] for rows in here.rows[:chunk])
        normal = yield from self._normalise(rows)
        qkv = yield from staged(engine.meter, "qkv", engine.linear(normal, f"layers.{layer}.qkv"))
        yield from policy.on_projection(engine, cache, layer, normal, qkv)
        q = yield from self._take_in(layer, qkv, here, position, sum(rows.shape[0] for rows in here.rows))
        here.queries += (q,)
        if layer + 1 < self.spec.n_layers and len(cache.layers[layer + 1].rows) == chunk:
            mixed = yield from engine.attend(q, here, engine.causal_mask(held, here.tokens, self.spec.window(layer)))
            cache.layers[layer + 1].rows += ((yield from self._finish(layer, rows, mixed)),)
        yield from policy.after_chunk(engine, cache, layer, position + rows.shape[0])

    def settle(self, cache: Cache, layer: int) -> Program[None]:
        """Lets the policy compress a layer that holds the whole prompt."""
        here = cache.layers[layer]
        q = self.engine.cat(here.queries, dim=1)
        here.rows = here.queries = ()
        cache.position = cache.prompt = q.shape[1]
        yield from self.policy.after_prefill(self.engine, cache, layer, q)

    def follow(self, x: Any, cache: Cache) -> Program[Any]:
        """Runs several known tokens at once through a cache that holds the prompt, without the policy.

        Args:
            x: Embedded tokens, [n, hidden].
            cache: Grows by them.

        Returns:
            Logits of the token after each, [n, vocab].
        """
        rows = self.rows(x)
        for layer, here in enumerate(cache.layers):
            held = here.tokens
            (qkv,) = yield from self._project(rows, MatrixProduct(f"layers.{layer}.qkv", "qkv"))
            q = yield from self._take_in(layer, qkv, here, cache.position, cache.position + x.shape[0])
            mask = self.engine.causal_mask(held, here.tokens, self.spec.window(layer))
            mixed = yield from self.engine.attend(q, here, mask)
            rows = yield from self._finish(layer, rows, mixed)
        cache.position += x.shape[0]
        return (yield from self._logits(rows))

    def step(self, x: Any, caches: Caches) -> Program[Any]:
        """Decodes one token of each sequence.

        Args:
            x: The embedded tokens, one of each sequence, [sequences, hidden].
            caches: Each grows by its token.

        Returns:
            Logits of the next tokens, [sequences, vocab].
        """
        caches.layers[0].rows = (self.rows(x),)
        for layer in range(self.spec.n_layers):
            yield from self.step_layer(caches, layer)
        return (yield from self.predict(caches))

    def step_layer(self, caches: Caches, layer: int) -> Program[None]:
        """Takes a token of each sequence through a layer, from its `rows` to those of the next, of the last the first.

        The matrices are multiplied with the rows of all sequences. Each cache is attended to by its own sequences, and
        the programs of all share their rounds. The layers of the first cache hold the rows of all.
        """
        here, after = caches.layers[layer], caches.layers[(layer + 1) % self.spec.n_layers]
        (rows,), here.rows = here.rows, ()
        self.make_room(caches, layer)
        attended, *guessed = yield from self._projected(caches, layer, rows)
        programs: list[Program[Any]] = [self._attend(caches, layer, attended, rows)]
        programs += [
            self._select_ahead(cache, layer + 1, own) for guess in guessed for cache, own in _by_cache(caches, guess)
        ]
        (row, *_) = yield from parallel(*programs)
        after.rows = (row,)

    def make_room(self, caches: Caches, layer: int) -> None:
        """Makes room for the next token in a layer of each cache; see `LayerCache.make_room`."""
        tokens = caches.layers[layer].tokens
        for cache in caches.sequences:
            cache.layers[layer].make_room(self.engine, self.policy.begin_tokens, tokens, wanted=self._left(caches))

    def _left(self, caches: Caches) -> int:
        """Tokens that are still to be decoded; 1 if that is not known."""
        return max(1, self._end - caches.position)

    def step_name(self, caches: Caches, layer: int) -> Hashable | None:
        """See `Policy.step_name`, one of each cache; the layer has room for the tokens afterwards."""
        self.make_room(caches, layer)
        names = tuple(self.policy.step_name(cache, layer) for cache in caches.sequences)
        return None if None in names else names

    def _projected(self, caches: Caches, layer: int, rows: Rows) -> Program[list[Any]]:
        """A program of attention for each cache, in a list, and the guessed queries, one of each sequence."""
        first, *others = caches.sequences
        if not others and self._scores_early(first, layer):
            attended, *guessed = yield from self._project_scored(first, layer, rows)
            return [[attended], *guessed]
        qkv, *guessed = yield from self._project(rows, *self._products(layer))
        queries = yield from parallel(
            *(
                self._take_in(layer, own, cache.layers[layer], cache.position, cache.position + 1, cache.lanes)
                for cache, own in _by_cache(caches, qkv)
            )
        )
        each = zip(caches.sequences, queries, strict=True)
        return [[self._attended(cache, layer, q) for cache, q in each], *guessed]

    def _scores_early(self, cache: Cache, layer: int) -> bool:
        """Whether a token's scores may be computed with its projection. Public."""
        spec, here = self.spec, cache.layers[layer]
        plain = not (has_bias(spec, "qkv") or spec.architecture.query_key_norm or spec.score_cap)
        return (
            self.engine.scores_early
            and plain
            and here.k is not None
            and here.alive is None
            and not self.policy.needs_query(layer)
        )

    def _project_scored(self, cache: Cache, layer: int, rows: Rows) -> Program[list[Any]]:
        """A program of the attention of a token whose key and value join the layer here, and the guessed queries."""
        spec, engine, here, position = self.spec, self.engine, cache.layers[layer], cache.position
        rope, selection = spec.rope(layer), self.policy.known_selection(cache, layer)
        self._check_windows(position + 1)

        def turn(x: Any) -> Any:
            return x if rope is None else self._rotate(x, rope, position, position + 1)

        k, v, scores, guessed = yield from engine.scored_projection(
            rows.for_norm, spec.norm_eps, self._products(layer), turn, here, selection
        )
        here.append(engine, k, v)

        def attended() -> Program[tuple[Any, Any]]:
            return (yield from engine.attend_scored(scores, here, selection, window=spec.window(layer))), None

        return [attended(), *guessed]

    def _products(self, layer: int) -> list[MatrixProduct]:
        """Queries, keys and values of a layer; and the next layer's query, if the policy selects with a guess of it.

        The residual stream moves little from one layer to the next (InfiniGen, Lee et al., OSDI 2024).
        """
        products = [MatrixProduct(f"layers.{layer}.qkv", "qkv")]
        if layer + 1 < self.spec.n_layers and self.policy.selects_ahead(layer + 1):
            columns = self.spec.n_heads * self.spec.head_dim
            products.append(MatrixProduct(f"layers.{layer + 1}.qkv", "similarity", columns))
        return products

    def _select_ahead(self, cache: Cache, layer: int, q: Any) -> Program[None]:
        """Lets the policy select for a later layer with a guess of its query, [lanes, heads * head_dim]."""
        heads = q.reshape(cache.lanes * self.spec.n_heads, 1, self.spec.head_dim)
        turned = yield from self._positioned(
            layer, heads, cache.position, cache.position + 1, "similarity", cache.lanes
        )
        yield from self.policy.select_ahead(self.engine, cache, layer, self.engine.to_cache(turned))

    def _attended(self, cache: Cache, layer: int, q: Any) -> Program[tuple[Any, Any]]:
        """The output of attention, [lanes * heads, 1, head_dim], and its weights if the policy observes them."""
        here = cache.layers[layer]
        selection = yield from self.policy.before_attention(self.engine, cache, layer, q)
        if selection is not None:
            return (yield from self.engine.attend_selected(q, here, selection)), None
        if self.policy.observes:
            return (yield from self.engine.attend_observed(q, here))
        return (yield from self.engine.attend(q, here, window=self.spec.window(layer))), None

    def _attend(
        self, caches: Caches, layer: int, programs: Sequence[Program[tuple[Any, Any]]], rows: Rows
    ) -> Program[Rows]:
        """The rest of a layer from the attention of each cache on, for a row of each sequence, [sequences, hidden]."""
        attended = yield from parallel(*programs)
        each = list(zip(caches.sequences, attended, strict=True))
        mixed = [self._by_token(cache, mixed) for cache, (mixed, _) in each]
        row: Rows
        row, *_ = yield from parallel(
            self._finish(layer, rows, mixed[0] if len(mixed) == 1 else self.engine.cat(mixed, dim=1)),
            *(self.policy.after_attention(self.engine, cache, layer, weights) for cache, (_, weights) in each),
        )
        return row

    def pass_layer(self, cache: Cache, layer: int) -> Program[None]:
        """As `step_layer`, for several tokens of one sequence: those of a pass (`parties.decoding.verification`).

        Policies select while the layer ends with the first token of the pass; the last cluster, which they always
        attend to, then grows by the others. What a policy does after attention waits until it is known which stay.
        """
        here, after, engine = cache.layers[layer], cache.layers[(layer + 1) % self.spec.n_layers], self.engine
        (rows,), here.rows = here.rows, ()
        left = self._left(cache) + rows.shape[0] - 1
        here.make_room(engine, self.policy.begin_tokens, needed=rows.shape[0], wanted=left)
        qkv, *guessed = yield from self._project(rows, *self._products(layer))
        q, k, v = yield from self._query_key_value(layer, qkv, cache.position)
        known = self.policy.known_selection(cache, layer)
        here.append(engine, k[:, :1], v[:, :1])
        programs: list[Program[Any]] = [self._attend_pass(cache, layer, q, (k[:, 1:], v[:, 1:]), known, rows)]
        programs += [self._select_ahead_of_pass(cache, layer + 1, guess) for guess in guessed]
        (row, *_) = yield from parallel(*programs)
        after.rows = (row,)

    def pass_name(self, cache: Cache, layer: int, tokens: int) -> Hashable:
        """See `Policy.pass_name`; the layer has room for the tokens of the pass afterwards."""
        left = self._left(cache) + tokens - 1
        cache.layers[layer].make_room(self.engine, self.policy.begin_tokens, needed=tokens, wanted=left)
        return self.policy.pass_name(cache, layer)

    def _attend_pass(
        self, cache: Cache, layer: int, q: Any, later: tuple[Any, Any], selection: Selection | None, rows: Rows
    ) -> Program[Rows]:
        """The rest of a layer from the queries on.

        Args:
            cache: The cache; the layer holds the first token.
            layer: Index of the layer.
            q: Queries, [heads, n, head_dim].
            later: Keys and values of the other tokens, [kv_heads, n - 1, head_dim].
            selection: What is attended to, if the policy needs no query for it.
            rows: The rows that entered the layer, [n, hidden].
        """
        here, n = cache.layers[layer], q.shape[1]
        if self.policy.needs_query(layer):
            selection = yield from self.policy.before_attention(self.engine, cache, layer, _as_heads(q))
        here.append(self.engine, *later)
        if selection is not None:
            mixed = yield from self.engine.attend_selected(q, here, selection.extended(n - 1))
        elif self.policy.observes:
            mixed, here.weights = yield from self.engine.attend_observed(q, here)
        else:
            mixed = yield from self.engine.attend(q, here, window=self.spec.window(layer))
        return (yield from self._finish(layer, rows, mixed))

    def _select_ahead_of_pass(self, cache: Cache, layer: int, q: Any) -> Program[None]:
        """Lets the policy select for a later layer with guesses of its queries, [n, heads * head_dim]."""
        heads = q.reshape(q.shape[0], self.spec.n_heads, self.spec.head_dim).transpose(0, 1)
        turned = yield from self._positioned(layer, heads, cache.position, None, "similarity")
        yield from self.policy.select_ahead(self.engine, cache, layer, _as_heads(self.engine.to_cache(turned)))

    def _query_key_value(self, layer: int, qkv: Any, position: int) -> Program[tuple[Any, Any, Any]]:
        """Queries, keys and values of a pass, [heads or kv_heads, n, head_dim], with positions from `position` on."""
        spec, engine, n = self.spec, self.engine, qkv.shape[0]
        self._check_windows(position + n)
        heads = qkv.reshape(n, spec.n_heads + 2 * spec.n_kv_heads, spec.head_dim).transpose(0, 1)
        turned = spec.n_heads + spec.n_kv_heads
        qk = yield from self._positioned(layer, heads[:turned], position, None, "rope")
        with engine.meter.stage("qkv"):
            qk, v = engine.to_cache(qk), engine.to_cache(heads[turned:])
        return qk[: spec.n_heads], qk[spec.n_heads :], v

    def _by_token(self, cache: Cache, mixed: Any) -> Any:
        """Outputs of attention, [lanes * heads, 1, head_dim], as those of `lanes` tokens, [heads, lanes, head_dim]."""
        if cache.lanes == 1:
            return mixed
        return mixed.reshape(cache.lanes, self.spec.n_heads, self.spec.head_dim).transpose(0, 1)

    def predict(self, caches: Caches) -> Program[Any]:
        """Logits of the next tokens from the output of the last layer, [sequences, vocab]."""
        caches.position += 1
        return (yield from self.last_logits(caches))

    def last_logits(self, caches: Caches) -> Program[Any]:
        """Logits of the token after each row of the output of the last layer, [n, vocab]."""
        (rows,), caches.layers[0].rows = caches.layers[0].rows, ()
        return (yield from self._logits(rows))

    def rows(self, x: Any) -> Rows:
        """Rows [n, hidden] as they enter a layer; in the program that makes them (`Engine.to_norm`)."""
        with self.engine.meter.stage("norm"):
            return Rows(x, self.engine.to_norm(x, centre=self.spec.architecture.norm == "layer"))

    def embed(self, tokens: Sequence[int] | None, count: int, position: int) -> Program[Any]:
        """Embeds `count` tokens that start at a public position, [count, hidden]. Only their owner passes them."""
        x = yield from staged(self.engine.meter, "embed", self.engine.embed(tokens, count))
        if self.spec.architecture.learned_positions:
            x = x + self.engine.rows_from(self.engine.parameter("positions"), position, count)
        return x

    def embed_next(self, tokens: Sequence[int] | None, caches: Caches) -> Program[Any]:
        """Embeds the next token of each sequence, [sequences, hidden]. Only their owner passes them."""
        engine = self.engine
        positions = [cache.position for cache in caches.sequences for _ in range(cache.lanes)]
        x = yield from staged(engine.meter, "embed", engine.embed(tokens, len(positions)))
        if self.spec.architecture.learned_positions:
            table = engine.parameter("positions")
            x = x + engine.cat([engine.rows_from(table, position, 1) for position in positions], dim=0)
        return x

    def _project(self, rows: Rows, *products: MatrixProduct) -> Program[list[Any]]:
        """The normalised rows times matrices; for `qkv` queries, keys and values, concatenated, before positions."""
        return self.engine.normalised_linear(rows.for_norm, self.spec.norm_eps, *products)

    def _take_in(
        self, layer: int, qkv: Any, here: LayerCache, position: int, length: int, lanes: int = 1
    ) -> Program[Any]:
        """Queries with positions from `position` on, [lanes * heads, n, head_dim]; keys and values go into the cache.

        Args:
            layer: Index of the layer.
            qkv: Queries, keys and values of n tokens of each sequence, concatenated, before positions.
            here: The cache of the layer.
            position: Position of the first token.
            length: Tokens of the sequence up to the last one that is computed at the same time.
            lanes: Sequences that the cache holds.

        Raises:
            Unsupported: The model has windows that the policy's cache cannot have.
        """
        spec, engine, n = self.spec, self.engine, qkv.shape[0] // lanes
        self._check_windows(length)
        d, turned = spec.head_dim, spec.n_heads + spec.n_kv_heads
        heads = qkv.reshape(lanes, n, turned + spec.n_kv_heads, d).transpose(1, 2)
        qk, v = heads[:, :turned].reshape(lanes * turned, n, d), heads[:, turned:].reshape(-1, n, d)
        qk = yield from self._positioned(layer, qk, position, length, "rope", lanes)
        with engine.meter.stage("qkv"):
            qk, v = engine.to_cache(qk), engine.to_cache(v)
        by_lane = qk.reshape(lanes, turned, n, d)
        here.append(engine, by_lane[:, spec.n_heads :].reshape(-1, n, d), v)
        return by_lane[:, : spec.n_heads].reshape(-1, n, d)

    def _positioned(
        self, layer: int, x: Any, position: int, length: int | None, stage: str, lanes: int = 1
    ) -> Program[Any]:
        """Queries and keys, or queries alone, of each lane, with their norms and their positions, if any.

        [lanes * heads, n, head_dim], the heads of the first lane first.
        """
        spec, (heads, n, d) = self.spec, x.shape
        if spec.architecture.query_key_norm:
            normal = yield from self._normalise(self.rows(x.reshape(heads * n, d)))
            gain = self.engine.parameter(f"layers.{layer}.qk_gain")[: heads // lanes]
            by_lane = normal.reshape(lanes, heads // lanes, n, d)
            x = (yield from staged(self.engine.meter, "norm", self.engine.mul(by_lane, gain))).reshape(heads, n, d)
        if (rope := spec.rope(layer)) is not None:
            with self.engine.meter.stage(stage):
                x = self._rotate(x, rope, position, length)
        return x

    def _rotate(self, x: Any, rope: Rope, position: int, length: int | None) -> Any:
        """Rotary positions (RoFormer, arXiv 2104.09864, half-split layout) of [heads, n, head_dim]; public angles."""
        half, count = rope.dims // 2, x.shape[1]

        def turns(later: int) -> tuple[Tensor, Tensor]:
            return _turns(rope, position + later, count, None if length is None else length + later)

        cos = self.engine.varying(lambda later: turns(later)[0], rope.scale)
        sin = self.engine.varying(lambda later: turns(later)[1], rope.scale)
        turned = x[:, :, : rope.dims]
        swapped = self.engine.cat([-turned[:, :, half:], turned[:, :, :half]], dim=2)
        turned = turned * cos + swapped * sin
        whole = rope.dims == self.spec.head_dim
        return turned if whole else self.engine.cat([turned, x[:, :, rope.dims :]], dim=2)

    def _finish(self, layer: int, rows: Rows, mixed: Any) -> Program[Rows]:
        """Output projection and feed-forward part of a layer, with both residuals.

        Args:
            layer: Index of the layer.
            rows: The rows that entered the layer, [n, hidden]; a parallel MLP reads them, too.
            mixed: The output of attention, [heads, n, head_dim].
        """
        engine, at = self.engine, f"layers.{layer}"
        joined = mixed.transpose(0, 1).reshape(rows.shape[0], self.spec.n_heads * self.spec.head_dim)
        out = yield from staged(engine.meter, "out_proj", engine.linear(joined, f"{at}.o"))
        x = rows.x + (yield from self._after(f"{at}.attn_gain", out))
        if not self.spec.parallel:
            rows = self.rows(x)
        inner = yield from (self._gated(at, rows) if self.spec.architecture.gated else self._mlp(at, rows))
        down = yield from staged(engine.meter, "down", engine.linear(inner, f"{at}.down"))
        return self.rows(x + (yield from self._after(f"{at}.mlp_gain", down)))

    def _after(self, gain: str, x: Any) -> Program[Any]:
        """The output of attention or MLP as it is added to the residual: normalised in families with post-norms."""
        if not self.spec.architecture.post_norms:
            return x
        return (yield from self._gain(gain, (yield from self._normalise(self.rows(x)))))

    def _gain(self, name: str, normal: Any) -> Program[Any]:
        """Normalised rows times the gain of their norm, where no matrix follows that could hold it."""
        return staged(self.engine.meter, "norm", self.engine.mul(normal, self.engine.parameter(name)))

    def _gated(self, at: str, rows: Rows) -> Program[Any]:
        """f(gate(x)) * up(x) (arXiv 2002.05202)."""
        engine, inner = self.engine, self.spec.intermediate
        (both,) = yield from self._project(rows, MatrixProduct(f"{at}.gate_up", "gate_up"))
        gated = engine.gated_activation(both[:, :inner], both[:, inner:], self.spec.activation)
        return (yield from staged(engine.meter, "activation", gated))

    def _mlp(self, at: str, rows: Rows) -> Program[Any]:
        (up,) = yield from self._project(rows, MatrixProduct(f"{at}.up", "gate_up"))
        return (yield from staged(self.engine.meter, "activation", self.engine.activation(up, self.spec.activation)))

    def _normalise(self, rows: Rows) -> Program[Any]:
        return staged(self.engine.meter, "norm", self.engine.normalise(rows.for_norm, self.spec.norm_eps))

    def _logits(self, rows: Rows) -> Program[Any]:
        normal = yield from self._normalise(rows)
        return (yield from staged(self.engine.meter, "lm_head", self.engine.linear(normal, "lm_head")))


def _by_cache(caches: Caches, rows: Any) -> Iterator[tuple[Cache, Any]]:
    """Each cache, and the rows, [lanes, n], of its sequences, of [sequences, n]."""
    start = 0
    for cache in caches.sequences:
        yield cache, rows[start : start + cache.lanes]
        start += cache.lanes


def draft_problem(engine: type[Engine], policy: Policy, batch: int = 1) -> str:
    """Why an engine cannot verify drafts of some sequences with a policy; empty if it can."""
    if batch > 1:
        return f"a pass has the tokens of one sequence, and there are {batch}; take batch: 1"
    if not engine.verifies:
        return f"engine {engine.name!r} decodes one token at a time; take another engine"
    if policy.pass_key(1, 1) is None:
        return (
            f"policy {policy.name} changes at every step what later tokens attend to, so that one pass cannot verify "
            f"several; {policy.draft_fix}"
        )
    return ""


def _as_heads(q: Any) -> Any:
    """Queries of several tokens, [heads, n, head_dim], as those of one token with n times as many heads."""
    heads, n, d = q.shape
    return q.reshape(heads * n, 1, d)
