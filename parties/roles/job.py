"""The job of a cell, the same for every party: public values and paths, never a secret."""

from pydantic import BaseModel, ConfigDict, Field

from parties.engines import Randomness
from parties.engines.spu.protocols import PROTOCOLS
from parties.options import DEFAULTS, RunOptions, SpuOptions
from parties.policies.choice import PolicyChoice


class Prompt(BaseModel):
    """Where the client finds its prompt: exactly one of the two."""

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


class Job(BaseModel):
    """One cell, as every party sees it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str
    model: str
    policy: PolicyChoice
    prompt: Prompt
    seq_len: int = Field(ge=2, description="Prompt tokens; the last one is the first private step")
    new_tokens: int = Field(ge=1)
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
    def session(self) -> tuple[str, str, str, bool, str, SpuOptions]:
        """The part of a job by which parties know whether they may keep the model and the engine of the last cell."""
        return self.model, self.engine, self.randomness, self.gpu, self.head, self.options.spu

    @property
    def head(self) -> str:
        """Trained heads that rate tokens inside the computation: a path on the server's host, empty for none."""
        return str(self.policy.parameters.get("head", "")) if self.options.prefill == "mpc" else ""
