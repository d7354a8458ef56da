"""Errors of a party; each has the status of the record that it causes.

None of them is a `RuntimeError`, since CrypTen catches those and retries.
Each keeps the arguments of its constructor in `args`, so that it survives a copy to another process.
"""

# ruff: noqa: N818 - named after the condition, like the statuses of records

from typing import Any, ClassVar


class PartyError(Exception):
    """Base of all errors of a party; `status` becomes the status of the cell's record."""

    status: ClassVar[str] = "party_died"


class _LinkError(PartyError):
    """An error of the link to `peer` during `stage`, with the bytes that the link had carried so far."""

    def __init__(self, peer: str, stage: str, sent_bytes: int, received_bytes: int, *more: object) -> None:
        super().__init__(peer, stage, sent_bytes, received_bytes, *more)
        self.peer = peer
        self.stage = stage
        self.sent_bytes = sent_bytes
        self.received_bytes = received_bytes

    def _so_far(self) -> str:
        return f"in stage {self.stage}, after {self.sent_bytes} bytes sent and {self.received_bytes} received"


class PeerLost(_LinkError):
    """The connection to a peer was closed or reset, by the peer or by this party."""

    status = "party_died"

    def __str__(self) -> str:
        return f"lost the connection to {self.peer} {self._so_far()}; look at {self.peer}'s own error first"


class PeerTimeout(_LinkError):
    """No byte was sent to or received from a peer for `timeout_s` seconds."""

    status = "timeout"

    def __init__(self, peer: str, stage: str, sent_bytes: int, received_bytes: int, timeout_s: float) -> None:
        super().__init__(peer, stage, sent_bytes, received_bytes, timeout_s)
        self.timeout_s = timeout_s

    def __str__(self) -> str:
        return (
            f"{self.peer} made no progress for {self.timeout_s:g} s {self._so_far()}; "
            f"it hangs, is unreachable, or needs a longer timeout_s"
        )


class CorruptFrame(_LinkError):
    """A received frame is damaged: its `part`, `header` or `payload`, does not match the checksum."""

    status = "party_died"

    def __init__(self, peer: str, stage: str, sent_bytes: int, received_bytes: int, number: int, part: str) -> None:
        super().__init__(peer, stage, sent_bytes, received_bytes, number, part)
        self.number = number
        self.part = part

    def __str__(self) -> str:
        return (
            f"the {self.part} of frame {self.number} from {self.peer} was damaged in transit {self._so_far()}; "
            f"check the network between the two hosts, and their memory"
        )


class OutOfStep(PartyError):
    """A peer sent a frame other than the next one of the protocol."""

    status = "party_died"

    def __init__(self, peer: str, stage: str, expected: str, got: str) -> None:
        super().__init__(peer, stage, expected, got)
        self.peer = peer
        self.stage = stage
        self.expected = expected
        self.got = got

    def __str__(self) -> str:
        return (
            f"{self.peer} is out of step in stage {self.stage}: expected {self.expected}, got {self.got}; "
            f"check that all parties run the same job and the same version"
        )


class PeersMissing(PartyError):
    """Some roles did not join the mesh in time; `missing` maps each to the last known reason."""

    status = "timeout"

    def __init__(self, missing: dict[str, str], timeout_s: float) -> None:
        super().__init__(missing, timeout_s)
        self.missing = missing
        self.timeout_s = timeout_s

    def __str__(self) -> str:
        known = "; ".join(f"{role}: {trouble}" for role, trouble in self.missing.items())
        return f"no connection after {self.timeout_s:g} s with {known}; check that they run and can be reached"


class HelloRefused(PartyError):
    """A peer refused the hello of this party."""

    status = "config_error"

    def __init__(self, peer: str, reason: str) -> None:
        super().__init__(peer, reason)
        self.peer = peer
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.peer} refused our hello: {self.reason}"


class PeerUnproven(PartyError):
    """The other end of a connection has not proven with a certificate that it is the peer."""

    status = "config_error"

    def __init__(self, peer: str, reason: str) -> None:
        super().__init__(peer, reason)
        self.peer = peer
        self.reason = reason

    def __str__(self) -> str:
        return f"no TLS with {self.peer}: {self.reason}; restart all parties, with the same tls setting everywhere"


class AddressUnusable(PartyError):
    """A party cannot listen on an address."""

    status = "config_error"

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(host, port, reason)
        self.host = host
        self.port = port
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot listen on {self.host} port {self.port}: {self.reason}; name an address of this machine"


class AddressInUse(PartyError):
    """Another process already listens on the address."""

    status = "config_error"

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.host = host
        self.port = port

    def __str__(self) -> str:
        return f"{self.host} port {self.port} is in use; stop what listens there, or use port 0 to get a free one"


class ModelError(PartyError):
    """A model cannot be loaded, or is of a type that the decoder does not support."""

    status = "config_error"


class PromptError(PartyError):
    """A prompt is missing, empty or shorter than the requested length."""

    status = "config_error"


class Unsupported(PartyError):
    """An engine does not support what the cell requests."""

    status = "unsupported"


class OutOfRange(PartyError):
    """A value of the model leaves the range in which the engine computes correctly; `number` is for the record."""

    status = "out_of_range"

    def __init__(self, engine: str, left: str, number: dict[str, Any]) -> None:
        super().__init__(engine, left, number)
        self.engine = engine
        self.left = left
        self.number = number

    def __str__(self) -> str:
        return (
            f"{self.left}, where {self.engine} would certainly compute wrong results, so nothing private was run; "
            f"use the engine plain, another engine, or a model whose values stay within the range "
            f"(python benchmarks/ranges.py MODEL lists them)"
        )


class WorkerFailed(PartyError):
    """The worker process of an engine failed in a command."""

    status = "party_died"

    def __init__(self, command: str, reason: str) -> None:
        super().__init__(command, reason)
        self.command = command
        self.reason = reason

    def __str__(self) -> str:
        return f"SPU failed in {self.command}: {self.reason}"


class NotEnoughMemory(PartyError):
    """The cell does not fit in the memory of the host or of the GPU."""

    status = "oom"
