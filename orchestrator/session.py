"""The Ray that a sweep runs on: the one there is, or one of its own that ends with it."""

import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import ray

from orchestrator.scratch import remove_ended, scratch

_OBJECT_STORE_BYTES = 80_000_000  # only small dictionaries pass through Ray
_KNOCK_S = 10.0
_LOGICAL_CPUS = 4  # enough for four parties; Ray also starts that many processes ahead


class ClusterError(Exception):
    """There is no Ray to run on; the message says where it was looked for."""


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """A connection to Ray for as long as the block lasts.

    A connection that exists already is used and left alone. Otherwise the cluster at `address`, or the one that
    `RAY_ADDRESS` names (as in a submitted job), is joined and left again. Without either, a Ray of our own runs on this
    machine and is stopped at the end; any other Ray on the machine is not touched.

    Args:
        address: `host:port` of the cluster's head, `auto` for the cluster of this machine, or None.

    Raises:
        ClusterError: There is no cluster at the address.
    """
    if ray.is_initialized():
        yield
        return
    sigterm = signal.getsignal(signal.SIGTERM)
    address = address or os.environ.get("RAY_ADDRESS")
    with nullcontext() if address else scratch() as folder:
        try:
            if address:
                _join(address)
            elif folder:
                remove_ended()
                _start(str(folder))
            yield
        finally:
            ray.shutdown()
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, sigterm)  # ray.init puts its own in place


def _join(address: str) -> None:
    try:
        _knock(address)
        with _quietly():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        raise ClusterError(
            f"no Ray cluster at {address}: {error}; start one (`ray up ray_cluster.yaml`, or `ray start --head`), or "
            f"leave the address out to run on this machine"
        ) from error


def _knock(address: str) -> None:
    """Refuse an address where nothing answers; Ray itself would try for five minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("an address is host:port of the head, such as 192.0.2.10:6379, or auto")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


def _start(folder: str) -> None:
    with _quietly(), _environment(PYTHONPATH=os.pathsep.join(_import_folders())):
        ray.init(
            address="local",  # never a cluster that happens to run on this machine
            num_cpus=_LOGICAL_CPUS,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=folder,
        )


def _import_folders() -> list[str]:
    """Where this program imports from, so that its Ray workers import the same code."""
    return [str(Path(folder).resolve()) for folder in sys.path if Path(folder).is_dir()]


@contextmanager
def _quietly() -> Iterator[None]:
    """No usage statistics, and no tip about GPU-less actors: that they see no GPU is what we want."""
    with warnings.catch_warnings(), _environment(RAY_USAGE_STATS_ENABLED="0"):
        warnings.filterwarnings("ignore", message="Tip: In future versions of Ray", category=FutureWarning)
        yield


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Environment variables for the processes started in the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
