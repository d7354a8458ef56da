"""Reports of a party to the bench: its progress and its result. Only `text` is not public."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from parties.metering.readings import StageReading
from parties.metering.token_times import TokenTimes


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> dict[str, Any]:
        """Plain values for another process, without those that are None; `model_validate` is the inverse."""
        return self.model_dump(exclude_none=True)


class PartyProgress(_Report):
    """Progress of a party. Amounts are sums since the cell began, over the phases online and offline."""

    role: str
    state: str = Field(description="One of `CELL_STATES`.")
    stage: str = ""
    tokens: int = Field(default=0, description="New tokens decoded.")
    sent_bytes: int = 0
    received_bytes: int = 0
    rounds: float = 0.0
    blocked_seconds: float = Field(default=0.0, description="Wall time inside link calls.")
    compute_seconds: float = Field(default=0.0, description="Wall time outside link calls.")
    cpu_seconds: float = Field(default=0.0, description="CPU time of the process since it started.")
    rss_bytes: int = 0
    memory_limit_bytes: int | None = None
    memory_available_bytes: int | None = None
    gpu_bytes: int | None = Field(default=None, description="Memory of tensors on the GPU; None without one.")
    uptime_seconds: float | None = None
    loaded: float | None = Field(default=None, description="Share of the model's matrices that is loaded, meanwhile.")
    stages: dict[str, tuple[float, float, int]] = Field(
        default={}, description="Seconds, rounds and bytes both ways of each stage, all phases."
    )
    peers: dict[str, int] = Field(default={}, description="Bytes sent to each peer, all phases.")
    times: TokenTimes | None = Field(default=None, description="Of the tokens so far; None before the first.")


class PromptReport(_Report):
    """The cost of a prompt that client and server ran themselves: wall seconds, and the stages online and offline."""

    seconds: float
    stages: tuple[StageReading, ...]


class RangeReport(_Report):
    """A number that left the range over which the cell's engine is right; see the record's `RangeReading`."""

    number: str
    low: float
    high: float
    kind: str
    token: int
    value: float | None = None
    layer: int | None = None
    chance: float | None = None


class SequenceReport(_Report):
    """One sequence of a batch against the `plain` engine; see the record's `SequenceCheck`."""

    max_abs_logit_error: float
    median_abs_logit_error: float
    tokens_match: bool
    tokens_compared: int


class CheckReport(_Report):
    """The private run against the `plain` engine; see the record's `Check`."""

    max_abs_logit_error: float
    median_abs_logit_error: float
    tokens_match: bool
    tokens_compared: int
    tolerance: float | None = None
    out_of_range: RangeReport | None = None
    sequences: tuple[SequenceReport, ...] = ()


class RoleResult(_Report):
    """A role's own part of a cell's result.

    Attributes:
        tokens: New tokens; 0 if the role had no part in the cell.
        decode_seconds: Wall time of decoding.
        pass_seconds: Wall time of each decoding step, in order.
        recording_seconds: The part of each in which segments were recorded for later steps; empty if none was.
        prefill: Cost of a prompt that client and server ran themselves.
        stages: The stages, if they are not those of the party's own meter.
        check: The referee's check.
        replayed_segments: Segments of the tokens that were replayed from a recording; see `Engine`.
        interpreted_segments: The others, of an engine that records.
        interpreted_because: Numbers of those by the reason.
        drafted: With drafts, how many draft tokens each pass could accept.
        accepted: How many it accepted.
        text: The decoded text, the client's secret, if the job requests it.
        warnings: Warnings for the reader of the record.
    """

    tokens: int = 0
    decode_seconds: float = 0.0
    pass_seconds: tuple[float, ...] = ()
    recording_seconds: tuple[float, ...] = ()
    prefill: PromptReport | None = None
    stages: tuple[StageReading, ...] = ()
    check: CheckReport | None = None
    replayed_segments: int = 0
    interpreted_segments: int = 0
    interpreted_because: dict[str, int] = {}
    drafted: tuple[int, ...] = ()
    accepted: tuple[int, ...] = ()
    text: str | None = Field(default=None, repr=False)
    warnings: tuple[str, ...] = ()


class PartyResult(RoleResult):
    """A cell as one party ran it: its role's part, and the resources of its process and its host.

    Attributes:
        role: Role of the party.
        host: Data address of the party.
        peak_rss_bytes: Peak resident memory of the process.
        gpu_peak_bytes: Peak memory on the GPU; None without one.
        interface_sent_bytes: Bytes that the host sent during the cell, from the kernel.
        interface_received_bytes: Bytes that it received.
        versions: Versions of software, kernel and machine of the host.
    """

    role: str
    host: str = ""
    peak_rss_bytes: int
    gpu_peak_bytes: int | None = None
    interface_sent_bytes: int
    interface_received_bytes: int
    versions: dict[str, str]
