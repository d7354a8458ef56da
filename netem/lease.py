"""Leases: who put which rules where, and until when. On disk before the rule, gone after it."""

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
        id: Names the lease and its file.
        run: Whose it is, in words.
        host: Name of the host.
        device: The device.
        handle: Major number of the root qdisc that is ours.
        network: Inode of the network namespace that the device is in.
        owner: Process id of the one who works with it; when that process ends, so does the lease.
        owner_started: Tells that process from a later one with its id.
        expires: When it ends at the latest, in seconds since 1970.
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
        """A new lease of this process, on disk."""
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
        """Its file."""
        return state_dir("leases") / f"{self.id}.json"

    @property
    def ended(self) -> bool:
        """Whether its owner is gone or its time is up."""
        return time.time() > self.expires or started(self.owner) != self.owner_started

    @property
    def here(self) -> bool:
        """Whether it is about this network namespace."""
        return self.network == own_network()

    @property
    def lost(self) -> bool:
        """Whether its network namespace, and with it the device and the rules, is gone."""
        places = (*Path("/proc").glob("[0-9]*/ns/net"), *Path("/run/netns").glob("*"))
        return not any(self.network == _inode(place) for place in places)

    def drop(self) -> None:
        """Remove it from disk."""
        self.path.unlink(missing_ok=True)

    def __str__(self) -> str:
        return f"run {self.run} of process {self.owner} on {self.host} (lease {self.id})"


def leases() -> tuple[Lease, ...]:
    """All leases on this host's disk; a file that is no lease is left alone."""
    return tuple(_readable())


def own_network() -> int:
    """Inode of the network namespace that this process is in."""
    return Path("/proc/self/ns/net").stat().st_ino


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None  # a process that has just ended


def _readable() -> Iterator[Lease]:
    for path in sorted(state_dir("leases").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            given: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            yield Lease(**given)
