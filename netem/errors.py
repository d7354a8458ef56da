"""Errors of this package; every message names the value at fault and the fix."""

# ruff: noqa: N818 - named after the condition


class NetemError(Exception):
    """Base of all errors of this package."""


class ProfileError(NetemError, ValueError):
    """A profile contains a value that is not allowed.

    Attributes:
        key: Path of the key, such as `pairs.client>server.rate_mbit`.
        value: The given value.
        allowed: Description of the allowed values.
    """

    def __init__(self, key: str, value: object, allowed: str) -> None:
        super().__init__(key, value, allowed)
        self.key = key
        self.value = value
        self.allowed = allowed

    def __str__(self) -> str:
        return f"{self.key}: {self.value!r} is not allowed; give {self.allowed}"


class BackendUnavailable(NetemError):
    """No back end can shape these links on this host; `reasons` has the reason of each back end."""

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__(reasons)
        self.reasons = reasons

    def __str__(self) -> str:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in self.reasons.items())
        return f"no back end can shape these links ({reasons})"


class ForeignQdisc(NetemError):
    """A device has a root qdisc that is not ours."""

    def __init__(self, device: str, kind: str, handle: str, owner: str = "") -> None:
        super().__init__(device, kind, handle, owner)
        self.device = device
        self.kind = kind
        self.handle = handle
        self.owner = owner

    def __str__(self) -> str:
        whose = f"owned by {self.owner}" if self.owner else "not ours"
        return (
            f"device {self.device} has the root qdisc {self.kind} {self.handle}, {whose}; remove it with "
            f"`tc qdisc del dev {self.device} root` if it is not needed, or allow its replacement"
        )


class ShapingError(NetemError):
    """Rules could not be applied, verified or removed; the message names them and the device."""


class ProbeError(NetemError):
    """A link could not be measured: the other end is gone, does not respond or is not a prober."""
