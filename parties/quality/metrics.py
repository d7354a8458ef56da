"""How an answer is scored, as the benchmarks that the metrics come from do it; each from 0 to 1."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher


def all_found(answer: str, answers: Sequence[str]) -> float:
    """Share of the expected strings that occur in the answer: RULER's `string_match_all` (arXiv 2404.06654)."""
    said = answer.lower()
    return sum(one.lower() in said for one in answers) / len(answers)


def first_number(answer: str, answers: Sequence[str]) -> float:
    """Whether the first number of the answer is the expected one: LongEval's line retrieval."""
    found = re.search(r"\d+", answer)
    return float(found is not None and int(found[0]) == int(answers[0]))


def f1(answer: str, answers: Sequence[str]) -> float:
    """Best F1 of words, SQuAD's normalisation: LongBench's `qa_f1_score` (arXiv 2308.14508)."""
    return max(_overlap(_words(answer), _words(one)) for one in answers)


def rouge_l(answer: str, answers: Sequence[str]) -> float:
    """Best F1 of the longest common subsequence of words: LongBench's `rouge_score` without its cut into sentences."""
    said = answer.split()
    return max(_f(_common(said, one.split()), len(said), len(one.split())) for one in answers)


def edit_similarity(answer: str, answers: Sequence[str]) -> float:
    """Similarity of the first line that is code and no comment: LongBench's `code_sim_score`.

    LongBench takes fuzzywuzzy's ratio, which is twice the matched characters over all of them, rounded to per cent.
    """
    lines = answer.lstrip("\n").split("\n")
    line = next((line for line in lines if not any(mark in line for mark in ("`", "#", "//"))), "")
    return max(round(SequenceMatcher(None, line, one).ratio(), 2) for one in answers)


METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {
    "all_found": all_found,
    "first_number": first_number,
    "f1": f1,
    "rouge_l": rouge_l,
    "edit_similarity": edit_similarity,
}


def _words(text: str) -> list[str]:
    """Lower case, without punctuation and articles."""
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def _overlap(said: list[str], right: list[str]) -> float:
    return _f(sum((Counter(said) & Counter(right)).values()), len(said), len(right))


def _f(common: int, said: int, right: int) -> float:
    """Harmonic mean of precision and recall."""
    return 2 * common / (said + right) if common else 0.0


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for word in a:
        before = row[:]
        for i, other in enumerate(b):
            row[i + 1] = before[i] + 1 if word == other else max(before[i + 1], row[i])
    return row[-1]
