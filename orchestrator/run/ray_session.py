"""The Ray that a sweep runs on: the one there is, or one of its own that ends with it."""

import functools
import logging
import os
import secrets
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import ray
from ray._private import services

from orchestrator.run import niceness
from orchestrator.run.ray_address import Cluster, ClusterError, named_cluster, probe, ray_settings
from orchestrator.run.scratch import remove_ended, scratch
from parties.metering.cgroup import usable_cpus

__all__ = ["ClusterError", "ray_session"]

_OBJECT_STORE_BYTES = 80_000_000  # only small dictionaries pass through Ray
_LOGICAL_CPUS = 4  # enough for four parties; Ray also starts that many processes ahead
_STARTS = 2
_START_WAIT = "RAY_raylet_start_wait_time_s"
_START_WAIT_S = 120  # for a node to register with its head; Ray itself waits 30 s, too short on a busy machine
_END_S = 5.0
_EXECUTED_S = 1.0


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """A connection to Ray for as long as the block lasts.

    A connection that exists already is used and left alone. Otherwise the cluster at `address`, or the one that
    `RAY_ADDRESS` names (as in a submitted job), is joined and left again. Without either, a Ray of our own runs on this
    machine and is stopped at the end; any other Ray on the machine is not touched.

    Args:
        address: `host:port` of the cluster's head, `auto` for the cluster of this machine, `local` for a Ray of our own
            whatever `RAY_ADDRESS` names, or None.

    Raises:
        ClusterError: There is no cluster at the address, it refuses this driver, or Ray does not start here.
    """
    if ray.is_initialized():
        yield
        return
    cluster = named_cluster(address)
    with _own_sigterm(), _own_ray() if cluster is None else _joined(cluster):
        yield


@contextmanager
def _joined(cluster: Cluster) -> Iterator[None]:
    with ray_settings(RAY_USAGE_STATS_ENABLED="0", **cluster.settings):
        probe(cluster)
        try:
            try:
                with _quietly():
                    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
            except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
                raise cluster.refusal(error) from error
            yield
        finally:
            ray.shutdown()


@contextmanager
def _own_ray() -> Iterator[None]:
    """A Ray of our own; a second attempt is made if a busy machine does not bring it up."""
    remove_ended()
    began = time.monotonic()
    with ExitStack() as stack:
        for attempt in range(1, _STARTS + 1):
            try:
                stack.enter_context(_started())
                break
            except Exception as error:  # Ray raises bare exceptions here
                if attempt == _STARTS:
                    raise _not_started(time.monotonic() - began, error) from error
        yield


@contextmanager
def _started() -> Iterator[None]:
    with scratch() as folder, ray_settings(**_settings(folder)):
        try:
            with _quietly(), _own_process_groups():
                ray.init(
                    address="local",  # never a cluster that happens to run on this machine
                    num_cpus=_LOGICAL_CPUS,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _temp_dir=str(folder),
                )
            yield
        finally:
            ray.shutdown()
            _end_processes(folder)


def _settings(folder: Path) -> dict[str, str | None]:
    """Ray's settings for a Ray of our own.

    It requires a token, so that no other user of the machine can run programs as this one. The token is in its own
    folder: the user's may be missing, unwritable or meant for a cluster.
    """
    token = folder / "auth_token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), encoding="ascii")
    return {
        "PYTHONPATH": os.pathsep.join(_import_folders()),
        "RAY_ADDRESS": None,
        "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token"),
        "RAY_AUTH_TOKEN": None,
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        **niceness.settings(),
        _START_WAIT: os.environ.get(_START_WAIT, str(_START_WAIT_S)),
    }


def _import_folders() -> list[str]:
    """The import path of this program, so that its Ray workers import the same code."""
    return [str(Path(folder).resolve()) for folder in sys.path if Path(folder).is_dir()]


def _not_started(seconds: float, error: Exception) -> ClusterError:
    words = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return ClusterError(
        f"Ray could not start on this machine within {seconds:.0f} s: {words}; is it busy? This process may use "
        f"{usable_cpus():g} CPUs. Wait for what else runs here, allow more CPU time, or name a Ray that runs: --address"
    )


def _end_processes(folder: Path) -> None:
    """End what is left of a Ray whose folder this is: after a start that failed, Ray itself ends nothing."""
    ours = [child for child in psutil.Process().children() if str(folder) in " ".join(_words(child))]
    family = [process for child in ours for process in (child, *_children(child))]
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=_END_S)


def _words(process: psutil.Process) -> list[str]:
    """The command line, which a program that has just been executed does not have for a moment."""
    stop = time.monotonic() + _EXECUTED_S
    try:
        while not (words := process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > stop:
                break
            time.sleep(0.001)
    except psutil.Error:
        return []
    return words


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


@contextmanager
def _own_process_groups() -> Iterator[None]:
    """Ray's processes start in process groups of their own.

    `timeout`, systemd and terminals signal the driver's whole group, so that it ends in its own order. A Ray that
    got the signal as well would be gone before: the driver would wait a minute for it and be ended by Ray, without a
    record and with advice on Ray's logs. Ray does the same on Windows. The kernel still ends them with the driver.
    """
    plain = services.ConsolePopen
    services.ConsolePopen = functools.partial(plain, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = plain


@contextmanager
def _quietly() -> Iterator[None]:
    """No tip about GPU-less actors: that they see no GPU is what we want."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Tip: In future versions of Ray", category=FutureWarning)
        yield


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Puts the handler of SIGTERM back that `ray.init` replaces."""
    sigterm = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, sigterm)
