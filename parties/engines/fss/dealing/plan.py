"""The plan of a cell, sent from client to dealer: public numbers from which all programs of the cell follow."""

from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any, Self, get_args

from parties.decoding.batch import Batch, Caches
from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.prefill import prompts_segments
from parties.decoding.program import Program
from parties.decoding.steps import fold, token_segments
from parties.decoding.verification import pass_segments, settle
from parties.decoding.workload import Prefill, Start, Workload
from parties.engines.fss.bounds import BoundRefused, declared
from parties.engines.fss.computation import Computation
from parties.engines.fss.dealing.requests import MOST_EPOCHS, BadRequest, an_object, check_keys, one_of, shapes, whole
from parties.engines.limits import MOST_SEQUENCES, beyond
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


def _sequences(value: Any) -> str:
    fits = isinstance(value, list) and 0 < len(value) <= MOST_SEQUENCES and all(isinstance(one, dict) for one in value)
    return "" if fits else f"a list of 1 to {MOST_SEQUENCES} objects"


def _bounds(value: Any) -> str:
    if not isinstance(value, dict) or any(map(whole(1, 1 << 31), value.values())):
        return "an object of whole numbers"
    try:
        declared(tuple(sorted(value.items())))
    except BoundRefused as error:
        return error.allowed
    return ""


_CHECKS = {
    "spec": an_object, "parameters": an_object, "steps": whole(1, 1 << 31), "options": an_object,
    "sequences": _sequences, "drafts": whole(0, MOST_DRAFTED), "first": whole(1, MOST_EPOCHS - 1 - MOST_SEGMENTS),
}  # fmt: skip
_SEQUENCE_CHECKS = {"shapes": shapes, "position": whole(0, 1 << 31), "prefill": _sizes}
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
            "sequences": [_start_json(start) for start in work.sequences],
            "steps": work.steps,
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
        for sequence in value["sequences"]:
            check_keys("client", "plan", sequence, _SEQUENCE_CHECKS)
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
            sequences=tuple(map(_start, value["sequences"])),
            drafts=value["drafts"],
        )
        _check_sizes(work)
        return cls(work, value["first"])

    @property
    def policy(self) -> PolicyChoice:
        """The workload's policy: a workload, which lies below the policies, has its name and parameters."""
        return PolicyChoice(name=self.workload.policy, **self.workload.parameters)

    def programs(
        self, engine: Computation, caches: Caches, accepted: Callable[[], int] = lambda: 1
    ) -> tuple[list[Segment], list[Segment]]:
        """The segments of the cell in order: those of prompts or of masking the caches, and those of the steps.

        With drafts the steps are passes, as many as are needed if no draft is right: the cell ends where its position
        is `Workload.end`.

        Args:
            engine: The dealer's side of the computation.
            caches: The caches.
            accepted: Returns, after each pass, how many of its tokens stay.
        """
        work = self.workload
        decoder = Decoder(engine, work.spec, self.policy.build(), work.end)
        step: list[Segment] = list(token_segments(decoder, caches, None, work.options.argmax))
        if work.drafts:
            count, (cache,) = work.drafts + 1, caches.sequences
            step = list(pass_segments(decoder, cache, None, count, work.options.argmax))
            step.append(lambda: settle(decoder, cache, count, accepted()))
        sizes = [start.prefill for start in work.sequences if start.prefill]
        prompts = prompts_segments(decoder, caches, None, sizes) if work.runs_prompts else engine.mask_cache(caches)
        *before, last = prompts
        return [*before, partial(_and_fold, last, decoder, caches)], step * work.steps

    def caches(self, engine: Computation) -> Batch:
        """The dealer's placeholders for the initial caches."""
        return Batch([self._cache(engine, start) for start in self.workload.sequences])

    def _cache(self, engine: Computation, start: Start) -> Cache:
        named = {name: engine.adopt(engine.source.placeholder(shape)) for name, shape in start.shapes.items()}
        return Cache.from_values(self.workload.spec.n_layers, start.position, named)


def _and_fold(last: Segment, decoder: Decoder, caches: Caches) -> Program[None]:
    """The last segment of the prompts; the parties then fold the caches, which is local."""
    yield from last()
    fold(decoder, caches)


def _start_json(start: Start) -> dict[str, Any]:
    return {
        "shapes": {name: list(shape) for name, shape in start.shapes.items()},
        "position": start.position,
        "prefill": list(astuple(start.prefill)) if start.prefill else None,
    }


def _start(value: dict[str, Any]) -> Start:
    return Start(
        position=value["position"],
        shapes={name: tuple(shape) for name, shape in value["shapes"].items()},
        prefill=Prefill(*value["prefill"]) if value["prefill"] else None,
    )


def _check_sizes(work: Workload) -> None:
    """Checks a client's workload against its model.

    Raises:
        BadRequest: A number exceeds what the model or a cell allows.
    """
    spec = work.spec
    if len({start.prefill is None for start in work.sequences}) > 1:
        raise BadRequest("client", "plan's prefill", "given for some sequences", "given for all or for none")
    chunks = 0
    for start in work.sequences:
        sizes = start.prefill or Prefill(0, 1)
        chunks += -(-sizes.tokens // sizes.chunk)
        for key, number in (("position", start.position), ("prefill", sizes.tokens)):
            _check_most(key, number, spec.max_positions)
        for name in start.shapes:
            layer, dot, _ = name.partition(".")
            if not (dot and layer.isdecimal() and len(layer) < 5 and int(layer) < spec.n_layers):
                raise BadRequest("client", "plan's shapes", name, f"a layer below {spec.n_layers}, a dot and a name")
    _check_most("steps", work.steps, spec.max_positions)
    _check_most("steps", (chunks + work.steps) * (spec.n_layers + 3), MOST_SEGMENTS)
    if work.drafts and len(work.sequences) > 1:
        raise BadRequest("client", "plan's drafts", work.drafts, "0 with several sequences")


def _check_most(key: str, number: int, most: int) -> None:
    if number > most:
        raise BadRequest("client", f"plan's {key}", number, f"at most {most} with this model")


def epoch(attempt: int, index: int) -> int:
    """The number of an epoch: later attempts come after all earlier ones."""
    return attempt << ATTEMPT_BITS | index
