"""The record of one cell: what `records.jsonl` holds, one line each, and all that the report is made from."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from netem import LinkReading
from orchestrator.experiment.cells import Cell
from parties.metering.token_times import Seconds, TokenTimes

Bytes = Annotated[int, Field(ge=0)]


class Status(StrEnum):
    """How a cell ended. Only `ok` and `incorrect` carry timings."""

    OK = "ok"
    OUT_OF_RANGE = "out_of_range"
    INCORRECT = "incorrect"
    UNSUPPORTED = "unsupported"
    PARTY_DIED = "party_died"
    TIMEOUT = "timeout"
    OOM = "oom"
    SHAPING_FAILED = "shaping_failed"
    SHAPING_DRIFTED = "shaping_drifted"
    CONFIG_ERROR = "config_error"
    INTERRUPTED = "interrupted"

    @property
    def measured(self) -> bool:
        """Whether a record of this status carries timings."""
        return self in (Status.OK, Status.INCORRECT)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PartyStage(_Part):
    """A party's reading of one stage, over all decoded tokens or over the prompt; its peers together."""

    party: str = Field(description="Role of the party.")
    stage: str = Field(description="Name of the stage.")
    phase: str = Field(description="`online`, `offline`, `setup` (once a model), or `bench` (no part of the protocol).")
    seconds: Seconds = Field(description="Wall time, without that of the stages inside it.")
    blocked_seconds: Seconds = Field(description="The part of `seconds` spent waiting for a peer.")
    kernel_seconds: Seconds = Field(
        default=0.0, description="The part of `seconds` in which a GPU computed, estimated from one in eight replays."
    )
    sent_bytes: Bytes = Field(description="Bytes sent, with framing.")
    received_bytes: Bytes = Field(description="Bytes received, with framing.")
    messages: Annotated[int, Field(ge=0)] = Field(default=0, description="Messages sent and received.")
    rounds: Annotated[float, Field(ge=0)] = Field(description="Exchanges; a one-way message counts half.")


class PhaseTotal(_Part):
    """One phase, over all decoded tokens or over the prompt."""

    rounds: Annotated[float, Field(ge=0)] = Field(description="Rounds of the party that took part in most.")
    seconds: Seconds = Field(description="Wall time as the client spent it: its phases add up to the decode time.")
    blocked_seconds: Seconds = Field(description="The part of `seconds` in which the client waited for a peer.")
    sent_bytes: dict[str, Bytes] = Field(description="Bytes that each party sent.")


class Totals(_Part):
    """Sums by phase; the two are never added up. Set-up once a model (weights, seeds) stays out of both."""

    online: PhaseTotal = Field(description="From the first secret input of a token to its output.")
    offline: PhaseTotal = Field(description="Correlated randomness, which does not depend on any secret.")


class PrefillTotals(_Part):
    """A prompt that client and server ran themselves (`prefill: mpc`), apart from decoding."""

    seconds: Seconds = Field(description="Wall time at the client, online and offline.")
    online: PhaseTotal = Field(description="From the embedding of the prompt to the compressed cache.")
    offline: PhaseTotal = Field(description="Correlated randomness for it.")
    stages: tuple[PartyStage, ...] = Field(description="Every party and stage, online and offline.")


class Serving(TokenTimes):
    """The numbers of inference serving, on the client's clock."""

    pass_seconds: tuple[Seconds, ...] = Field(
        description="Wall time of each decoding step; it yields a token of each sequence, with drafts up to several."
    )
    recording_seconds: tuple[Seconds, ...] = Field(
        default=(),
        description="The part of each step in which the client recorded segments, to replay them later; it is in all "
        "of these numbers. Empty where nothing was recorded.",
    )
    ttft_covers: Literal["prompt and first token", "first token"] = Field(
        description="`first token`: the prompt was shared (`prefill: shared`), and ran in the clear, off the clock."
    )


class RangeReading(_Part):
    """A number of the model that left the range over which the cell's engine is right, as `plain` computed it."""

    number: str = Field(description="Which one, by its place in the decoder.")
    low: float = Field(description="The least value that the engine takes.")
    high: float = Field(description="The largest one.")
    kind: str = Field(
        description="`certain`: beyond it a comparison or look-up is wrong, always. `rare`: a truncation may be."
    )
    value: float | None = Field(description="The value farthest outside; None if it was not a number.")
    layer: int | None = Field(description="Its layer, from 0; None outside the layers.")
    token: Annotated[int, Field(ge=0)] = Field(description="At which new token, from 1; 0 in the prompt.")
    chance: float | None = Field(
        default=None, description="`rare`: probability that any truncation beyond its range was wrong."
    )


class SequenceCheck(_Part):
    """One sequence of a batch against the `plain` engine."""

    max_abs_logit_error: float | None = Field(description="Largest error of any logit; None if one was not a number.")
    median_abs_logit_error: float | None = Field(description="Median over tokens of the largest error of a logit.")
    tokens_match: bool = Field(description="Whether all greedy tokens are the same.")
    tokens_compared: int = Field(description="Tokens whose logits were compared.")


class Check(_Part):
    """The private run against the `plain` engine with the same policy."""

    max_abs_logit_error: float | None = Field(description="Largest error of any logit; None if one was not a number.")
    median_abs_logit_error: float | None = Field(
        default=None, description="Median over tokens of the largest error of a logit."
    )
    tokens_match: bool = Field(description="Whether all greedy tokens are the same.")
    tokens_compared: int = Field(default=0, description="Tokens whose logits were compared.")
    tolerance: float | None = Field(default=None, description="Largest error that counts as correct.")
    out_of_range: RangeReading | None = Field(
        default=None, description="The first number that left a `rare` range of the engine's; None if none did."
    )
    sequences: tuple[SequenceCheck, ...] = Field(
        default=(), description="Each sequence of a batch, in the order of the prompts; empty without a batch."
    )

    @property
    def passed(self) -> bool:
        """Whether the run is correct."""
        error = self.max_abs_logit_error
        return self.tokens_match and error is not None and (self.tolerance is None or error <= self.tolerance)


class PartyReading(_Part):
    """One party's process."""

    host: str = Field(default="", description="Data address that it was on.")
    peak_rss_bytes: Bytes = Field(description="Most memory that the process ever held.")
    gpu_peak_bytes: Bytes | None = Field(default=None, description="Most memory on the GPU; None without one.")
    interface_sent_bytes: int | None = Field(default=None, description="Bytes sent by the host, from the kernel.")
    interface_received_bytes: int | None = Field(
        default=None, description="Bytes received by the host, from the kernel."
    )
    replayed_segments: int = Field(
        default=0, ge=0, description="Segments of the tokens that the engine replayed from a recording."
    )
    interpreted_segments: int = Field(
        default=0, ge=0, description="Segments of the tokens that it interpreted, if it records any."
    )
    interpreted_because: dict[str, int] = Field(default={}, description="Numbers of those by the reason.")
    versions: dict[str, str] = Field(default={}, description="What the party's host runs.")


class CellError(_Part):
    """Why a cell carries no timings."""

    status: Status = Field(description="The record's status.")
    message: str = Field(description="What happened and what to do; holds no secret.")
    role: str = Field(default="", description="The party at fault, if one was.")
    stage: str = Field(default="", description="The stage it was in.")
    sent_bytes: Bytes = Field(default=0, description="What it had sent by then.")
    received_bytes: Bytes = Field(default=0, description="What it had received by then.")
    out_of_range: RangeReading | None = Field(
        default=None, description="With status `out_of_range`: the first number that left a `certain` range."
    )


def _in_utc(time: datetime) -> datetime:
    if time.utcoffset() != timedelta(0):
        raise ValueError("must be in UTC")
    return time


UtcTime = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class Record(_Part):
    """One cell and how it went."""

    id: str = Field(pattern="^[0-9a-f]{16}$", description="The cell's id.")
    experiment: str = Field(default="", description="Name of the experiment.")
    status: Status = Field(description="How the cell ended.")
    cell: Cell = Field(description="The resolved cell.")
    started: UtcTime = Field(description="When the cell began, UTC.")
    finished: UtcTime = Field(description="When the cell ended, UTC.")
    trust_model: str = Field(description="Who must not collude with whom, in words.")
    prefill: str = Field(description="How the prompt got into the cache, in words.")
    leaks: str = Field(default="", description="What the policy and the options reveal, in words.")
    tokens: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Decoded tokens of each sequence: their number, never the text."
    )
    seconds_per_token: Seconds | None = Field(
        default=None, description="Decode time over tokens, all phases; in a batch, of a token of each sequence."
    )
    serving: Serving | None = Field(
        default=None, description="TTFT, TPOT, ITL, tokens per second, acceptance; None in records of earlier versions."
    )
    drafted: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(), description="With drafts: for each pass, how many draft tokens it could accept; public."
    )
    accepted: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(), description="How many of them it accepted; each pass decodes one token more. Both parties see them."
    )
    totals: Totals | None = Field(default=None, description="Sums by phase over all decoded tokens.")
    stages: tuple[PartyStage, ...] = Field(default=(), description="Every party and stage.")
    prefill_totals: PrefillTotals | None = Field(
        default=None, description="What the prompt took with `prefill: mpc`; in no total and no stage of decoding."
    )
    check: Check | None = Field(default=None, description="Against the `plain` engine; None for `plain` itself.")
    parties: dict[str, PartyReading] = Field(default={}, description="Each party's process.")
    links: tuple[LinkReading, ...] = Field(default=(), description="Each ordered pair of parties.")
    shaping: str = Field(default="none", description="The back end that shaped the links.")
    shaping_details: dict[str, str | float] = Field(
        default={},
        description="How it ran: `scheduling` of its process, `compensation_ms`, its own one-way delay, which it took "
        "off what was asked for.",
    )
    error: CellError | None = Field(default=None, description="Why there are no timings.")
    versions: dict[str, str] = Field(default={}, description="What the driver's host runs.")
    warnings: tuple[str, ...] = Field(default=(), description="What a reader of the numbers should know.")

    @property
    def token_latency(self) -> float | None:
        """Seconds from one token to the next, by which cells are compared; None without timings.

        They are `seconds_per_token`, or those of the online phase alone where correlated randomness was stored before
        the first token (`offline: stored`).
        """
        if self.cell.offline == "stored" and self.totals is not None:
            return self.totals.online.seconds / self.tokens
        return self.seconds_per_token

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.id != self.cell.id:
            raise ValueError(f"id {self.id} is not that of the cell, {self.cell.id}")
        if self.finished < self.started:
            raise ValueError("finished lies before started")
        timings = {"seconds_per_token": self.seconds_per_token, "totals": self.totals}
        for name, value in timings.items():
            if self.status.measured and value is None:
                raise ValueError(f"status {self.status} needs {name}")
            if not self.status.measured and value is not None:
                raise ValueError(f"status {self.status} must not carry {name}")
        if not self.status.measured and (self.stages or self.check or self.prefill_totals or self.serving):
            raise ValueError(f"status {self.status} must not carry stages, check, prefill_totals or serving")
        if self.status.measured and (self.error is not None or not self.tokens):
            raise ValueError(f"status {self.status} needs tokens and has no error")
        if not self.status.measured and (self.error is None or self.error.status != self.status):
            raise ValueError(f"status {self.status} needs an error of the same status")
        return self
