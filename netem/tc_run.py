"""Runs tc: queries the qdiscs of a device and removes ours."""

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
    """The root qdisc of a device."""

    kind: str
    handle: str

    @property
    def by_default(self) -> bool:
        """Whether it is the default qdisc of the kernel, which has no handle."""
        return self.handle == "0:"

    def is_ours(self, handle: int) -> bool:
        """Whether it is the qdisc of the lease with this handle."""
        return self.kind == "htb" and self.handle == f"{handle:x}:"


def remove(lease: Lease) -> bool:
    """Remove the rules of a lease, if they exist, and the lease.

    Returns:
        Whether there were rules to remove.

    Raises:
        ShapingError: `tc` failed; the lease is kept.
    """
    ours = _is_there(lease)
    if ours:
        try:
            execute(removal(lease.device, lease.handle))
        except ShapingError:
            if _is_there(lease):
                raise
            ours = False  # a janitor has removed them in the meantime
    lease.drop()
    return ours


def _is_there(lease: Lease) -> bool:
    root = root_of(lease.device)
    return root is not None and root.is_ours(lease.handle)


def root_of(device: str) -> Root | None:
    """The root qdisc of a device; None if the device does not exist.

    Raises:
        ShapingError: `tc` failed for another reason, so the root qdisc is unknown.
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
        ShapingError: `tc` failed, or its output is not JSON.
    """
    output = execute(("tc", "-j", "qdisc", "show", "dev", device))
    try:
        listed: list[dict[str, Any]] = json.loads(output or "[]")
    except json.JSONDecodeError as error:
        raise ShapingError(f"the output of tc for the qdiscs of {device} is not JSON: {error}") from error
    return listed


def execute(command: Command) -> str:
    """Run one command.

    Returns:
        Its standard output.

    Raises:
        ShapingError: The command failed; the message contains the command and its standard error.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ShapingError(f"`{command[0]}` is not installed; install the package iproute2") from error
    if done.returncode != 0:
        raise ShapingError(f"`{' '.join(command)}` failed: {done.stderr.strip() or f'exit status {done.returncode}'}")
    return done.stdout
