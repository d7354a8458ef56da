"""The plan of a cell, sent from client to dealer: public numbers from which all programs of the cell follow."""

from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any, Self, get_args

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder, token_segments
from parties.decoding.prefill import prompt_segments
from parties.decoding.program import Program
from parties.decoding.verification import pass_segments, settle
from parties.decoding.workload import Prefill, Workload
from parties.engines.fss.bounds import BoundRefused, declared
from parties.engines.fss.computation import Computation
from parties.engines.fss.dealing.requests import MOST_EPOCHS, BadRequest, an_object, check_keys, one_of, shapes, whole
from parties.engines.limits import beyond
from parties.errors import Unsupported
from parties.models.spec import ModelSpec
from parties.options import MOST_DRAFTED, READERS, RunOptions
from parties.policies import POLICIES
from parties.policies.choice import PolicyChoice

ATTEMPT_BITS = 32
MOST_SEGMENTS = 1 << 24
"""Largest number of segments of a cell."""

Segment = Callable[[], Program[Any]]

STORED_PROBLEM = (
    "what the dealer deals for a pass depends on how many tokens were accepted before, so it cannot be stored ahead of "
    "them; take offline: streamed"
)


def _sizes(value: Any) -> str:
    fits = isinstance(value, list) and len(value) == 2 and not any(map(whole(1, 1 << 31), value))
    return "" if value is None or fits else "null, or tokens and chunk"


def _bounds(value: Any) -> str:
    if not isinstance(value, dict) or any(map(whole(1, 1 << 31), value.values())):
        return "an object of whole numbers"
    try:
        declared(tuple(sorted(value.items())))
    except BoundRefused as error:
        return error.allowed
    return ""


_CHECKS = {
    "spec": an_object, "parameters": an_object, "shapes": shapes,
    "position": whole(0, 1 << 31), "steps": whole(1, 1 << 31), "prefill": _sizes, "options": an_object,
    "drafts": whole(0, MOST_DRAFTED), "first": whole(1, MOST_EPOCHS - 1 - MOST_SEGMENTS),
}  # fmt: skip
_OPTIONS = {
    name: one_of(*get_args(field.annotation))
    for name, field in RunOptions.model_fields.items()
    if READERS.get(name, Computation.name) == Computation.name  # the other engines' are at their defaults
    and name != "draft"  # where drafts come from is the client's own business
} | {"bounds": _bounds}


@dataclass(frozen=True)
class Plan:
    """A cell's workload, and where its epochs begin.

    Attributes:
        workload: The work of the parties.
        first: Index of the cell's first epoch; each program of `programs` has one.
    """

    workload: Workload
    first: int

    @classmethod
    def of(cls, workload: Workload, first: int) -> Self:
        """The plan of a workload within the engine's limits.

        Raises:
            Unsupported: The sequence is too long or the model too wide, or stored randomness would depend on drafts.
        """
        if workload.drafts and workload.options.offline == "stored":
            raise Unsupported(f"draft: {STORED_PROBLEM}")
        if (over := beyond(Computation.name, workload.spec, workload.tokens)) is not None:
            raise Unsupported(f"engine {Computation.name}: {over}; shorten the sequence, or take another engine")
        return cls(workload, first)

    def to_json(self) -> dict[str, Any]:
        """The plan as the client sends it."""
        work = self.workload
        return {
            "spec": work.spec.to_json(),
            "policy": work.policy,
            "parameters": dict(work.parameters),
            "shapes": {name: list(shape) for name, shape in work.shapes.items()},
            "position": work.position,
            "steps": work.steps,
            "prefill": list(astuple(work.prefill)) if work.prefill else None,
            "drafts": work.drafts,
            "options": work.options.model_dump(include=set(_OPTIONS)),
            "first": self.first,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any], policy: str) -> Self:
        """The inverse of `to_json` for a plan that a client sent: checks type and size of each field.

        Args:
            value: What the client sent.
            policy: Policy of the dealer's own job. This is the only `module:Class` that a plan may name: a client must
                not choose the code that a dealer imports.

        Raises:
            BadRequest: A field is missing, unknown or not allowed; the message names it.
            ModelError: The model is not valid.
        """
        check_keys("client", "plan", value, {**_CHECKS, "policy": one_of(*dict.fromkeys((*POLICIES, policy)))})
        check_keys("client", "plan's options", value["options"], _OPTIONS)
        spec = ModelSpec.from_json(value["spec"])
        try:
            PolicyChoice(name=value["policy"], **value["parameters"]).build()
        except (TypeError, ValueError) as error:
            raise BadRequest("client", "plan's parameters", value["parameters"], f"the policy's: {error}") from None
        work = Workload(
            spec=spec,
            policy=value["policy"],
            parameters=value["parameters"],
            steps=value["steps"],
            options=RunOptions(**value["options"]),
            position=value["position"],
            shapes={name: tuple(shape) for name, shape in value["shapes"].items()},
            prefill=Prefill(*value["prefill"]) if value["prefill"] else None,
            drafts=value["drafts"],
        )
        _check_sizes(work)
        return cls(work, value["first"])

    @property
    def policy(self) -> PolicyChoice:
        """The workload's policy: a workload, which lies below the policies, has its name and parameters."""
        return PolicyChoice(name=self.workload.policy, **self.workload.parameters)

    def programs(
        self, engine: Computation, cache: Cache, accepted: Callable[[], int] = lambda: 1
    ) -> tuple[list[Segment], list[Segment]]:
        """The segments of the cell in order: those of the prompt or of masking the cache, and those of the steps.

        With drafts the steps are passes, as many as are needed if no draft is right: the cell ends where its position
        is `Workload.end`.

        Args:
            engine: The dealer's side of the computation.
            cache: The cache.
            accepted: Returns, after each pass, how many of its tokens stay.
        """
        work = self.workload
        decoder = Decoder(engine, work.spec, self.policy.build())
        step: list[Segment] = list(token_segments(decoder, cache, None, work.options.argmax))
        if work.drafts:
            count = work.drafts + 1
            step = list(pass_segments(decoder, cache, None, count, work.options.argmax))
            step.append(lambda: settle(decoder, cache, count, accepted()))
        if work.prefill:
            return list(prompt_segments(decoder, cache, None, work.prefill)), step * work.steps
        return [partial(engine.mask_cache, cache)], step * work.steps

    def cache(self, engine: Computation) -> Cache:
        """The dealer's placeholder for the initial cache."""
        work = self.workload
        named = {name: engine.adopt(engine.source.placeholder(shape)) for name, shape in work.shapes.items()}
        return Cache.from_values(work.spec.n_layers, work.position, named)


def _check_sizes(work: Workload) -> None:
    """Checks a client's workload against its model.

    Raises:
        BadRequest: A number exceeds what the model or a cell allows.
    """
    spec, tokens, chunk = work.spec, 0, 1
    if work.prefill is not None:
        tokens, chunk = work.prefill.tokens, work.prefill.chunk
    for key, number, most in (
        ("position", work.position, spec.max_positions),
        ("prefill", tokens, spec.max_positions),
        ("steps", work.steps, spec.max_positions),
        ("steps", (-(-tokens // chunk) + work.steps) * (spec.n_layers + 3), MOST_SEGMENTS),
    ):
        if number > most:
            raise BadRequest("client", f"plan's {key}", number, f"at most {most} with this model")
    for name in work.shapes:
        layer, dot, _ = name.partition(".")
        if not (dot and layer.isdecimal() and len(layer) < 5 and int(layer) < spec.n_layers):
            raise BadRequest("client", "plan's shapes", name, f"a layer below {spec.n_layers}, a dot and a name")


def epoch(attempt: int, index: int) -> int:
    """The number of an epoch: later attempts come after all earlier ones."""
    return attempt << ATTEMPT_BITS | index
