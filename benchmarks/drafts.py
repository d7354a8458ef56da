"""How many tokens of look-up drafts are right: greedy text of a model in the clear, in passes of several sizes.

    python benchmarks/drafts.py smollm2-135m articles.jsonl [--task summary] [--tokens 512] [--new 64] [--texts 8]

A file of texts is UTF-8, one text, or JSON lines with the key `context`, as those of LongBench. `continue` continues
the first tokens of a text, `summary` puts a question for a summary after them. Drafts change no token, so each text is
decoded once. A pass of K + 1 tokens decodes 1 + accepted tokens; `cost` says from which number on it pays.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.drafts import Drafting, LookUp
from parties.decoding.program import run
from parties.decoding.verification import agreeing
from parties.engines.plain import PlainEngine
from parties.metering.meter import StageMeter
from parties.models import load_spec, load_tokenizer, load_weights
from parties.models.folding import fold, folded_shapes
from parties.policies import Full

QUESTION = {"continue": "", "summary": "\n\nSummary of the text above:"}


def texts(path: Path) -> Iterator[str]:
    """Iterates over the texts of a file."""
    if path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as lines:
            yield from (json.loads(line)["context"] for line in lines)
    else:
        yield path.read_text(encoding="utf-8")


def decoded(decoder: Decoder, prompt: Sequence[int], new: int) -> list[int]:
    """Decodes greedily, in passes."""
    cache = Cache.empty(decoder.spec.n_layers)
    run(decoder.prefill(run(decoder.embed(prompt[:-1], len(prompt) - 1, 0)), cache))
    drafting = Drafting(decoder, cache, new, 4, "private", LookUp(), list(prompt))
    for _ in drafting.passes():
        pass
    return drafting.text[len(prompt) :]


def tokens_per_pass(prompt: Sequence[int], answer: Sequence[int], count: int) -> float:
    """Counts the tokens that a pass with look-up drafts of `count` tokens decodes, on average."""
    done, passes = 0, 0
    while done < len(answer):
        draft = LookUp().draft([*prompt, *answer[:done]], count)
        done += min(len(answer) - done, 1 + agreeing(draft, answer[done:]))
        passes += 1
    return len(answer) / passes


def main() -> None:
    """Prints tokens per pass and acceptance for each size of a draft."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("texts", type=Path)
    parser.add_argument("--task", choices=QUESTION, default="continue")
    parser.add_argument("--tokens", type=int, default=512, help="of the text; the question comes after them")
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--texts", type=int, default=8, dest="most", help="first ones of the file")
    parser.add_argument("--lookup", type=int, nargs="+", default=[1, 2, 4, 8])
    asked = parser.parse_args()
    spec, tokenizer = load_spec(asked.model), load_tokenizer(asked.model)
    engine = PlainEngine(StageMeter())
    run(engine.install(folded_shapes(spec), fold(spec, load_weights(asked.model))))
    decoder, found = Decoder(engine, spec, Full()), list[tuple[list[int], list[int]]]()
    for text, _ in zip(texts(asked.texts), range(asked.most), strict=False):
        question = tokenizer.encode(QUESTION[asked.task]) if QUESTION[asked.task] else []
        prompt = [*tokenizer.encode(text)[: asked.tokens], *question]
        found.append((prompt, decoded(decoder, prompt, asked.new)))
    print(f"{asked.task}, {len(found)} texts of {asked.tokens} tokens, {asked.new} new ones each, {asked.model}")
    print("draft  tokens per pass (least, mean, most)  accepted of a draft")
    for count in asked.lookup:
        each = [tokens_per_pass(prompt, answer, count) for prompt, answer in found]
        share = (fmean(each) - 1) / count
        print(f"{count:5}  {min(each):10.2f} {fmean(each):10.2f} {max(each):10.2f}  {share:19.0%}")


if __name__ == "__main__":
    main()
