"""What client and dealer agree on before a cell: public numbers, from which all programs of the cell follow."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import partial
from typing import Any, Literal, Self

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder, token_pieces
from parties.decoding.prefill import Prefill
from parties.decoding.program import Program
from parties.engines.fss.computation import Computation
from parties.engines.fss.dealing.requests import MOST_EPOCHS, BadRequest, check_keys, one_of, shapes, whole
from parties.engines.limits import beyond
from parties.errors import Unsupported
from parties.models.spec import ModelSpec
from parties.policies import POLICIES, make

ATTEMPT_BITS = 32
MOST_PIECES = 1 << 24
"""Of a cell."""

Piece = Callable[[], Program[Any]]


def _sizes(value: Any) -> str:
    fits = isinstance(value, list) and len(value) == 2 and not any(map(whole(1, 1 << 31), value))
    return "" if value is None or fits else "null, or tokens and chunk"


def _named(value: Any) -> str:
    return "" if isinstance(value, dict) else "an object"


_CHECKS = {
    "spec": _named, "policy": one_of(*POLICIES), "parameters": _named, "shapes": shapes,
    "position": whole(0, 1 << 31), "steps": whole(1, 1 << 31), "argmax": one_of("private", "client"),
    "first": whole(1, MOST_EPOCHS - 1 - MOST_PIECES), "prefill": _sizes,
    "offline": one_of("streamed", "stored"), "comparison": one_of("dcf", "carry"),
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """A cell: a model, a policy, the prompt to run or the shapes of a prefilled cache, and how many tokens to decode.

    Attributes:
        prefill: tokens and chunk of a `Prefill`, or None if the cache comes prefilled, with these `shapes`.
        argmax: `private`, or `client` if the logits are opened to the client.
        first: index of the cell's first epoch; each program of `programs` has one.
        offline: `streamed` while the parties compute, or `stored` by them before.
        comparison: `dcf` or `carry`.
    """

    spec: dict[str, Any]
    policy: str
    parameters: dict[str, Any]
    shapes: dict[str, list[int]]
    position: int
    steps: int
    argmax: str
    first: int
    prefill: Sequence[int] | None = None
    offline: Literal["streamed", "stored"] = "streamed"
    comparison: Literal["dcf", "carry"] = "dcf"

    @classmethod
    def of(
        cls, decoder: Decoder, cache: Cache, steps: int, argmax: str, first: int, prefill: Prefill | None, **how: Any
    ) -> Self:
        """The plan of a decoder with a prefilled cache, or with an empty one and a prompt to run.

        `how` is `offline` and `comparison`.

        Raises:
            Unsupported: the sequence is longer, or the model wider, than the engine takes.
        """
        tokens = (prefill.tokens if prefill else cache.position) + steps
        if (over := beyond(Computation.name, decoder.spec, tokens)) is not None:
            raise Unsupported(f"engine {Computation.name}: {over}; shorten the sequence, or take another engine")
        shapes = {} if prefill else {name: list(value.shape) for name, value in cache.values().items()}
        policy, sizes = decoder.policy, astuple(prefill) if prefill else None
        card = (decoder.spec.to_json(), policy.name, asdict(policy))
        return cls(*card, shapes, cache.position, steps, argmax, first, sizes, **how)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of `asdict`, of a plan that a client sent: each field is checked in type and size.

        Raises:
            BadRequest: a field is missing, unknown or impossible; the message names it.
            ModelError: the model is.
        """
        check_keys("client", "plan", value, _CHECKS)
        spec = ModelSpec.from_json(value["spec"])
        try:
            make(value["policy"], **value["parameters"])
        except (TypeError, ValueError) as error:
            raise BadRequest("client", "plan's parameters", value["parameters"], f"the policy's: {error}") from None
        plan = cls(**value)
        tokens, chunk = plan.prefill or (0, 1)
        for key, number, most in (
            ("position", plan.position, spec.max_positions),
            ("prefill", tokens, spec.max_positions),
            ("steps", plan.steps, spec.max_positions),
            ("steps", (-(-tokens // chunk) + plan.steps) * (spec.n_layers + 2), MOST_PIECES),
        ):
            if number > most:
                raise BadRequest("client", f"plan's {key}", number, f"at most {most} with this model")
        for name in plan.shapes:
            layer, dot, _ = name.partition(".")
            if not (dot and layer.isdecimal() and len(layer) < 5 and int(layer) < spec.n_layers):
                raise BadRequest("client", "plan's shapes", name, f"a layer below {spec.n_layers}, a dot and a name")
        return plan

    def programs(self, engine: Computation, cache: Cache) -> tuple[list[Piece], list[Piece]]:
        """All that happens to a cache, in order: first the prompt or the cache's masks, and then the steps."""
        decoder = Decoder(engine, ModelSpec.from_json(self.spec), make(self.policy, **self.parameters))
        step = token_pieces(decoder, cache, None, self.argmax)
        before = (
            Prefill(*self.prefill).pieces(decoder, cache, None) if self.prefill else [partial(engine.mask_cache, cache)]
        )
        return list(before), step * self.steps

    def cache(self, engine: Computation) -> Cache:
        """The dealer's stand-in for the cache as the cell begins."""
        named = {name: engine.adopt(engine.source.placeholder(shape)) for name, shape in self.shapes.items()}
        return Cache.from_values(ModelSpec.from_json(self.spec).n_layers, self.position, named)


def epoch(attempt: int, index: int) -> int:
    """The number of an epoch: later attempts come after all earlier ones."""
    return attempt << ATTEMPT_BITS | index
