"""A decoder-only transformer, written once for all engines and policies.

A layer is x + O attention(norm x), then x + D mlp(norm x). Which norm, which positions, which activation and what else
a family of models has follows from `ModelSpec`; no family has code of its own. Parameters are those of
`parties.models.folding`.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from parties.decoding.cache import Cache, LayerCache, Rows
from parties.decoding.program import Program, parallel, run, staged
from parties.decoding.workload import Prefill, Workload
from parties.engines.base import Engine
from parties.engines.operations import MatrixProduct
from parties.errors import Unsupported
from parties.models.rope import Rope
from parties.models.spec import ModelSpec
from parties.options import DEFAULTS, RunOptions
from parties.policies.base import Policy


class Decoder:
    """One model on one engine with one policy."""

    def __init__(self, engine: Engine, spec: ModelSpec, policy: Policy) -> None:
        self.engine, self.spec, self.policy = engine, spec, policy
        engine.score_cap = spec.score_cap

    def workload(
        self, cache: Cache, steps: int, options: RunOptions = DEFAULTS, prefill: Prefill | None = None
    ) -> Workload:
        """The workload of this decoder: the prompt, if there is a `prefill`, then `steps` tokens.

        Args:
            cache: The prefilled cache, or an empty one and a `prefill`.
            steps: Tokens to decode.
            options: The cell's engine options.
            prefill: Sizes of the prompt, if it is run.

        Raises:
            Unsupported: The model has windows that the policy's cache cannot have, or drafts cannot be verified.
        """
        if options.draft and (problem := self.draft_problem()):
            raise Unsupported(f"draft: {problem}")
        shapes = {} if prefill else {name: tuple(value.shape) for name, value in cache.values().items()}
        policy, parameters = self.policy.name, asdict(self.policy)
        drafts = options.draft.count if options.draft else 0
        work = Workload(self.spec, policy, parameters, steps, options, cache.position, shapes, prefill, drafts)
        self._check_windows(work.tokens)
        return work

    def draft_problem(self) -> str:
        """Why a pass cannot verify a draft; empty if it can."""
        return draft_problem(type(self.engine), self.policy)

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

    def step(self, x: Any, cache: Cache) -> Program[Any]:
        """Decodes one token.

        Args:
            x: The embedded token, [1, hidden].
            cache: Grows by the token.

        Returns:
            Logits of the next token, [1, vocab].
        """
        cache.layers[0].rows = (self.rows(x),)
        for layer in range(self.spec.n_layers):
            yield from self.step_layer(cache, layer)
        return (yield from self.predict(cache))

    def step_layer(self, cache: Cache, layer: int) -> Program[None]:
        """Takes a token through a layer, from `rows` of this layer to those of the next, the first after the last.

        Several rows are the tokens of a pass (`parties.decoding.verification`).
        """
        here, after = cache.layers[layer], cache.layers[(layer + 1) % self.spec.n_layers]
        (rows,), here.rows = here.rows, ()
        here.make_room(self.engine, self.policy.begin_tokens, rows.shape[0])
        qkv, *guessed = yield from self._project(rows, *self._products(layer))
        q, k, v = yield from self._query_key_value(layer, qkv, cache.position)
        here.append(self.engine, k[:, :1], v[:, :1])
        programs: list[Program[Any]] = [self._attend(cache, layer, q, (k[:, 1:], v[:, 1:]), rows)]
        programs += [self._select_ahead(cache, layer + 1, guess) for guess in guessed]
        (row, *_) = yield from parallel(*programs)
        after.rows = (row,)

    def step_name(self, cache: Cache, layer: int, tokens: int = 1) -> Hashable:
        """See `Policy.step_name`, and `Policy.pass_name` for several tokens; the layer has room for them afterwards."""
        cache.layers[layer].make_room(self.engine, self.policy.begin_tokens, tokens)
        return self.policy.step_name(cache, layer) if tokens == 1 else self.policy.pass_name(cache, layer)

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
        """Lets the policy select for a later layer with a guess of its query, [n, heads * head_dim]."""
        heads = q.reshape(q.shape[0], self.spec.n_heads, self.spec.head_dim).transpose(0, 1)
        turned = yield from self._positioned(layer, heads, cache.position, None, "similarity")
        yield from self.policy.select_ahead(self.engine, cache, layer, _as_heads(self.engine.to_cache(turned)))

    def _attend(self, cache: Cache, layer: int, q: Any, later: tuple[Any, Any], rows: Rows) -> Program[Rows]:
        """The rest of a layer from its queries on.

        Policies select while the layer ends with the first token of a pass; the last cluster, which they always attend
        to, then grows by the others. What a policy does after attention waits until the tokens of a pass are known.

        Args:
            cache: The cache; the layer holds the first token.
            layer: Index of the layer.
            q: Queries, [heads, n, head_dim].
            later: Keys and values of the other tokens, [kv_heads, n - 1, head_dim].
            rows: The rows that entered the layer, [n, hidden].
        """
        here, weights, n = cache.layers[layer], None, q.shape[1]
        selection = yield from self.policy.before_attention(self.engine, cache, layer, _as_heads(q))
        if n > 1:
            here.append(self.engine, *later)
            selection = selection and selection.extended(n - 1)
        if selection is not None:
            mixed = yield from self.engine.attend_selected(q, here, selection)
        elif self.policy.observes:
            mixed, weights = yield from self.engine.attend_observed(q, here)
        else:
            mixed = yield from self.engine.attend(q, here, window=self.spec.window(layer))
        row: Rows
        if n > 1:
            here.weights = weights
            row = yield from self._finish(layer, rows, mixed)
        else:
            row, _ = yield from parallel(
                self._finish(layer, rows, mixed), self.policy.after_attention(self.engine, cache, layer, weights)
            )
        return row

    def predict(self, cache: Cache) -> Program[Any]:
        """Logits of the next token from the output of the last layer, [1, vocab]."""
        cache.position += 1
        return (yield from self.last_logits(cache))

    def last_logits(self, cache: Cache) -> Program[Any]:
        """Logits of the token after each row of the output of the last layer, [n, vocab]."""
        (rows,), cache.layers[0].rows = cache.layers[0].rows, ()
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

    def _project(self, rows: Rows, *products: MatrixProduct) -> Program[list[Any]]:
        """The normalised rows times matrices; for `qkv` queries, keys and values, concatenated, before positions."""
        return self.engine.normalised_linear(rows.for_norm, self.spec.norm_eps, *products)

    def _take_in(self, layer: int, qkv: Any, here: LayerCache, position: int, length: int) -> Program[Any]:
        """Queries of `_query_key_value`; keys and values go into the cache of the layer, `here`."""
        q, k, v = yield from self._query_key_value(layer, qkv, position, length)
        here.append(self.engine, k, v)
        return q

    def _query_key_value(
        self, layer: int, qkv: Any, position: int, length: int | None = None
    ) -> Program[tuple[Any, Any, Any]]:
        """Queries, keys and values with positions from `position` on, [heads or kv_heads, n, head_dim].

        Args:
            layer: Index of the layer.
            qkv: Queries, keys and values of n tokens, concatenated, before positions.
            position: Position of the first token.
            length: Tokens of the sequence up to the last one that is computed at the same time; None if each token is
                computed as the last one of its sequence.

        Raises:
            Unsupported: The model has windows that the policy's cache cannot have.
        """
        spec, engine, n = self.spec, self.engine, qkv.shape[0]
        self._check_windows(length or position + n)
        heads = qkv.reshape(n, spec.n_heads + 2 * spec.n_kv_heads, spec.head_dim).transpose(0, 1)
        turned = spec.n_heads + spec.n_kv_heads
        qk, v = heads[:turned], heads[turned:]
        qk = yield from self._positioned(layer, qk, position, length, "rope")
        with engine.meter.stage("qkv"):
            qk, v = engine.to_cache(qk), engine.to_cache(v)
        return qk[: spec.n_heads], qk[spec.n_heads :], v

    def _positioned(self, layer: int, x: Any, position: int, length: int | None, stage: str) -> Program[Any]:
        """Queries and keys, or queries alone, [heads, n, head_dim], with their norms and their positions, if any."""
        spec, (heads, n, d) = self.spec, x.shape
        if spec.architecture.query_key_norm:
            normal = yield from self._normalise(self.rows(x.reshape(heads * n, d)))
            gain = self.engine.parameter(f"layers.{layer}.qk_gain")[:heads]
            x = yield from staged(self.engine.meter, "norm", self.engine.mul(normal.reshape(heads, n, d), gain))
        if (rope := spec.rope(layer)) is not None:
            with self.engine.meter.stage(stage):
                x = self._rotate(x, rope, position, length)
        return x

    def _rotate(self, x: Any, rope: Rope, position: int, length: int | None) -> Any:
        """Rotary positions (RoFormer, arXiv 2104.09864, half-split layout) of [heads, n, head_dim]; public angles."""
        half, positions = rope.dims // 2, torch.arange(position, position + x.shape[1], dtype=torch.float64)

        def angles(later: int) -> Tensor:
            if length is not None:
                return rope.angles(positions + later, length + later)
            last = range(position + later, position + later + x.shape[1])
            return torch.cat([rope.angles(torch.tensor([float(each)]).double(), each + 1) for each in last])

        cos = self.engine.varying(lambda later: angles(later).cos() * rope.scale, rope.scale)
        sin = self.engine.varying(lambda later: angles(later).sin() * rope.scale, rope.scale)
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


def draft_problem(engine: type[Engine], policy: Policy) -> str:
    """Why an engine cannot verify drafts with a policy; empty if it can."""
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
    return q if n == 1 else q.reshape(heads * n, 1, d)


Step = tuple[Any, int | None]
"""Logits of a token, [1, vocab], and, at the client, the next token."""

Chosen = tuple[Any, Any]
"""Logits of some tokens, and the index of the largest of each, not opened yet; None if the logits are opened."""


@dataclass(frozen=True)
class NamedSegment:
    """A part of a token's step that is run, and run again, on its own.

    Attributes:
        program: Makes the program.
        name: See `Engine.run_segment`; called when everything before the segment has run.
    """

    program: Callable[[], Program[Chosen | None]]
    name: Callable[[], Hashable]

    def __call__(self) -> Program[Chosen | None]:
        """Makes the program."""
        return self.program()


def name_of(segment: Callable[[], Program[Any]]) -> Hashable:
    """Returns the name of a segment that may be recorded, or None; see `Engine.run_segment`."""
    return segment.name() if isinstance(segment, NamedSegment) else None


def token_segments(decoder: Decoder, cache: Cache, token: Sequence[int] | None, argmax: str) -> list[NamedSegment]:
    """One step of greedy decoding as programs, in order: embedding, layers, choice. The last one returns `Chosen`.

    Each leaves its result to the next in the cache, so each can be repeated on its own.

    Args:
        decoder: The model.
        cache: Grows by the token.
        token: The token to decode, at its owner, in a list; None elsewhere. It is put into the cache.
        argmax: `private`, or `client` if the logits are opened to the client.
    """
    cache.token[:] = token or ()
    layers = range(decoder.spec.n_layers)
    return [
        NamedSegment(partial(enter, decoder, cache), lambda: "embed"),
        *(NamedSegment(partial(decoder.step_layer, cache, n), partial(decoder.step_name, cache, n)) for n in layers),
        NamedSegment(partial(_choose, decoder, cache, argmax), lambda: "choose"),
    ]


def decode_token(decoder: Decoder, cache: Cache, token: Sequence[int] | None, argmax: str) -> Program[Step]:
    """All of `token_segments` as one program, and the opening of the token."""
    chosen: Any = None
    for segment in token_segments(decoder, cache, token, argmax):
        chosen = yield from segment()
    return (yield from open_token(decoder, chosen))


def decode_in_segments(decoder: Decoder, cache: Cache, token: Sequence[int] | None, argmax: str) -> Step:
    """Runs `token_segments` one by one, so that an engine repeats no more than a segment."""
    engine, chosen = decoder.engine, None
    for segment in token_segments(decoder, cache, token, argmax):
        chosen = engine.run_segment(segment, cache, name_of(segment))
    assert chosen is not None  # noqa: S101 - the last segment returns it
    return run(open_token(decoder, chosen), engine.exchange)


def open_token(decoder: Decoder, chosen: Chosen) -> Program[Step]:
    """Opens what the last segment has chosen to the client: one message, after everything that can be repeated."""
    logits, tokens = yield from open_tokens(decoder, chosen)
    return logits, None if tokens is None else tokens[0]


def open_tokens(decoder: Decoder, chosen: Chosen) -> Program[tuple[Any, list[int] | None]]:
    """As `open_token`, for the tokens after all rows of the logits."""
    engine, (logits, indices) = decoder.engine, chosen
    if indices is not None:
        with engine.meter.stage("argmax"):
            return logits, engine.open_index(indices)
    opened = yield from staged(engine.meter, "argmax", engine.reveal(logits))
    return logits, None if opened is None else opened.argmax(1).tolist()


def enter(decoder: Decoder, cache: Cache, count: int = 1) -> Program[None]:
    """Embeds the next tokens, which the cache holds at their owner."""
    cache.layers[0].rows = (decoder.rows((yield from decoder.embed(cache.token or None, count, cache.position))),)


def _choose(decoder: Decoder, cache: Cache, argmax: str) -> Program[Chosen]:
    cache.position += 1
    return (yield from choose(decoder, cache, argmax))


def choose(decoder: Decoder, cache: Cache, argmax: str) -> Program[Chosen]:
    """The greedy choice after each row of the output of the last layer."""
    engine, logits = decoder.engine, (yield from decoder.last_logits(cache))
    if argmax == "client":
        return logits, None
    return logits, (yield from staged(engine.meter, "argmax", engine.argmax(logits)))
