"""What can go wrong with a link; every message names the value at fault and what to do."""

# ruff: noqa: N818 - they are named for what happened


class NetemError(Exception):
    """Base of all errors of this package."""


class ProfileError(NetemError, ValueError):
    """A profile holds a value that no link can have.

    Attributes:
        key: Path of the key, such as `pairs.client>server.rate_mbit`.
        value: What was given.
        allowed: What may be given.
    """

    def __init__(self, key: str, value: object, allowed: str) -> None:
        super().__init__(key, value, allowed)
        self.key = key
        self.value = value
        self.allowed = allowed

    def __str__(self) -> str:
        return f"{self.key}: {self.value!r} is not allowed; give {self.allowed}"


class BackendUnavailable(NetemError):
    """A back end cannot shape these links here; `reasons` says why, back end by back end."""

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__(reasons)
        self.reasons = reasons

    def __str__(self) -> str:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in self.reasons.items())
        return f"no back end can shape these links ({reasons})"


class ForeignQdisc(NetemError):
    """A device has a root qdisc that we did not put there."""

    def __init__(self, device: str, kind: str, handle: str, owner: str = "") -> None:
        super().__init__(device, kind, handle, owner)
        self.device = device
        self.kind = kind
        self.handle = handle
        self.owner = owner

    def __str__(self) -> str:
        whose = f"put there by {self.owner}" if self.owner else "not ours"
        return (
            f"device {self.device} has the root qdisc {self.kind} {self.handle}, {whose}; remove it with "
            f"`tc qdisc del dev {self.device} root` if nobody needs it, or tell us to replace it"
        )


class ShapingError(NetemError):
    """Rules could not be applied, read back or removed; the message says which and where."""


class ProbeError(NetemError):
    """A link could not be measured: the prober on the other side is gone, silent or no prober."""
