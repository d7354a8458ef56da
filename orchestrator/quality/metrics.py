"""Scores of answers, 0 to 1, each as its benchmark computes it."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import chain

from orchestrator.quality.chinese import bare_words, words


def all_found(answer: str, answers: Sequence[str]) -> float:
    """Share of the expected strings that occur in the answer: RULER's `string_match_all` (arXiv 2404.06654)."""
    given = answer.lower()
    return sum(one.lower() in given for one in answers) / len(answers)


def first_number(answer: str, answers: Sequence[str]) -> float:
    """Whether the first number of the answer is the expected one: line retrieval."""
    found = re.search(r"\d+", answer)
    return float(found is not None and int(found[0]) == int(answers[0]))


def f1(answer: str, answers: Sequence[str]) -> float:
    """Best F1 of words, SQuAD's normalisation: LongBench's `qa_f1_score` (arXiv 2308.14508)."""
    return max(_overlap(_words(answer), _words(one)) for one in answers)


def f1_zh(answer: str, answers: Sequence[str]) -> float:
    """Best F1 of Chinese words: LongBench's `qa_f1_zh_score`."""
    return max(_overlap(bare_words(answer), bare_words(one)) for one in answers)


def rouge_l(answer: str, answers: Sequence[str]) -> float:
    """Best ROUGE-L of a summary: LongBench's `rouge_score`."""
    return max(_rouge_l(answer, one) for one in answers)


def rouge_l_zh(answer: str, answers: Sequence[str]) -> float:
    """Best ROUGE-L of a Chinese summary, with spaces between its words: LongBench's `rouge_zh_score`."""
    given = " ".join(words(answer))
    return max(_rouge_l(given, " ".join(words(one))) for one in answers)


def edit_similarity(answer: str, answers: Sequence[str]) -> float:
    """Similarity of the first line of code that is not a comment: LongBench's `code_sim_score`.

    LongBench uses fuzzywuzzy's ratio, which is `difflib`'s in whole per cent, and 0 for an empty line. With
    python-Levenshtein, which LongBench does not require, fuzzywuzzy computes another ratio.
    """
    lines = answer.lstrip("\n").split("\n")
    line = next((line for line in lines if not any(mark in line for mark in ("`", "#", "//"))), "")
    return max(_ratio(line, one) for one in answers)


def classification(answer: str, answers: Sequence[str], classes: Sequence[str]) -> float:
    """One over the number of classes that the answer names, if the right one is among them: `classification_score`.

    A class whose name is part of the right one's does not count. LongBench removes it from the list that it iterates
    over and so skips the next class, which then always counts; this function does the same.
    """
    return max(_named(answer, one, classes) for one in answers)


def count(answer: str, answers: Sequence[str]) -> float:
    """Share of the answer's numbers that are the right one: LongBench's `count_score`."""
    return max(_share(answer, one) for one in answers)


def retrieval(answer: str, answers: Sequence[str]) -> float:
    """Share of the answer's numbers that are the right paragraph's: LongBench's `retrieval_score`."""
    return max(_share(answer, _number("Paragraph ", one)) for one in answers)


def retrieval_zh(answer: str, answers: Sequence[str]) -> float:
    """The same in Chinese: LongBench's `retrieval_zh_score`."""
    return max(_share(answer, _number("段落", one)) for one in answers)


def _words(text: str) -> list[str]:
    """Lower case, without punctuation and articles."""
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def _overlap(given: list[str], right: list[str]) -> float:
    """Harmonic mean of precision and recall."""
    common = sum((Counter(given) & Counter(right)).values())
    return 2 * common / (len(given) + len(right)) if common else 0.0


def _rouge_l(answer: str, right: str) -> float:
    """F of ROUGE-L for summaries (Lin 2004, section 3.2), as the package `rouge` 1.0.1 computes it.

    Full stops end sentences, and a word counts once. Where the package raises an error, LongBench scores 0. So does
    this function for an empty text, but not for a sentence of about 1,000 words, on which the package exceeds Python's
    recursion limit.
    """
    given, expected = _sentences(answer), _sentences(right)
    if not given or not expected:
        return 0.0
    common = {word for one in expected for other in given for word in _longest_common(one, other)}
    precision, recall = (len(common) / len(set(chain(*sentences))) for sentences in (given, expected))
    return 2 * precision * recall / (precision + recall + 1e-8)


def _sentences(text: str) -> list[list[str]]:
    """Words of each sentence; a sentence of spaces has one word, the empty one."""
    return [" ".join(sentence.split()).split(" ") for sentence in text.split(".") if sentence]


def _longest_common(a: Sequence[str], b: Sequence[str]) -> list[str]:
    """A longest common subsequence, last word first; among several the one that the package `rouge` finds."""
    length = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, word in enumerate(a, 1):
        for j, other in enumerate(b, 1):
            same = word == other
            length[i][j] = length[i - 1][j - 1] + 1 if same else max(length[i - 1][j], length[i][j - 1])
    found, i, j = [], len(a), len(b)
    while i and j:
        if a[i - 1] == b[j - 1]:
            found.append(a[i - 1])
            i, j = i - 1, j - 1
        elif length[i - 1][j] > length[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found


def _ratio(line: str, right: str) -> float:
    if line == right:
        return 1.0
    if not line or not right:
        return 0.0
    return round(100 * SequenceMatcher(None, line, right).ratio()) / 100


def _named(answer: str, right: str, classes: Sequence[str]) -> float:
    named, passed_over = [], False
    for one in (one for one in classes if one in answer):
        part = not passed_over and one in right and one != right
        if not part:
            named.append(one)
        passed_over = part
    return 1 / len(named) if right in named else 0.0


def _number(mark: str, text: str) -> str:
    found = re.search(rf"{mark}(\d+)", text)
    return found[1] if found else ""


def _share(answer: str, right: str) -> float:
    numbers = re.findall(r"\d+", answer)
    return sum(number == right for number in numbers) / len(numbers) if numbers else 0.0
