"""The job of a cell, the same for every party: public values and paths, never a secret."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, WithJsonSchema, model_serializer

from parties.engines import Randomness
from parties.engines.limits import MOST_SEQUENCES
from parties.engines.spu.protocols import PROTOCOLS
from parties.options import DEFAULTS, RunOptions, SpuOptions
from parties.policies.choice import PolicyChoice


class Prompt(BaseModel):
    """Where the client finds its prompt: exactly one of text, messages and random tokens; never the prompt itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text_file: str | None = Field(
        default=None,
        min_length=1,
        repr=False,
        description="Path of a UTF-8 text on the client's host, of any length: no more of it is tokenised than the "
        "longest of `seq_lens` needs. A relative path starts at the experiment file's folder or, failing that, at the "
        "working directory.",
        examples=["prompts/article.txt"],
    )
    random_tokens: bool = Field(
        default=False, strict=True, description="Tokens drawn from the seed instead of a text.", examples=["true"]
    )
    messages: Annotated[str, Field(min_length=1), WithJsonSchema({"type": ["array", "string"]})] | None = Field(
        default=None,
        repr=False,
        description="A chat: a list of `{role: ROLE, content: TEXT}`, or the path of a YAML or JSON file with one. The "
        "model's own chat template makes a text of it, up to where its answer begins. A chat that is longer than a "
        "cell's length loses the end of its last message.",
        examples=['[{role: user, content: "Who wrote it?"}]'],
    )
    lines: bool = Field(
        default=False,
        strict=True,
        description="Whether each line of the text is a prompt of its own, of at most `seq_lens` tokens: a batch takes "
        "the first lines that are not empty, and their lengths are public. By default a batch takes windows of "
        "`seq_lens` tokens, one after the other.",
        examples=["true"],
    )
    special_tokens: bool = Field(
        default=False,
        strict=True,
        description="Whether the letters of a special token in the text or in a message, such as `</s>`, are that "
        "token; by default they are a text like any other.",
        examples=["true"],
    )

    @property
    def file(self) -> tuple[str, str] | None:
        """Key and path of the prompt's file; None for random tokens."""
        given = {"text_file": self.text_file, "messages": self.messages}
        return next(((key, path) for key, path in given.items() if path is not None), None)

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out later fields at their defaults, so that ids and records of earlier versions stay the same."""
        later = {"messages", "lines", "special_tokens"}
        return {key: value for key, value in dump(self).items() if key not in later or value}


class Job(BaseModel):
    """One cell, as every party sees it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str
    model: str
    policy: PolicyChoice
    prompt: Prompt
    seq_len: int = Field(ge=2, description="Prompt tokens; the last one is the first private step")
    new_tokens: int = Field(ge=1)
    batch: int = Field(
        default=1, ge=1, le=MOST_SEQUENCES, description="Prompts of the client that decode side by side."
    )
    options: RunOptions = DEFAULTS
    randomness: Randomness = Field(
        default="private", description="Generator of the engine `crypten`; `stock` is insecure."
    )
    gpu: bool = Field(default=False, description="Compute on the GPU of the party's slot.")
    seed: int = 0
    show_text: bool = Field(default=False, description="The client's result contains the decoded text.")

    @property
    def computing(self) -> tuple[str, ...]:
        """The computing parties: client, server, and with a protocol of three also the dealer's."""
        return PROTOCOLS[self.options.spu.protocol].roles if self.engine == "spu" else ("client", "server")

    @property
    def device_if_any(self) -> str:
        """Where a role computes that needs no GPU: on that of its slot if it has one. Ray hides all others."""
        import torch  # a driver reads experiments without it

        return "cuda" if self.gpu and torch.cuda.is_available() else "cpu"

    @property
    def session(self) -> tuple[str, str, str, bool, str, SpuOptions]:
        """The part of a job by which parties know whether they may keep the model and the engine of the last cell."""
        return self.model, self.engine, self.randomness, self.gpu, self.head, self.options.spu

    @property
    def head(self) -> str:
        """Trained heads that rate tokens inside the computation: a path on the server's host, empty for none."""
        return str(self.policy.parameters.get("head", "")) if self.options.prefill == "mpc" else ""
