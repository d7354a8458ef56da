"""How queries, keys and values of tokens meet a cache, and what the policy lets them attend to."""

from typing import Any

from parties.decoding.batch import Caches, by_cache
from parties.decoding.cache import Cache, LayerCache, Rows
from parties.decoding.layers import Layers
from parties.decoding.positions import rotated
from parties.decoding.program import Program, parallel
from parties.engines.operations import MatrixProduct
from parties.errors import Unsupported
from parties.models.folding import has_bias
from parties.policies.base import Policy


class Attention:
    """Attention of a token of each sequence; and how the tokens of a prompt join the cache.

    Args:
        layers: The rest of the model's layers.
        policy: The cache policy.
    """

    def __init__(self, layers: Layers, policy: Policy) -> None:
        self.layers, self.policy = layers, policy
        self.engine, self.spec = layers.engine, layers.spec

    def check_windows(self, tokens: int) -> None:
        """Checks that the model's windows are known in a sequence of so many tokens.

        Raises:
            Unsupported: The model has windows that the policy's cache cannot have.
        """
        if problem := self.policy.window_problem(self.spec, tokens):
            raise Unsupported(problem)

    def take_in(
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
        self.check_windows(length)
        d, turned = spec.head_dim, spec.n_heads + spec.n_kv_heads
        heads = qkv.reshape(lanes, n, turned + spec.n_kv_heads, d).transpose(1, 2)
        qk, v = heads[:, :turned].reshape(lanes * turned, n, d), heads[:, turned:].reshape(-1, n, d)
        qk = yield from self.layers.positioned(layer, qk, position, length, "rope", lanes)
        with engine.meter.stage("qkv"):
            qk, v = engine.to_cache(qk), engine.to_cache(v)
        by_lane = qk.reshape(lanes, turned, n, d)
        here.append(engine, by_lane[:, spec.n_heads :].reshape(-1, n, d), v)
        return by_lane[:, : spec.n_heads].reshape(-1, n, d)

    def projected(self, caches: Caches, layer: int, rows: Rows) -> Program[list[Any]]:
        """A program of attention for each cache, in a list, and the guessed queries, one of each sequence."""
        first, *others = caches.sequences
        if not others and self._scores_early(first, layer):
            attended, *guessed = yield from self._project_scored(first, layer, rows)
            return [[attended], *guessed]
        qkv, *guessed = yield from self.layers.project(rows, *self.products(layer))
        queries = yield from parallel(
            *(
                self.take_in(layer, own, cache.layers[layer], cache.position, cache.position + 1, cache.lanes)
                for cache, own in by_cache(caches, qkv)
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
        self.check_windows(position + 1)

        def turn(x: Any) -> Any:
            return x if rope is None else rotated(engine, x, rope, position, position + 1)

        k, v, scores, guessed = yield from engine.scored_projection(
            rows.for_norm, spec.norm_eps, self.products(layer), turn, here, selection
        )
        here.append(engine, k, v)

        def attended() -> Program[tuple[Any, Any]]:
            return (yield from engine.attend_scored(scores, here, selection, window=spec.window(layer))), None

        return [attended(), *guessed]

    def products(self, layer: int) -> list[MatrixProduct]:
        """Queries, keys and values of a layer; and the next layer's query, if the policy selects with a guess of it.

        The residual stream moves little from one layer to the next (InfiniGen, Lee et al., OSDI 2024).
        """
        products = [MatrixProduct(f"layers.{layer}.qkv", "qkv")]
        if layer + 1 < self.spec.n_layers and self.policy.selects_ahead(layer + 1):
            columns = self.spec.n_heads * self.spec.head_dim
            products.append(MatrixProduct(f"layers.{layer + 1}.qkv", "similarity", columns))
        return products

    def select_ahead(self, cache: Cache, layer: int, q: Any) -> Program[None]:
        """Lets the policy select for a later layer with a guess of its query, [lanes, heads * head_dim]."""
        heads = q.reshape(cache.lanes * self.spec.n_heads, 1, self.spec.head_dim)
        turned = yield from self.layers.positioned(
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
