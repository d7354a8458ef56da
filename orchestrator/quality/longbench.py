"""LongBench's data sets (arXiv 2308.14508), asked and scored as published.

longbench.json has each set's prompt, metric and length of answer, word for word, as LongBench has them in
config/dataset2prompt.json, config/dataset2maxlen.json and eval.py (https://github.com/THUDM/LongBench, MIT licence).
A typo in a published prompt ("asconcisely") stays: published scores are of that prompt.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from orchestrator.quality import chinese, metrics
from orchestrator.quality.answering import Metric, Sample
from orchestrator.quality.files import rows
from parties.errors import PromptError

_KEYS = ("input", "context", "answers", "dataset")
_METRICS: dict[str, Metric] = {
    "qa_f1_score": metrics.f1,
    "qa_f1_zh_score": metrics.f1_zh,
    "rouge_score": metrics.rouge_l,
    "rouge_zh_score": metrics.rouge_l_zh,
    "retrieval_score": metrics.retrieval,
    "retrieval_zh_score": metrics.retrieval_zh,
    "count_score": metrics.count,
    "code_sim_score": metrics.edit_similarity,
}
_BY_CLASS = "classification_score"
_WITH_JIEBA = ("qa_f1_zh_score", "rouge_zh_score")
_FIRST_LINE = ("trec", "triviaqa", "samsum", "lsht")
"""Few-shot sets: a model continues with examples of its own, so only the first line of an answer is scored."""


def longbench(path: Path) -> Iterator[Sample]:
    """The samples of a file of LongBench or LongBench-E (JSON lines).

    The context is the published prompt up to the end of the document, and the question is the rest. No chat template
    is added.

    Raises:
        PromptError: The file cannot be read or is not a LongBench file, its data set is unknown, or a package that the
            score needs is not installed.
    """
    for number, row in rows(path, _KEYS):
        where = f"file: {path}, line {number}"
        name = str(row["dataset"]).removesuffix("_e")
        if name not in forms():
            raise PromptError(
                f"{where}: the prompt of data set {row['dataset']!r} is not known; allowed: {', '.join(forms())}; "
                "evaluate it as another task"
            )
        form = forms()[name]
        before, _, after = form["prompt"].partition("{context}")
        yield Sample(
            context=before + _text(row, "context", where),
            question=after.replace("{input}", _text(row, "input", where)),
            answers=_texts(row, "answers", where),
            metric=_metric(name, form["metric"], row, where),
            new_tokens=form["new_tokens"],
            stop="\n" if name == "samsum" else "",
        )


@cache
def forms() -> Mapping[str, Any]:
    """`prompt`, `metric` and `new_tokens` of each set."""
    found: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    return found


def _metric(name: str, metric: str, row: Mapping[str, Any], where: str) -> Metric:
    if metric in _WITH_JIEBA and not chinese.available():
        raise PromptError(f"{where}: {name} is scored by {metric}, which needs jieba: {chinese.INSTALL}")
    if metric == _BY_CLASS:
        scored: Metric = partial(metrics.classification, classes=_texts(row, "all_classes", where))
    else:
        scored = _METRICS[metric]
    return partial(_by_first_line, scored) if name in _FIRST_LINE else scored


def _by_first_line(metric: Metric, answer: str, answers: Sequence[str]) -> float:
    return metric(answer.lstrip("\n").split("\n")[0], answers)


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    if not isinstance(row[key], str):
        raise PromptError(f"{where}: {key!r} is not a text; give the file as published")
    return str(row[key])


def _texts(row: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    found = row.get(key)
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        raise PromptError(f"{where}: {key!r} is not a list of texts; give the file as published")
    return tuple(found)
