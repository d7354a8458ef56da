"""LongBench's data sets (arXiv 2308.14508), asked and scored as published.

longbench.json has each set's prompt, metric and length of answer, word for word, as LongBench has them in
config/dataset2prompt.json, config/dataset2maxlen.json and eval.py (https://github.com/THUDM/LongBench, MIT licence).
A slip of the pen in a published prompt ("asconcisely") stays: scores are of the prompt as it is.
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
"""Sets of few-shot examples: a model goes on with examples of its own, and only the answer's first line is scored."""


def longbench(path: Path) -> Iterator[Sample]:
    """The samples of one of LongBench's files, or of LongBench-E's, JSON lines.

    The context is the prompt up to the end of the document, the question is the rest: both together are the published
    prompt. No chat template is put around it.

    Raises:
        PromptError: the file cannot be read or is not LongBench's, its data set is none of LongBench's, or a package is
            missing that the set's score takes.
    """
    for number, row in rows(path, _KEYS):
        where = f"file: {path}, line {number}"
        name = str(row["dataset"]).removesuffix("_e")
        if name not in forms():
            raise PromptError(
                f"{where}: the prompt of data set {row['dataset']!r} is not known; known are those of LongBench: "
                f"{', '.join(forms())}; ask it as another task"
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
        raise PromptError(f"{where}: {name} is scored by {metric}, which takes jieba: {chinese.INSTALL}")
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
