"""The engine options of a cell: the only place that declares their types, defaults and help texts.

Experiment, cell, job, engine, dealer and predictors carry `RunOptions` as a whole. A new option is declared here and
read where it matters.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

Comparison = Literal["dcf", "prefix"]
SoftmaxForm = Literal["tables", "dpf"]
SpuProtocol = Literal["aby3", "semi2k", "cheetah"]
Bounds = tuple[tuple[str, int], ...]
"""Numbers and their bounds on |x|, sorted; a mapping in files."""


MOST_DRAFTED = 31
"""Most tokens of a draft."""


class SpuOptions(BaseModel):
    """How the engine `spu` computes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: SpuProtocol = Field(
        default="aby3",
        description="The protocol of SPU. `aby3`: client, server and the dealer's host are its three parties. `semi2k` "
        "and `cheetah`: client and server alone. Whom each has to trust: docs/protocols.md.",
        examples=["aby3"],
    )
    field: Literal[64] = Field(default=64, description="Bits of a share.", examples=["64"])
    fxp: int = Field(default=18, strict=True, ge=8, le=24, description="Fraction bits.", examples=["18"])
    gather: Literal["rows", "scores"] = Field(
        default="rows",
        description="How a step attends to clusters that were selected in secret. `rows`: it fetches their keys and "
        "values, as MPCache's paper does. `scores`: it scores all candidates and fetches scores.",
        examples=["rows"],
    )


class DraftOptions(BaseModel):
    """The source of drafts, of which one pass verifies `count` tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lookup: Annotated[int, Field(strict=True, ge=1, le=MOST_DRAFTED)] | None = Field(
        default=None,
        description="Number of tokens that the client looks up in prompt and answer: those that followed the last "
        "place where the text ended as it ends now (prompt look-up decoding).",
        examples=["4"],
    )
    model: str | None = Field(
        default=None,
        min_length=1,
        description="A public model on the client's host, as in the key `model` of the experiment, with the same "
        "tokenizer as the model that is decoded. It runs in the clear, at the client alone.",
        examples=["smollm2-135m"],
    )
    tokens: Annotated[int, Field(strict=True, ge=1, le=MOST_DRAFTED)] | None = Field(
        default=None, description="Number of tokens that `model` drafts.", examples=["4"]
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.lookup is None) == (self.model is None) or (self.model is None) != (self.tokens is None):
            raise ValueError("either lookup alone, or model and tokens")
        return self

    @property
    def count(self) -> int:
        """Tokens of a draft."""
        return self.lookup or self.tokens or 0

    @model_serializer(mode="wrap")
    def _without_none(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in dump(self).items() if value is not None}

    def __str__(self) -> str:
        """As a file has it, in words."""
        return f"lookup {self.lookup}" if self.model is None else f"{self.tokens} of {self.model}"


def draft_words(draft: DraftOptions | None) -> str:
    """The source of drafts in words; `none` without one."""
    return str(draft or "none")


@dataclass(frozen=True)
class ReadBy:
    """Marks an option that one engine reads; other engines ignore it.

    Attributes:
        engine: The engine that reads the option.
    """

    engine: str


class OnlyHow(ReadBy):
    """Marks an option that changes how one engine computes but not its results."""


CARRY_IN_FILES = (
    BeforeValidator(lambda value: "prefix" if value == "carry" else value),
    PlainSerializer(lambda value: "carry" if value == "prefix" else value, when_used="json"),
)
"""`carry` is the earlier name of `prefix`. Both are read; files keep `carry`, so that ids and records do not change."""


def _pairs(value: object) -> object:
    return tuple(sorted(value.items())) if isinstance(value, Mapping) else value


MAPPING_IN_FILES = (
    BeforeValidator(_pairs),
    PlainSerializer(dict, return_type=dict[str, int]),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "object", "additionalProperties": {"type": "integer"}}]},
        mode="validation",
    ),
)


class RunOptions(BaseModel):
    """A user's choices of how an engine runs a cell."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefill: Literal["shared", "mpc"] = Field(
        default="shared",
        description="`shared`: the bench runs the prompt in the clear and then shares the cache between the parties. "
        "`mpc`: client and server run the prompt themselves, which takes far longer. `plain` runs it in the clear in "
        "either case.",
        examples=["shared"],
    )
    argmax: Literal["private", "client"] = Field(
        default="private",
        description="`private`: the client learns the next token and nothing else. `client`: all logits are opened to "
        "the client, which is cheaper and reveals more about the weights; the report says so.",
        examples=["private"],
    )
    offline: Annotated[Literal["streamed", "stored"], OnlyHow("fss")] = Field(
        default="streamed",
        description="When the parties of the engine `fss` receive the dealer's correlated randomness. `streamed`: "
        "while they decode, ahead of its use. `stored`: all of a cell before it starts, on each party's own disk "
        "(`MPCBENCH_OFFLINE_DIR`, `TMPDIR`, or /var/tmp); they then decode without the dealer.",
        examples=["streamed"],
    )
    comparison: Annotated[Comparison, *CARRY_IN_FILES, OnlyHow("fss")] = Field(
        default="dcf",
        description="How the engine `fss` computes signs. `dcf`: no round, long keys from the dealer. `prefix`: very "
        "little correlated randomness, one round for each doubling of the width.",
        examples=["dcf"],
    )
    softmax: Annotated[SoftmaxForm, OnlyHow("fss")] = Field(
        default="tables",
        description="How the engine `fss` finds the shift of a softmax. `tables`: by look-ups. `dpf`: a round less per "
        "layer, with a key from the dealer for each attention score; for a few queries at once, as in decoding.",
        examples=["tables"],
    )
    spu: Annotated[SpuOptions, OnlyHow("spu")] = Field(
        default=SpuOptions(),
        description="How the engine `spu` computes: a mapping of `protocol`, `field`, `fxp` and `gather`.",
        examples=["{protocol: semi2k}"],
    )

    bounds: Annotated[Bounds, *MAPPING_IN_FILES, ReadBy("fss")] = Field(
        default=(),
        description="Bounds on numbers of the model for the engine `fss`: a file that `mpcache-bench calibrate` "
        "wrote, or its mapping from number to bound. All parties and the report see them.",
        examples=["bounds.yaml"],
    )

    draft: DraftOptions | None = Field(
        default=None,
        description="`{lookup: K}` or `{model: MODEL, tokens: K}`: the client drafts K tokens, and one pass of K + 1 "
        "tokens verifies them. Greedy text stays the same; how many tokens are accepted is public.",
        examples=["{lookup: 4}"],
    )

    @property
    def options(self) -> "RunOptions":
        """The options alone, without the fields of a subclass."""
        return RunOptions(**{name: getattr(self, name) for name in RunOptions.model_fields})

    def read_by(self, engine: str) -> Self:
        """A copy for one engine: options that only other engines read are at their defaults."""
        others = {name: RunOptions.model_fields[name].default for name, reader in READERS.items() if reader != engine}
        return self.model_copy(update=others)


DEFAULTS = RunOptions()

_MARKS = {
    name: mark for name, field in RunOptions.model_fields.items() for mark in field.metadata if isinstance(mark, ReadBy)
}
READERS: Mapping[str, str] = {name: mark.engine for name, mark in _MARKS.items()}
"""Options that a single engine reads, and that engine."""

HOW = frozenset(name for name, mark in _MARKS.items() if isinstance(mark, OnlyHow))
"""Those of them that change no result."""
