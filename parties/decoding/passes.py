"""A pass takes several tokens of one sequence through the layers at once; see `parties.decoding.verification`."""

from typing import Any

from parties.decoding.cache import Cache, Rows
from parties.decoding.clusters import Selection
from parties.decoding.decoder import Decoder
from parties.decoding.layer_names import LayerName
from parties.decoding.program import Program, parallel


def pass_layer(decoder: Decoder, cache: Cache, layer: int) -> Program[None]:
    """As `Decoder.step_layer`, for the tokens of a pass.

    Policies select while the layer ends with the first token of the pass; the last cluster, which they always attend
    to, then grows by the others. What a policy does after attention waits until it is known which tokens stay.
    """
    here, after, engine = cache.layers[layer], cache.layers[(layer + 1) % decoder.spec.n_layers], decoder.engine
    (rows,), here.rows = here.rows, ()
    left = decoder.left(cache) + rows.shape[0] - 1
    here.make_room(engine, decoder.policy.begin_tokens, needed=rows.shape[0], wanted=left)
    qkv, *guessed = yield from decoder.layers.project(rows, *decoder.attention.products(layer))
    q, k, v = yield from _query_key_value(decoder, layer, qkv, cache.position)
    known = decoder.policy.known_selection(cache, layer)
    here.append(engine, k[:, :1], v[:, :1])
    programs: list[Program[Any]] = [_attend(decoder, cache, layer, q, (k[:, 1:], v[:, 1:]), known, rows)]
    programs += [_select_ahead(decoder, cache, layer + 1, guess) for guess in guessed]
    (row, *_) = yield from parallel(*programs)
    after.rows = (row,)


def pass_name(decoder: Decoder, cache: Cache, layer: int, tokens: int) -> LayerName:
    """See `Policy.pass_name`; the layer has room for the tokens of the pass afterwards."""
    left = decoder.left(cache) + tokens - 1
    cache.layers[layer].make_room(decoder.engine, decoder.policy.begin_tokens, needed=tokens, wanted=left)
    return decoder.layer_name(layer, decoder.policy.pass_name(cache, layer))


def _attend(
    decoder: Decoder, cache: Cache, layer: int, q: Any, later: tuple[Any, Any], selection: Selection | None, rows: Rows
) -> Program[Rows]:
    """The rest of a layer from the queries on.

    Args:
        decoder: The model.
        cache: The cache; the layer holds the first token.
        layer: Index of the layer.
        q: Queries, [heads, n, head_dim].
        later: Keys and values of the other tokens, [kv_heads, n - 1, head_dim].
        selection: What is attended to, if the policy needs no query for it.
        rows: The rows that entered the layer, [n, hidden].
    """
    here, n = cache.layers[layer], q.shape[1]
    if decoder.policy.needs_query(layer):
        selection = yield from decoder.policy.before_attention(decoder.engine, cache, layer, _as_heads(q))
    here.append(decoder.engine, *later)
    if selection is not None:
        mixed = yield from decoder.engine.attend_selected(q, here, selection.extended(n - 1))
    elif decoder.policy.observes:
        mixed, here.weights = yield from decoder.engine.attend_observed(q, here)
    else:
        mixed = yield from decoder.engine.attend(q, here, window=decoder.spec.window(layer))
    return (yield from decoder.layers.finish(layer, rows, mixed))


def _select_ahead(decoder: Decoder, cache: Cache, layer: int, q: Any) -> Program[None]:
    """Lets the policy select for a later layer with guesses of its queries, [n, heads * head_dim]."""
    heads = q.reshape(q.shape[0], decoder.spec.n_heads, decoder.spec.head_dim).transpose(0, 1)
    turned = yield from decoder.layers.positioned(layer, heads, cache.position, None, "similarity")
    yield from decoder.policy.select_ahead(decoder.engine, cache, layer, _as_heads(decoder.engine.to_cache(turned)))


def _query_key_value(decoder: Decoder, layer: int, qkv: Any, position: int) -> Program[tuple[Any, Any, Any]]:
    """Queries, keys and values of a pass, [heads or kv_heads, n, head_dim], with positions from `position` on."""
    spec, engine, n = decoder.spec, decoder.engine, qkv.shape[0]
    decoder.attention.check_windows(position + n)
    heads = qkv.reshape(n, spec.n_heads + 2 * spec.n_kv_heads, spec.head_dim).transpose(0, 1)
    turned = spec.n_heads + spec.n_kv_heads
    qk = yield from decoder.layers.positioned(layer, heads[:turned], position, None, "rope")
    with engine.meter.stage("qkv"):
        qk, v = engine.to_cache(qk), engine.to_cache(heads[turned:])
    return qk[: spec.n_heads], qk[spec.n_heads :], v


def _as_heads(q: Any) -> Any:
    """Queries of several tokens, [heads, n, head_dim], as those of one token with n times as many heads."""
    heads, n, d = q.shape
    return q.reshape(heads * n, 1, d)
