"""Evaluating a study: each prompt is read once, and compressed by every policy that has not seen it."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import islice
from pathlib import Path

from orchestrator.quality.results import Point, Result, ResultStore
from orchestrator.quality.study import FIDELITY, LONGBENCH, LONGEVAL, Study, TaskChoice
from parties.errors import PromptError
from parties.policies import make
from parties.policies.base import Policy
from parties.quality.answering import Sample, answer, asked
from parties.quality.fidelity import fidelity
from parties.quality.files import longbench, longeval, text_of
from parties.quality.reader import Reader
from parties.quality.tasks import TASKS

_FILES = {LONGBENCH: longbench, LONGEVAL: longeval}


def points_of(study: Study) -> list[Point]:
    """All points of a study, those of one prompt side by side."""
    return [
        Point(task=str(task), length=length, question=question, sample=sample, policy=policy)
        for length in study.lengths
        for task in study.tasks
        for question in (("none",) if task.name == FIDELITY else study.questions)
        for sample in range(study.samples)
        for policy in study.choices()
    ]


def unfinished(study: Study, store: ResultStore) -> list[Point]:
    """The points that have no result yet."""
    done = {result.point.id for result in store.read()}
    return [point for point in points_of(study) if point.id not in done]


def evaluate(study: Study, store: ResultStore, tick: Callable[[Result], None]) -> None:
    """Evaluates what is left of a study.

    Args:
        study: The study.
        store: Where results go, each as soon as it is there.
        tick: Called with each.

    Raises:
        PartyError: The model, a file or a policy's heads cannot be used.
    """
    left = unfinished(study, store)
    tasks = {str(task): task for task in study.tasks}
    bench = _Bench(study)
    bench.prepare([task for name, task in tasks.items() if any(point.task == name for point in left)])
    while left:
        first = left[0]
        same = [point for point in left if _prompt(point) == _prompt(first)]
        left = left[len(same) :]
        policies = [make(point.policy.name, **point.policy.parameters) for point in same]
        values = bench.values(tasks[first.task], first, policies)
        for point, found in zip(same, values, strict=True):
            result = Result(**dict(point), values=found)
            store.append(result)
            tick(result)


def _prompt(point: Point) -> tuple[str, int, str, int]:
    return point.task, point.length, point.question, point.sample


class _Bench:
    """The model and the tasks' files."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._texts: dict[str, list[int]] = {}

    def prepare(self, tasks: Sequence[TaskChoice]) -> None:
        """Reads the texts, so that one that is too short is refused before any work.

        Raises:
            PromptError: A text cannot be read, or is too short for the samples.
        """
        needed = self._study.samples * (max(self._study.lengths) + self._study.continuation)
        for task in tasks:
            if task.name == FIDELITY and task.file is not None:
                tokens = self._reader.tokenizer.encode(text_of(Path(task.file)))
                if len(tokens) < needed:
                    raise PromptError(
                        f"tasks: {task.file} has {len(tokens)} tokens; {self._study.samples} samples of "
                        f"{max(self._study.lengths)} and {self._study.continuation} that follow take {needed}; give a "
                        "longer text, or ask for fewer samples"
                    )
                self._texts[task.file] = tokens

    def values(self, task: TaskChoice, point: Point, policies: Sequence[Policy]) -> Iterator[dict[str, float]]:
        """What each policy does to one prompt."""
        if task.name == FIDELITY:
            return self._follow(task, point, policies)
        return self._ask(task, point, policies)

    @cached_property
    def _reader(self) -> Reader:
        return Reader(self._study.model, self._study.device)

    def _follow(self, task: TaskChoice, point: Point, policies: Sequence[Policy]) -> Iterator[dict[str, float]]:
        whole = point.length + self._study.continuation
        window = self._texts[task.file or ""][point.sample * whole : (point.sample + 1) * whole]
        prefix = self._reader.read(window[: point.length - 1])
        continuation = window[point.length - 1 :]
        reference = self._reader.reference(prefix, continuation[:-1])
        for policy in policies:
            yield asdict(fidelity(self._reader, prefix, reference, continuation, policy))

    def _ask(self, task: TaskChoice, point: Point, policies: Sequence[Policy]) -> Iterator[dict[str, float]]:
        sample = self._sample(task, point)
        cut = asked(self._reader, sample, "hidden" if point.question == "hidden" else "visible")
        needed = len(cut.before) + len(cut.after) + sample.new_tokens
        if needed > self._reader.spec.max_positions:
            raise PromptError(
                f"tasks: sample {point.sample} of {task} takes {needed} tokens, the model has "
                f"{self._reader.spec.max_positions} positions; give shorter samples"
            )
        prefix = self._reader.read(cut.before)
        for policy in policies:
            yield {"accuracy": answer(self._reader, prefix, cut.after, policy, sample)}

    def _sample(self, task: TaskChoice, point: Point) -> Sample:
        if task.name in _FILES:
            found = next(islice(_FILES[task.name](Path(task.file or "")), point.sample, None), None)
            if found is None:
                raise PromptError(f"tasks: {task.file} has no sample {point.sample}; ask for fewer samples")
            return found
        draw = random.Random(f"{self._study.seed} {task.name} {point.length} {point.sample}")  # noqa: S311 - tasks
        try:
            return TASKS[task.name](draw, lambda text: len(self._reader.tokenizer.encode(text)) <= point.length)
        except ValueError as error:
            raise PromptError(f"lengths: {point.length}, task {task.name}: {error}") from None
