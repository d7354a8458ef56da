"""Leases: who owns which rules on which device, and until when. Written before the rules, deleted after them."""

import contextlib
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from netem.state import started, state_dir, write_whole


@dataclass(frozen=True)
class Lease:
    """The right to one device's root qdisc.

    Attributes:
        id: Name of the lease and of its file.
        run: Description of the owner, for messages.
        host: Name of the host.
        device: Name of the device.
        handle: Major number of our root qdisc.
        network: Inode of the network namespace of the device.
        owner: Process id of the owner; the lease ends when that process exits.
        owner_started: Start time of the owner, which distinguishes it from a later process with the same id.
        expires: Time at which the lease ends at the latest, in seconds since 1970.
    """

    id: str
    run: str
    host: str
    device: str
    handle: int
    network: int
    owner: int
    owner_started: int
    expires: float

    @classmethod
    def take(cls, run: str, device: str, handle: int, ttl_s: float) -> Self:
        """Create a lease of this process and write it to disk."""
        lease = cls(
            id=secrets.token_hex(6),
            run=run,
            host=socket.gethostname(),
            device=device,
            handle=handle,
            network=own_network(),
            owner=os.getpid(),
            owner_started=started(os.getpid()) or 0,
            expires=time.time() + ttl_s,
        )
        write_whole(lease.path, asdict(lease))
        return lease

    @property
    def path(self) -> Path:
        """File of the lease."""
        return state_dir("leases") / f"{self.id}.json"

    @property
    def ended(self) -> bool:
        """Whether the owner has exited or the lease has expired."""
        return time.time() > self.expires or started(self.owner) != self.owner_started

    @property
    def here(self) -> bool:
        """Whether the lease belongs to this network namespace."""
        return self.network == own_network()

    @property
    def lost(self) -> bool:
        """Whether the network namespace, and with it the device and its rules, no longer exists."""
        places = (*Path("/proc").glob("[0-9]*/ns/net"), *Path("/run/netns").glob("*"))
        return not any(self.network == _inode(place) for place in places)

    def drop(self) -> None:
        """Delete the lease from disk."""
        self.path.unlink(missing_ok=True)

    def __str__(self) -> str:
        return f"run {self.run} of process {self.owner} on {self.host} (lease {self.id})"


def leases() -> tuple[Lease, ...]:
    """All leases on the disk of this host; files that are not leases are ignored."""
    return tuple(_readable())


def own_network() -> int:
    """Inode of the network namespace of this process."""
    return Path("/proc/self/ns/net").stat().st_ino


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None  # a process that has just exited


def _readable() -> Iterator[Lease]:
    for path in sorted(state_dir("leases").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            given: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            yield Lease(**given)
