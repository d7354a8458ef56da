"""The checks that run on a host itself, in an actor there; plain values in and out."""

import hashlib
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from netem.errors import NetemError
from netem.prober import Address, ProbeServer, measure_rtt
from orchestrator.records.versions import host_versions
from parties.metering.nvml import VISIBLE, installed_cards

_CODE = ("dashboards", "netem", "orchestrator", "parties")
_DIGITS = 12


class HostDoctor:
    """Listens, connects and reports, on one host."""

    def __init__(self) -> None:
        self._servers: list[ProbeServer] = []  # they end with the process

    def versions(self) -> dict[str, str]:
        """`installed_versions` of this host."""
        return installed_versions()

    def gpus(self) -> dict[str, Any]:
        """The fields of `Cards`, and `CUDA_VISIBLE_DEVICES` of this host's Ray as `visible`, None if it is not set."""
        return {**asdict(installed_cards()), "visible": _of_ray(VISIBLE)}

    def now(self) -> float:
        """This host's clock: seconds since 1970."""
        return time.time()

    def listen(self, host: str, port: int) -> dict[str, Any]:
        """Listen on a data address, until this process ends.

        Args:
            host: IP address.
            port: TCP port; 0 takes a free one.

        Returns:
            The `address` with its port, or the `error` that the system gave.
        """
        try:
            server = ProbeServer(host, port)
        except OSError as error:
            return {"error": error.strerror or str(error)}
        self._servers.append(server)
        return {"address": server.address}

    def rtt(self, address: Address) -> dict[str, Any]:
        """Connect to a listener of another host; the median round trip `rtt_ms` in milliseconds, or the `error`."""
        try:
            trips = sorted(measure_rtt(address))
        except (OSError, NetemError) as error:
            return {"error": str(error) or type(error).__name__}
        return {"rtt_ms": trips[len(trips) // 2] * 1e3}


def _of_ray(variable: str) -> str | None:
    """A variable of the environment of Ray's daemon, the parent of its workers, whose own value Ray sets."""
    daemon = psutil.Process().parent()
    try:
        return None if daemon is None else daemon.environ().get(variable)
    except psutil.Error:  # it belongs to another user
        return None


def installed_versions() -> dict[str, str]:
    """`host_versions` of this host, with a `code`: a digest of this program's own source files as installed here."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted(path for room in _CODE for path in (root / room).rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return {**host_versions(), "code": digest.hexdigest()[:_DIGITS]}
