"""The axes of a sweep: their points, linked axes, and exclusions."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Annotated, Any, Final, NamedTuple, Protocol, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from orchestrator.experiment.choices import EngineChoice
from orchestrator.experiment.networks import ResolvedNetwork
from orchestrator.experiment.problems import Problem, Rejected, unknown
from parties.options import DraftOptions, draft_words
from parties.policies.choice import PolicyChoice

AXES: Final = ("networks", "engines", "seq_lens", "policies", "batch", "draft")
"""Keys whose values are combined, outermost first, so that links are shaped and parties started rarely."""


class Point(NamedTuple):
    """The position of a cell on the axes."""

    network: ResolvedNetwork
    engine: EngineChoice
    seq_len: int
    policy: PolicyChoice
    batch: int
    draft: DraftOptions | None
    repeat: int
    warmup: bool


class Axes(Protocol):
    """The axes of an experiment."""

    @property
    def linked(self) -> Sequence[Sequence[str]]:
        """Groups of axes that vary together."""

    @property
    def exclude(self) -> "Sequence[Condition]":
        """The points to leave out."""

    @property
    def repeats(self) -> int:
        """Runs of each measurement that count."""

    @property
    def warmup(self) -> int:
        """Warm-up runs of each measurement, before those."""


def listed(value: object) -> object:
    """A value of an axis alone as a list of one."""
    return value if isinstance(value, list | tuple) else [value]


_Names = Annotated[tuple[str, ...], BeforeValidator(listed)]
_Numbers = Annotated[tuple[Annotated[int, Field(strict=True)], ...], BeforeValidator(listed)]


class Condition(BaseModel):
    """A selection of cells: those that have one of the given values on every named axis."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: _Names = Field(default=(), description="Names of networks.")
    engine: _Names = Field(default=(), description="Engines: a name, or `crypten-stock`.")
    seq_len: _Numbers = Field(default=(), description="Prompt lengths.")
    policy: _Names = Field(default=(), description="Policies: a name, or a name with its changed parameters.")
    batch: _Numbers = Field(default=(), description="Numbers of prompts that decode side by side.")
    draft: _Names = Field(default=(), description="Drafts: `none`, or in words, such as `lookup 4`.")
    repeat: _Numbers = Field(default=(), description="Repeats, from 0.")

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not any(getattr(self, name) for name in type(self).model_fields):
            known = ", ".join(type(self).model_fields)
            raise Rejected(Problem("", {}, f"a mapping with at least one of {known}", "add one, or remove the entry"))
        return self

    def matches(self, point: Point) -> bool:
        """Whether a point is selected."""
        has = self.names(point)
        return all(not getattr(self, name) or has[name] & set(getattr(self, name)) for name in has)

    @staticmethod
    def names(point: Point) -> Mapping[str, set[Any]]:
        """What a point is called on each axis."""
        return {
            "network": {point.network.name},
            "engine": {point.engine.name, str(point.engine)},
            "seq_len": {point.seq_len},
            "policy": {point.policy.name, str(point.policy)},
            "batch": {point.batch},
            "draft": {draft_words(point.draft)},
            "repeat": {point.repeat},
        }


def points(axes: Axes) -> Iterator[Point]:
    """All points that are not excluded; the runs of one measurement are consecutive, with its warm-up first."""
    return (point for point in _all_points(axes) if not any(condition.matches(point) for condition in axes.exclude))


def _all_points(axes: Axes) -> Iterator[Point]:
    runs = [(i, True) for i in range(axes.warmup)] + [(i, False) for i in range(axes.repeats)]
    for chosen in _combinations(axes):
        for repeat, warmup in runs:
            network, engine, seq_len, policy, batch, draft = (chosen[axis] for axis in AXES)
            yield Point(network, engine, seq_len, policy, batch, draft, repeat, warmup)


def _combinations(axes: Axes) -> Iterator[dict[str, Any]]:
    """The product of the axes; linked axes count as one, at the place of the first."""
    together = {name: tuple(group) for group in axes.linked for name in group}
    groups = list(dict.fromkeys(together.get(axis, (axis,)) for axis in AXES))
    steps = [list(zip(*(getattr(axes, name) for name in group), strict=True)) for group in groups]
    for chosen in product(*steps):
        yield {
            name: value
            for group, values in zip(groups, chosen, strict=True)
            for name, value in zip(group, values, strict=True)
        }


def check_linked(axes: Axes) -> list[Problem]:
    """The problems of `linked`."""
    found, seen = [], set()
    for i, group in enumerate(axes.linked):
        for j, name in enumerate(group):
            if name not in AXES:
                found.append(unknown(f"[{i}][{j}]", name, AXES, "axis"))
            elif name in seen:
                found.append(Problem(f"[{i}][{j}]", name, "each axis once", "take it out of one of the two"))
            seen.add(name)
        sizes = {name: len(getattr(axes, name)) for name in group if name in AXES}
        if len(set(sizes.values())) > 1:
            lengths = ", ".join(f"{name} has {length}" for name, length in sizes.items())
            found.append(
                Problem(f"[{i}]", list(group), "axes of equal length", "give them the same number of values", lengths)
            )
    return found


def _nowhere(condition: Condition, existing: Sequence[Point]) -> str:
    """Why a condition matches none of the points: by values that no point has, if there are any."""
    asked = condition.model_dump(exclude_defaults=True)
    absent = [
        f"{axis} {value}"
        for axis, values in asked.items()
        for value in values
        if not any(value in condition.names(point)[axis] for point in existing)
    ]
    return f"no cell has {' or '.join(absent)}" if absent else "it matches no cell"


def check_exclude(axes: Axes) -> list[Problem]:
    """Exclusions that exclude nothing, or everything."""
    existing = list(_all_points(axes))
    idle = [
        Problem(
            f"[{i}]",
            {axis: list(values) for axis, values in condition.model_dump(exclude_defaults=True).items()},
            "values that the axes have",
            "correct the values",
            _nowhere(condition, existing),
        )
        for i, condition in enumerate(axes.exclude)
        if not any(condition.matches(point) for point in existing)
    ]
    if not idle and not any(True for _ in points(axes)):
        idle.append(Problem("", len(axes.exclude), "exclusions that leave at least one cell", "take one out"))
    return idle
