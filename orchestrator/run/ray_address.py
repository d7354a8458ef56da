"""Which Ray a run is to use: what `--address` or `RAY_ADDRESS` names, and whether it lets this driver in."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import ray
from ray._private import services
from ray._private.grpc_utils import init_grpc_channel
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

_VARIABLE = "RAY_ADDRESS"
_ALLOWED = "an address is host:port of the head, such as 192.0.2.10:6379, or auto, or local"
_QUESTION = "/ray.rpc.NodeInfoGcsService/GetClusterId"  # the first request of Ray's own drivers
_CONNECT_S, _ANSWER_S = 10.0, 30.0

log = logging.getLogger(__name__)


class ClusterError(Exception):
    """There is no Ray to run on; the message names the places that were searched."""


@dataclass(frozen=True)
class Cluster:
    """A cluster that the user named.

    Attributes:
        address: `host:port` of its head.
        origin: The option or variable that named it.
        searched: Whether it was found by looking on this machine (`auto`).
    """

    address: str
    origin: str
    searched: bool = False

    def refusal(self, reason: object) -> ClusterError:
        """The error of a cluster that cannot be joined, and what to do."""
        start = "start one (`ray up ray_cluster.yaml`, or `ray start --head`)"
        return _refusal(self.address, self.origin, f"{reason}; {start}")

    @property
    def settings(self) -> dict[str, str]:
        """Settings of Ray for joining it: as Ray does, a cluster that `auto` found is shown the user's token."""
        known = AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)
        return {"RAY_AUTH_MODE": "token"} if self.searched and known and "RAY_AUTH_MODE" not in os.environ else {}


def named_cluster(option: str | None) -> Cluster | None:
    """The cluster that `--address` names, or else `RAY_ADDRESS`; None for a Ray of the run's own.

    Args:
        option: `host:port` of a head, `auto` for the cluster of this machine, `local`, or None where none was given.

    Raises:
        ClusterError: It is none of these, or `auto` finds no cluster.
    """
    variable = os.environ.get(_VARIABLE)
    if option == "auto" and variable:  # so does Ray: in a job, `auto` is the job's cluster
        option = None
    given, origin = (option, "--address") if option else (variable, _VARIABLE)
    if not given or given == "local":
        return None
    if given == "auto":
        return _found(origin)
    scheme, separator, _ = given.rpartition("://")
    if scheme in ("http", "https"):
        raise _refusal(given, origin, f"{scheme}:// is a job server, for `mpcache-bench submit`; {_ALLOWED}")
    if separator:
        raise _refusal(given, origin, f"{scheme}:// is not supported; {_ALLOWED}")
    host, _, port = given.rpartition(":")
    if not host or not port.isdigit():
        raise _refusal(given, origin, _ALLOWED)
    return Cluster(given, origin)


def probe(cluster: Cluster) -> None:
    """Ask the head of a cluster for its id, so that a refusal is reported at once; Ray itself would try for minutes.

    Raises:
        ClusterError: Nothing answers at its address, or not as a Ray head does, or it requires a token.
    """
    host, _, port = cluster.address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
        with init_grpc_channel(cluster.address) as channel:
            channel.unary_unary(_QUESTION)(b"", timeout=_ANSWER_S)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            raise _requires_a_token(cluster) from error
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            reason = (
                f"the service there does not answer as a Ray head, or requires TLS (RAY_USE_TLS=1): {error.details()}"
            )
            raise cluster.refusal(reason) from error
    except ray.exceptions.AuthenticationError as error:
        raise _requires_a_token(cluster) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise cluster.refusal(error) from error


@contextmanager
def ray_settings(**variables: str | None) -> Iterator[None]:
    """Environment variables for Ray in this process and for what is started in the block; None takes one out."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    Config.initialize("")  # Ray keeps what it read when it was imported
    AuthenticationTokenLoader.instance().reset_cache()


def _found(origin: str) -> Cluster:
    """The cluster that Ray's `auto` finds, reported before anything runs there, since the user did not name it."""
    try:
        address = services.get_ray_address_from_environment("auto", None)
    except ConnectionError:
        reason = "no Ray runs on this machine; start one (`ray start --head`)"
        raise _refusal("auto", origin, reason) from None
    others = sorted(set(services.find_gcs_addresses()) - {address})
    also = f"; others on this machine: {', '.join(others)}, which --address can name" if others else ""
    log.warning("%s auto: this joins the Ray cluster at %s%s", origin, address, also)
    return Cluster(address, origin, searched=True)


def token_advice() -> str:
    """The fix if a cluster requires a token and this process has none or a wrong one."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        where = "and RAY_AUTH_TOKEN_PATH=FILE, unless the token is in ~/.ray/auth_token"
        return f"it requires a token: export RAY_AUTH_MODE=token ({where})"
    file = os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")
    where = "RAY_AUTH_TOKEN" if "RAY_AUTH_TOKEN" in os.environ else file
    return f"{where} must hold the token that its head was started with"


def _requires_a_token(cluster: Cluster) -> ClusterError:
    cluster_text = f"the Ray cluster at {cluster.address} ({cluster.origin})"
    return ClusterError(f"{cluster_text} refuses this driver: {token_advice()}")


def _refusal(address: str, origin: str, reason: str) -> ClusterError:
    own = f"unset {_VARIABLE}" if origin == _VARIABLE else "leave the address out"
    return ClusterError(f"no Ray cluster at {address} ({origin}): {reason}; or {own} to run on this machine")
