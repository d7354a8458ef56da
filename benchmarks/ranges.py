"""Minimum and maximum of every value of a model for which a private engine declares a range.

    python benchmarks/ranges.py MODEL [--engine fss] [--text FILE] [--tokens 512] [--new 1] [--policy full] [--rest]

The plain engine runs the prompt, of a text or of random tokens, and decodes a few tokens. A value that leaves its range
is marked: beyond the range `certain` values are always wrong, `rare` ones with a small probability. With `--rest` only
decoding is shown, without the prompt and its first token, whose values are the largest in many models.
"""

import argparse
import math
from pathlib import Path

import torch

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder, decode_token
from parties.decoding.program import run
from parties.engines.bounds import Watch
from parties.engines.factory import engine_class
from parties.engines.watched import WatchedEngine
from parties.metering.meter import StageMeter
from parties.models import load_spec, load_tokenizer, load_weights
from parties.models.folding import fold, folded_shapes
from parties.policies import make


def main() -> None:
    given = parse()
    spec, engine = load_spec(given.model), WatchedEngine(StageMeter(), torch.float32)
    run(engine.install(folded_shapes(spec), fold(spec, load_weights(given.model))))
    decoder, cache = Decoder(engine, spec, make(given.policy)), Cache.empty(spec.n_layers)
    bounds = engine_class(given.engine).bounds
    engine.watch = watch = Watch({} if given.rest else bounds)
    *prompt, token = tokens_of(given, spec.vocab)
    run(decoder.prefill(run(decoder.embed(prompt, len(prompt), 0)), cache))
    watch.bounds = bounds
    for index in range(given.new):
        watch.token = index + 1
        _, chosen = run(decode_token(decoder, cache, [token], "private"))
        token = chosen or 0
    what = f"{given.text} " if given.text else "random tokens "
    print(f"{given.model}, {what}({len(prompt) + 1}), {given.policy}, {given.engine}\n")
    print("| number | least | largest | range | beyond it | left |\n|---|---|---|---|---|---|")
    for key, (least, largest) in watch.seen.items():
        bound = bounds[key]
        left = "" if bound.low <= least and largest <= bound.high else "**yes**"
        span = f"{bound.low:,.6g} to {bound.high:,.6g}" if math.isfinite(bound.high) else "as the policy says"
        print(f"| {bound.number} | {least:,.4g} | {largest:,.4g} | {span} | {bound.kind} | {left} |")
    for first in watch.first.values():
        print(f"\nfirst of kind {first.kind}: {first}")
    if watch.chance:
        print(f"\nprobability that a truncation beyond its range was wrong: {watch.chance:.1e}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Ranges of a model's values and those that an engine supports.")
    parser.add_argument("model")
    parser.add_argument("--engine", choices=("fss", "crypten"), default="fss")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--new", type=int, default=1)
    parser.add_argument("--policy", default="full")
    parser.add_argument("--rest", action="store_true")
    return parser.parse_args()


def tokens_of(given: argparse.Namespace, vocab: int) -> list[int]:
    """The prompt."""
    if given.text is None:
        return torch.randint(vocab, (given.tokens,), generator=torch.Generator().manual_seed(0)).tolist()
    return load_tokenizer(given.model).encode(given.text.read_text(encoding="utf-8"))[: given.tokens]


if __name__ == "__main__":
    main()
