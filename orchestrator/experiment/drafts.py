"""The axis `draft` of an experiment: how files name drafts, and cells that cannot verify them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from pydantic import ValidationInfo

from orchestrator.experiment.axes import Axes, Point, points
from orchestrator.experiment.choices import located
from orchestrator.experiment.problems import Problem, Rejected
from parties.errors import ModelError
from parties.options import DraftOptions

if TYPE_CHECKING:
    from parties.models.spec import ModelSpec

_FIX = "leave the draft out of these cells by exclude, or change them"


class Drafted(Axes, Protocol):
    """An experiment, as far as its drafts concern it."""

    @property
    def model(self) -> str:
        """The model that verifies."""

    @property
    def new_tokens(self) -> int:
        """Tokens to decode in each cell."""

    @property
    def offline(self) -> str:
        """When correlated randomness is received."""

    @property
    def draft(self) -> Sequence[DraftOptions | None]:
        """The axis."""


def read_draft(given: object, info: ValidationInfo) -> object:
    """A draft of a file: `none`, or a mapping, in which the path of a model starts where the experiment's do.

    Raises:
        Rejected: The path of a model cannot be looked up.
    """
    if given in ("none", None):
        return None
    if isinstance(given, str):
        allowed = "none, {lookup: TOKENS} or {model: MODEL, tokens: TOKENS}"
        raise Rejected(Problem("", given, allowed, "write one of them"))
    model = given.get("model") if isinstance(given, dict) else None
    if isinstance(given, dict) and isinstance(model, str) and not model.startswith("random:"):
        try:
            found = located(model, info)
        except Rejected as error:
            raise Rejected(*(replace(problem, path="model") for problem in error.problems)) from None
        return given if found is None else {**given, "model": str(found)}
    return given


def draft_problems(experiment: Drafted, model_spec: "Callable[[str], ModelSpec]") -> Iterator[Problem]:
    """The drafts that cannot be verified in some of their cells, with each reason once.

    Args:
        experiment: The experiment.
        model_spec: Describes a model; raises `ModelError`.
    """
    for place, draft in enumerate(experiment.draft):
        if draft is not None:
            cells = (point for point in points(experiment) if point.draft == draft)
            path = f"draft[{place}]"
            found = (_problem(path, experiment, point, draft, model_spec) for point in cells)
            yield from {problem.reason: problem for problem in found if problem is not None}.values()


def _problem(
    path: str, experiment: Drafted, point: Point, draft: DraftOptions, model_spec: "Callable[[str], ModelSpec]"
) -> Problem | None:
    from parties.decoding.decoder import draft_problem  # torch comes with them, and most commands do without
    from parties.decoding.drafts import vocabulary_problem
    from parties.engines.factory import engine_class
    from parties.engines.fss.dealing.plan import STORED_PROBLEM

    engine, spec, tokens = point.engine.name, model_spec(experiment.model), point.seq_len + experiment.new_tokens
    allowed, fix, reason = (
        "cells that can verify drafts",
        _FIX,
        draft_problem(engine_class(engine), point.policy.build(), point.batch),
    )
    if not reason and engine == "fss" and experiment.offline == "stored":
        allowed, fix, reason = "none with offline: stored", "take offline: streamed", STORED_PROBLEM
    if not reason and tokens + draft.count > (most := spec.max_positions):
        allowed, fix = f"at most {most - tokens} tokens", "shorten the draft or the prompt, or lower new_tokens"
        reason = f"{experiment.model} has {most} positions, and {tokens} tokens and a draft need {tokens + draft.count}"
    if not reason and draft.model is not None:
        allowed, fix = "a model that shares the tokenizer of the experiment's", "take another model"
        try:
            reason = vocabulary_problem(draft.model, model_spec(draft.model).vocab, spec.vocab)
        except ModelError as error:
            allowed, reason = "a model that can be loaded", str(error)
    return Problem(path, str(draft), allowed, fix, reason) if reason else None
