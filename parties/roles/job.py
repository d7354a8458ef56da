"""What one cell asks of every party: public values and paths, never a secret."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from parties.engines import Randomness
from parties.options import DEFAULTS, RunOptions


class Prompt(BaseModel):
    """Where the client finds its prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text_file: str | None = Field(default=None, description="path of a UTF-8 text on the client's host")
    random_tokens: bool = Field(default=False, description="tokens drawn from the seed instead of a text")


class PolicyChoice(BaseModel):
    """A policy by name, with all its parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class Job(BaseModel):
    """One cell, as every party sees it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str
    model: str
    policy: PolicyChoice
    prompt: Prompt
    seq_len: int = Field(ge=2, description="prompt tokens; the last one is the first private step")
    new_tokens: int = Field(ge=1)
    options: RunOptions = DEFAULTS
    randomness: Randomness = Field(
        default="private", description="what the engine `crypten` draws from; stock is insecure"
    )
    gpu: bool = Field(default=False, description="compute on the GPU that the party was given")
    seed: int = 0
    show_text: bool = Field(default=False, description="the client's result carries the decoded text")

    @property
    def head(self) -> str:
        """Trained heads that rate tokens inside the computation: a path on the server's host, empty for none."""
        return str(self.policy.parameters.get("head", "")) if self.options.prefill == "mpc" else ""
