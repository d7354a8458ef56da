"""Evaluates a study: each prompt is read once, and compressed by every policy that has no result for it."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

from orchestrator.quality.answering import Sample, answer, split_sample
from orchestrator.quality.fidelity import fidelity
from orchestrator.quality.files import longeval, text_of
from orchestrator.quality.longbench import longbench
from orchestrator.quality.press import PressedModel, make_press
from orchestrator.quality.reader import Prefix, Reader, Step
from orchestrator.quality.results import FORM, Point, Result, ResultStore
from orchestrator.quality.study import FIDELITY, LONGBENCH, LONGEVAL, Study, TaskChoice
from orchestrator.quality.tasks import TASKS
from parties.errors import PromptError

_FILES = {LONGBENCH: longbench, LONGEVAL: longeval}


def points_of(study: Study) -> list[Point]:
    """All points of a study; those of one prompt are adjacent."""
    ways = [{"policy": policy} for policy in study.choices()] + [{"press": press} for press in study.presses]
    return [
        Point(task=str(task), length=length, question=question, sample=sample, **way)
        for length in study.lengths
        for task in study.tasks
        for question in (("none",) if task.name == FIDELITY else study.questions)
        for sample in range(study.samples)
        for way in ways
    ]


def unfinished(study: Study, store: ResultStore) -> list[Point]:
    """The points that have no result yet."""
    done = {result.point.id for result in store.read()}
    return [point for point in points_of(study) if point.id not in done]


def by_prompt(points: Sequence[Point]) -> list[list[Point]]:
    """The points of each prompt."""
    found: dict[tuple[str, int, str, int], list[Point]] = {}
    for point in points:
        found.setdefault((point.task, point.length, point.question, point.sample), []).append(point)
    return list(found.values())


class Bench:
    """Evaluates points; holds the model and the tasks' files.

    Args:
        study: The study.
        store: Receives each result as soon as it is computed.
    """

    def __init__(self, study: Study, store: ResultStore) -> None:
        self._study, self._store = study, store
        self._tasks = {str(task): task for task in study.tasks}
        self._texts: dict[str, list[int]] = {}
        self._samples: dict[str, list[Sample]] = {}

    def evaluate(self, points: Sequence[Point]) -> Iterator[Result]:
        """Evaluates points of one prompt.

        Raises:
            PartyError: The model, a file or a policy's heads cannot be used.
        """
        for point, found in zip(points, self._values(self._tasks[points[0].task], points), strict=True):
            result = Result(**dict(point), values=found, form=FORM)
            self._store.append(result)
            yield result

    def prepare(self, points: Sequence[Point]) -> None:
        """Reads the files and builds the presses, so that bad ones are refused before any other work.

        Raises:
            PromptError: A file cannot be read or is too short for the samples, or a press cannot be built.
        """
        wanted = {point.task for point in points}
        tasks = [task for name, task in self._tasks.items() if name in wanted]
        for press in self._study.presses:
            make_press(press)
        for task in tasks:
            if task.file is None:
                continue
            path = Path(task.file)
            if task.name in _FILES:
                self._samples[str(task)] = found = list(islice(_FILES[task.name](path), self._study.samples))
                if len(found) < self._study.samples:
                    raise PromptError(
                        f"tasks: {path} has {len(found)} samples, samples asks for {self._study.samples}; ask for fewer"
                    )
            else:
                self._texts[task.file] = self._text(path)

    def _text(self, path: Path) -> list[int]:
        """The tokens of a text, without those that the tokenizer adds; refuses a text that is too short."""
        study, tokens = self._study, self._reader.tokenizer.encode(text_of(path), special=False)
        needed = study.samples * self._window(max(study.lengths))
        if len(tokens) < needed:
            raise PromptError(
                f"tasks: {path} has {len(tokens)} tokens; {study.samples} samples of {max(study.lengths)} and "
                f"{study.continuation} that follow take {needed}; give a longer text, or ask for fewer samples"
            )
        return tokens

    def _window(self, length: int) -> int:
        """Tokens of the text per sample: the leading token of a sample is not part of the text."""
        return length + self._study.continuation - len(self._reader.tokenizer.leading)

    def _values(self, task: TaskChoice, points: Sequence[Point]) -> Iterator[dict[str, float]]:
        """The measures of one prompt under each policy and press."""
        return self._follow(task, points) if task.name == FIDELITY else self._ask(task, points)

    @cached_property
    def _reader(self) -> Reader:
        return Reader(self._study.model, self._study.device)

    @cached_property
    def _pressed(self) -> PressedModel:
        return PressedModel(self._study.model, self._study.device)

    def _compressed(self, prefix: Prefix, point: Point) -> Step:
        """The prompt's cache, compressed by the policy or press of a point."""
        if point.policy is None:
            return partial(self._pressed.step, self._pressed.compress(prefix.tokens, make_press(point.press or "")))
        policy = point.policy.build()
        return partial(self._reader.step, policy, self._reader.compress(prefix, policy))

    def _follow(self, task: TaskChoice, points: Sequence[Point]) -> Iterator[dict[str, float]]:
        length, whole = points[0].length, self._window(points[0].length)
        text = self._texts[task.file or ""][points[0].sample * whole :][:whole]
        window = self._reader.tokenizer.leading + text
        prefix, continuation = self._reader.read(window[: length - 1]), window[length - 1 :]
        reference = self._reader.reference(prefix, continuation[:-1])
        for point in points:
            yield asdict(fidelity(self._compressed(prefix, point), reference, continuation))

    def _ask(self, task: TaskChoice, points: Sequence[Point]) -> Iterator[dict[str, float]]:
        first, tokenizer = points[0], self._reader.tokenizer
        sample = self._sample(task, first)
        max_tokens = first.length if task.name == LONGBENCH else None  # the others are generated to a length or fixed
        cut = split_sample(tokenizer, sample, "hidden" if first.question == "hidden" else "visible", max_tokens)
        needed, positions = len(cut.before) + len(cut.after) + sample.new_tokens, self._reader.spec.max_positions
        if needed > positions:
            raise PromptError(
                f"tasks: sample {first.sample} of {task} takes {needed} tokens, the model has {positions} positions; "
                f"give shorter samples, or a shorter length for {LONGBENCH}"
            )
        prefix, ends = self._reader.read(cut.before), self._reader.spec.eos_ids
        for point in points:
            yield {"accuracy": answer(self._compressed(prefix, point), cut.after, sample, tokenizer, ends)}

    def _sample(self, task: TaskChoice, point: Point) -> Sample:
        if task.name in _FILES:
            return self._samples[str(task)][point.sample]
        draw = random.Random(f"{self._study.seed} {task.name} {point.length} {point.sample}")  # noqa: S311 - tasks
        try:
            return TASKS[task.name](draw, lambda text: len(self._reader.tokenizer.encode(text)) <= point.length)
        except ValueError as error:
            raise PromptError(f"lengths: {point.length}, task {task.name}: {error}") from None
