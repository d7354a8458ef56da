"""Verification of drafts: one pass computes several tokens, of which those stay that greedy decoding would have chosen.

The client drafts k tokens. A pass takes the last token and the draft through the model, k + 1 tokens with the rounds of
one, and the client learns the greedy choice after each. The draft is right as far as it equals these choices: so many
of its tokens are accepted, and the choice after them comes on top. The rows of the other tokens leave the cache.
(Leviathan et al., arXiv 2211.17192, with greedy decoding; in MPC Li et al., arXiv 2505.15252.)

The result is that of decoding one by one. A pass always has the same shape; the number of tokens that stay is known to
all parties.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.passes import pass_layer, pass_name
from parties.decoding.program import Program, parallel, run
from parties.decoding.steps import NamedSegment, choose, name_of, open_token


@dataclass(frozen=True)
class Verified:
    """The tokens that a pass decoded.

    Attributes:
        logits: Logits of each, [1, vocab].
        tokens: The tokens, at the client; None elsewhere.
    """

    logits: list[Any]
    tokens: list[int | None]


def pass_segments(
    decoder: Decoder, cache: Cache, tokens: Sequence[int] | None, count: int, argmax: str
) -> list[NamedSegment]:
    """A pass as programs, in order: embedding, layers, choices. The last one returns `Chosen`, for `open_token`.

    Args:
        decoder: The model.
        cache: Grows by all tokens of the pass; `settle` then drops the wrong ones.
        tokens: The last token and the draft, at their owner; None elsewhere. They are put into the cache.
        count: Number of these tokens, at least 2. Public.
        argmax: See `decoder.token_segments`.
    """
    cache.token[:] = tokens or ()
    layers = range(decoder.spec.n_layers)
    return [
        NamedSegment(partial(_enter, decoder, cache, count), lambda: "embed"),
        *(
            NamedSegment(partial(pass_layer, decoder, cache, n), partial(pass_name, decoder, cache, n, count))
            for n in layers
        ),
        NamedSegment(partial(choose, decoder, cache, argmax), lambda: "choose"),
    ]


def _enter(decoder: Decoder, cache: Cache, count: int) -> Program[None]:
    x = yield from decoder.embed(cache.token or None, count, cache.position)
    cache.layers[0].rows = (decoder.layers.rows(x),)


def settle(decoder: Decoder, cache: Cache, count: int, kept: int) -> Program[None]:
    """Keeps the first tokens of a pass, and does for each of them, in order, what the policy does after attention.

    Args:
        decoder: The model.
        cache: Ends with the tokens of the pass.
        count: Number of tokens in the pass.
        kept: Number of tokens that stay, at most `alike`. Public.
    """
    passed = [replace(layer) for layer in cache.layers]
    for row in range(kept):
        programs = []
        for index, (layer, full) in enumerate(zip(cache.layers, passed, strict=True)):
            layer.restore(full, full.tokens - count + row + 1)
            weights = None if full.weights is None else full.weights[:, row : row + 1]
            programs.append(decoder.policy.after_attention(decoder.engine, cache, index, weights))
        yield from parallel(*programs)
        cache.position += 1
    for layer in cache.layers:
        layer.weights = None


def alike(decoder: Decoder, cache: Cache, count: int) -> int:
    """How many of the next `count` tokens can be decoded in one pass: those whose steps are alike. Public.

    At least 1; see `Policy.pass_key`.
    """
    generated = cache.position - cache.prompt + 1
    keys = [
        [decoder.policy.pass_key(tokens + 1 + later, generated + later) for tokens in cache.tokens]
        for later in range(count)
    ]
    return next((later for later in range(count) if keys[later] != keys[0]), count)


def decode_pass(
    decoder: Decoder, cache: Cache, tokens: Sequence[int] | None, count: int, most: int, argmax: str
) -> Verified:
    """Runs a pass and keeps the tokens that are right.

    Args:
        decoder: The model.
        cache: Grows by the tokens that stay.
        tokens: The last token and the draft, at the client; None elsewhere.
        count: Number of these tokens, at least 2. Public.
        most: Tokens that are still to be decoded. Public.
        argmax: See `decoder.token_segments`.
    """
    engine, most = decoder.engine, min(most, alike(decoder, cache, count))
    found: Any = None
    for segment in pass_segments(decoder, cache, tokens, count, argmax):
        found = engine.run_segment(segment, cache, name_of(segment))
    logits, chosen = run(open_token(decoder, found), engine.exchange)
    own = None if tokens is None or chosen is None else min(most, 1 + agreeing(tokens[1:], chosen))
    with engine.meter.stage("draft"):
        kept = engine.announce(own, most)
    engine.run_segment(partial(settle, decoder, cache, count, kept), cache)
    rows = [logits[row : row + 1] for row in range(kept)]
    return Verified(rows, [None] * kept if chosen is None else list(chosen[:kept]))


def agreeing(draft: Sequence[int], chosen: Sequence[int]) -> int:
    """How many tokens of a draft equal the greedy choices, from the first on."""
    wrong = (place for place, (guess, token) in enumerate(zip(draft, chosen, strict=False)) if guess != token)
    return next(wrong, len(draft))
