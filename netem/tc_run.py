"""Running tc: what a device has, and taking back what is ours."""

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from netem.errors import ShapingError
from netem.lease import Lease
from netem.tc_plan import Command, removal

_GONE = "Cannot find device"


@dataclass(frozen=True)
class Root:
    """A device's root qdisc."""

    kind: str
    handle: str

    @property
    def by_default(self) -> bool:
        """Whether the kernel put it there by itself: such a qdisc has no handle."""
        return self.handle == "0:"

    def is_ours(self, handle: int) -> bool:
        """Whether it is the one that a lease is about."""
        return self.kind == "htb" and self.handle == f"{handle:x}:"


def remove(lease: Lease) -> bool:
    """Remove what a lease is about, if it is there, and the lease.

    Returns:
        Whether there was a rule to remove.

    Raises:
        ShapingError: tc failed; the lease stays.
    """
    ours = _is_there(lease)
    if ours:
        try:
            execute(removal(lease.device, lease.handle))
        except ShapingError:
            if _is_there(lease):
                raise
            ours = False  # a janitor was faster
    lease.drop()
    return ours


def _is_there(lease: Lease) -> bool:
    root = root_of(lease.device)
    return root is not None and root.is_ours(lease.handle)


def root_of(device: str) -> Root | None:
    """A device's root qdisc; None if the device is gone.

    Raises:
        ShapingError: tc failed for another reason: not to know is not the same as there being nothing.
    """
    try:
        roots = [qdisc for qdisc in qdiscs(device) if qdisc.get("root")]
    except ShapingError as error:
        if _GONE in str(error):
            return None
        raise
    return Root(roots[0]["kind"], roots[0]["handle"]) if roots else Root("noqueue", "0:")


def qdiscs(device: str) -> list[dict[str, Any]]:
    """All qdiscs of a device, as tc lists them.

    Raises:
        ShapingError: tc failed, or said what is not JSON.
    """
    output = execute(("tc", "-j", "qdisc", "show", "dev", device))
    try:
        listed: list[dict[str, Any]] = json.loads(output or "[]")
    except json.JSONDecodeError as error:
        raise ShapingError(f"tc lists the qdiscs of {device} in what is no JSON: {error}") from error
    return listed


def execute(command: Command) -> str:
    """Run one command.

    Returns:
        What it said.

    Raises:
        ShapingError: It failed; the message holds the command and what it said.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ShapingError(f"`{command[0]}` is not installed; it comes with the package iproute2") from error
    if done.returncode != 0:
        raise ShapingError(f"`{' '.join(command)}` failed: {done.stderr.strip() or f'exit status {done.returncode}'}")
    return done.stdout
