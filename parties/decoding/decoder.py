"""A decoder-only transformer with a key-value cache, written once for all engines and policies."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict
from typing import Any

from parties.decoding.attention import Attention
from parties.decoding.batch import Caches, by_cache
from parties.decoding.cache import Cache, Rows
from parties.decoding.layer_names import ChunkName, LayerName
from parties.decoding.layers import Layers
from parties.decoding.program import Program, parallel, staged
from parties.decoding.workload import Prefill, Start, Workload
from parties.engines.base import Engine
from parties.engines.operations import MatrixProduct
from parties.errors import Unsupported
from parties.models.spec import ModelSpec
from parties.options import DEFAULTS, RunOptions
from parties.policies.base import Policy

_LEAST_ALIKE = 3
"""Layers of a kind from which on it helps to record what a chunk of a prompt does in them: the first is interpreted."""


class Decoder:
    """One model on one engine with one policy.

    Args:
        engine: The engine.
        spec: The model.
        policy: The cache policy.
        end: Position after the last token that will be decoded; 0 if that is not known before `workload`.

    Attributes:
        engine, spec, policy: As given.
        layers: The layers of the model but for attention.
        attention: Attention of a token, as the policy has it.
    """

    def __init__(self, engine: Engine, spec: ModelSpec, policy: Policy, end: int = 0) -> None:
        self.engine, self.spec, self.policy, self._end = engine, spec, policy, end
        self.layers = Layers(engine, spec)
        self.attention = Attention(self.layers, policy)
        self._kinds = _layer_kinds(spec, lambda layer: policy.layer_kind(layer, spec.n_layers))
        self._chunk_kinds = _layer_kinds(spec, policy.chunk_kind)
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
        self.attention.check_windows(work.tokens)
        self._end = work.end
        return work

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
        cache.layers[0].rows = tuple(map(self.layers.rows, chunks))
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
            after.rows = (self.layers.rows(x),)

    def advance(self, cache: Cache, layer: int, chunk: int) -> Program[None]:
        """Takes the next chunk of the prompt through a layer.

        Its keys and values are appended to the cache, its queries are kept for the policy, and its rows become the
        input of the next layer, unless that has them already. The output of the last layer is not needed, so it is not
        computed. A query attends to the tokens up to its own; tokens after its chunk are not scored at all.
        """
        here, policy, engine = cache.layers[layer], self.policy, self.engine
        rows, held, position = here.rows[chunk], here.tokens, sum(rows.shape[0] for rows in here.rows[:chunk])
        normal = yield from self.layers.normalise(rows)
        qkv = yield from staged(engine.meter, "qkv", engine.linear(normal, f"layers.{layer}.qkv"))
        yield from policy.on_projection(engine, cache, layer, normal, qkv)
        q = yield from self.attention.take_in(layer, qkv, here, position, sum(rows.shape[0] for rows in here.rows))
        here.queries += (q,)
        if layer + 1 < self.spec.n_layers and len(cache.layers[layer + 1].rows) == chunk:
            mixed = yield from engine.attend(q, here, engine.causal_mask(held, here.tokens, self.spec.window(layer)))
            cache.layers[layer + 1].rows += ((yield from self.layers.finish(layer, rows, mixed)),)
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
        rows = self.layers.rows(x)
        for layer, here in enumerate(cache.layers):
            held = here.tokens
            (qkv,) = yield from self.layers.project(rows, MatrixProduct(f"layers.{layer}.qkv", "qkv"))
            q = yield from self.attention.take_in(layer, qkv, here, cache.position, cache.position + x.shape[0])
            mask = self.engine.causal_mask(held, here.tokens, self.spec.window(layer))
            mixed = yield from self.engine.attend(q, here, mask)
            rows = yield from self.layers.finish(layer, rows, mixed)
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
        caches.layers[0].rows = (self.layers.rows(x),)
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
        attended, *guessed = yield from self.attention.projected(caches, layer, rows)
        programs: list[Program[Any]] = [self._attend(caches, layer, attended, rows)]
        programs += [
            self.attention.select_ahead(cache, layer + 1, own)
            for guess in guessed
            for cache, own in by_cache(caches, guess)
        ]
        (row, *_) = yield from parallel(*programs)
        after.rows = (row,)

    def _attend(
        self, caches: Caches, layer: int, programs: Sequence[Program[tuple[Any, Any]]], rows: Rows
    ) -> Program[Rows]:
        """The rest of a layer from the attention of each cache on, for a row of each sequence, [sequences, hidden]."""
        attended = yield from parallel(*programs)
        each = list(zip(caches.sequences, attended, strict=True))
        mixed = [self._by_token(cache, mixed) for cache, (mixed, _) in each]
        row: Rows
        row, *_ = yield from parallel(
            self.layers.finish(layer, rows, mixed[0] if len(mixed) == 1 else self.engine.cat(mixed, dim=1)),
            *(self.policy.after_attention(self.engine, cache, layer, weights) for cache, (_, weights) in each),
        )
        return row

    def _by_token(self, cache: Cache, mixed: Any) -> Any:
        """Outputs of attention, [lanes * heads, 1, head_dim], as those of `lanes` tokens, [heads, lanes, head_dim]."""
        if cache.lanes == 1:
            return mixed
        return mixed.reshape(cache.lanes, self.spec.n_heads, self.spec.head_dim).transpose(0, 1)

    def make_room(self, caches: Caches, layer: int) -> None:
        """Makes room for the next token in a layer of each cache; see `LayerCache.make_room`."""
        tokens = caches.layers[layer].tokens
        for cache in caches.sequences:
            cache.layers[layer].make_room(self.engine, self.policy.begin_tokens, tokens, wanted=self.left(caches))

    def left(self, caches: Caches) -> int:
        """Tokens that are still to be decoded; 1 if that is not known."""
        return max(1, self._end - caches.position)

    def step_name(self, caches: Caches, layer: int) -> LayerName | None:
        """See `Policy.step_name`, one of each cache; the layer has room for the tokens afterwards."""
        self.make_room(caches, layer)
        names = tuple(self.policy.step_name(cache, layer) for cache in caches.sequences)
        return None if None in names else self.layer_name(layer, names)

    def layer_name(self, layer: int, name: Hashable) -> LayerName:
        """The name of what is done in a layer, by a name that it has in all layers of a kind."""
        return LayerName(layer, (self._kinds[layer], name))

    def chunk_name(self, layer: int, *sizes: int) -> ChunkName | None:
        """The name of what a chunk of a prompt, of public sizes, does in a layer; None if hardly one is of its kind."""
        kind = self._chunk_kinds[layer]
        return ChunkName(layer, (kind, sizes)) if self._chunk_kinds.count(kind) >= _LEAST_ALIKE else None

    def predict(self, caches: Caches) -> Program[Any]:
        """Logits of the next tokens from the output of the last layer, [sequences, vocab]."""
        caches.position += 1
        return (yield from self.last_logits(caches))

    def last_logits(self, caches: Caches) -> Program[Any]:
        """Logits of the token after each row of the output of the last layer, [n, vocab]."""
        (rows,), caches.layers[0].rows = caches.layers[0].rows, ()
        return (yield from self._logits(rows))

    def _logits(self, rows: Rows) -> Program[Any]:
        normal = yield from self.layers.normalise(rows)
        return (yield from staged(self.engine.meter, "lm_head", self.engine.linear(normal, "lm_head")))

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


def _layer_kinds(spec: ModelSpec, of_policy: Callable[[int], Hashable | None]) -> list[int]:
    """The first layer that is of the kind of each: of the model's, and of the policy's."""
    last = spec.n_layers - 1
    kinds = [
        (of_policy(layer), layer == last, *_positions(spec, layer), *_positions(spec, layer + 1))
        for layer in range(spec.n_layers)
    ]
    return [layer if kind[0] is None else kinds.index(kind) for layer, kind in enumerate(kinds)]


def _positions(spec: ModelSpec, layer: int) -> tuple[Hashable, ...]:
    return (spec.window(layer), spec.rope(layer)) if layer < spec.n_layers else ()


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
