"""Everything that can go wrong in a party, as exceptions that carry the record's status.

None of them is a `RuntimeError`: CrypTen catches those and tries again.
Each keeps its constructor's arguments in `args`, so it survives being copied to another process.
"""

# ruff: noqa: N818 - they are named for what happened, like the record's statuses

from typing import Any, ClassVar


class PartyError(Exception):
    """Base of all errors of a party; `status` is what the record of the cell will say."""

    status: ClassVar[str] = "party_died"


class _LinkError(PartyError):
    """An error of the link to `peer` while in `stage`, with the bytes that link had carried so far."""

    def __init__(self, peer: str, stage: str, sent_bytes: int, received_bytes: int, *more: object) -> None:
        super().__init__(peer, stage, sent_bytes, received_bytes, *more)
        self.peer = peer
        self.stage = stage
        self.sent_bytes = sent_bytes
        self.received_bytes = received_bytes

    def _so_far(self) -> str:
        return f"in stage {self.stage}, after {self.sent_bytes} bytes sent and {self.received_bytes} received"


class PeerLost(_LinkError):
    """The connection to a peer was closed or reset, by its end or by ours."""

    status = "party_died"

    def __str__(self) -> str:
        return f"lost the connection to {self.peer} {self._so_far()}; look at {self.peer}'s own error first"


class PeerTimeout(_LinkError):
    """Not one byte moved to or from a peer for `timeout_s` seconds."""

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
    """A frame is not what its sender sent: its `part`, `header` or `payload`, does not fit the checksum."""

    status = "party_died"

    def __init__(self, peer: str, stage: str, sent_bytes: int, received_bytes: int, number: int, part: str) -> None:
        super().__init__(peer, stage, sent_bytes, received_bytes, number, part)
        self.number = number
        self.part = part

    def __str__(self) -> str:
        return (
            f"the {self.part} of frame {self.number} from {self.peer} was damaged on its way {self._so_far()}; "
            f"check the network between the two hosts, and their memory"
        )


class OutOfStep(PartyError):
    """A peer sent another frame than the protocol says comes next."""

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
    """Some roles did not join the mesh in time; `missing` maps each to what is known about it."""

    status = "timeout"

    def __init__(self, missing: dict[str, str], timeout_s: float) -> None:
        super().__init__(missing, timeout_s)
        self.missing = missing
        self.timeout_s = timeout_s

    def __str__(self) -> str:
        known = "; ".join(f"{role}: {trouble}" for role, trouble in self.missing.items())
        return f"no connection after {self.timeout_s:g} s with {known}; check that they run and can be reached"


class HelloRefused(PartyError):
    """A peer answered our hello and will not have us."""

    status = "config_error"

    def __init__(self, peer: str, reason: str) -> None:
        super().__init__(peer, reason)
        self.peer = peer
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.peer} refused our hello: {self.reason}"


class PeerUnproven(PartyError):
    """Whoever is at the other end of a connection has not proven by its certificate that it is the peer."""

    status = "config_error"

    def __init__(self, peer: str, reason: str) -> None:
        super().__init__(peer, reason)
        self.peer = peer
        self.reason = reason

    def __str__(self) -> str:
        return f"no TLS with {self.peer}: {self.reason}; start all parties anew, with tls the same everywhere"


class AddressUnusable(PartyError):
    """An address cannot be listened on."""

    status = "config_error"

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(host, port, reason)
        self.host = host
        self.port = port
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot listen on {self.host} port {self.port}: {self.reason}; name an address of this machine"


class AddressInUse(PartyError):
    """Another process listens on the address already."""

    status = "config_error"

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.host = host
        self.port = port

    def __str__(self) -> str:
        return f"{self.host} port {self.port} is in use; stop what listens there, or use port 0 to get a free one"


class ModelError(PartyError):
    """A model cannot be loaded, or is of a kind that the decoder does not know."""

    status = "config_error"


class PromptError(PartyError):
    """A prompt is missing, empty or too short for the asked length."""

    status = "config_error"


class Unsupported(PartyError):
    """An engine cannot do what the cell asks."""

    status = "unsupported"


class OutOfRange(PartyError):
    """A number of the model leaves the range over which the cell's engine is right; `number` is what a record says."""

    status = "out_of_range"

    def __init__(self, engine: str, left: str, number: dict[str, Any]) -> None:
        super().__init__(engine, left, number)
        self.engine = engine
        self.left = left
        self.number = number

    def __str__(self) -> str:
        return (
            f"{self.left}, where {self.engine} would compute wrongly for certain, so nothing private was run; "
            f"use the engine plain, another engine, or a model whose numbers stay within "
            f"(python benchmarks/ranges.py MODEL lists them)"
        )


class NotEnoughMemory(PartyError):
    """The cell does not fit into the memory of the host or of the GPU."""

    status = "oom"
