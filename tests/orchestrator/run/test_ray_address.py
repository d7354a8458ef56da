"""Which Ray an address or RAY_ADDRESS selects, and the errors where none accepts the driver; no Ray is started."""

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from ray._private import services
from ray._private.authentication.authentication_utils import is_token_auth_enabled

from orchestrator.run.ray_address import Cluster, ClusterError, named_cluster, probe, ray_settings


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


class Head(grpc.GenericRpcHandler):
    """A head that answers every request with one status."""

    def __init__(self, status: grpc.StatusCode) -> None:
        self._status = status

    def service(self, handler_call_details: Any) -> Any:
        def answer(_request: bytes, context: grpc.ServicerContext) -> bytes:
            if self._status is not grpc.StatusCode.OK:
                context.abort(self._status, "InvalidAuthToken: Authentication token is missing or incorrect")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


def answering(status: grpc.StatusCode) -> tuple[grpc.Server, Cluster]:
    server = grpc.server(ThreadPoolExecutor(1), handlers=[Head(status)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, Cluster(f"127.0.0.1:{port}", "--address")


@pytest.fixture
def locked() -> Iterator[Cluster]:
    server, cluster = answering(grpc.StatusCode.UNAUTHENTICATED)
    yield cluster
    server.stop(None).wait()


@pytest.mark.parametrize("given", [None, "", "local"])
def test_no_address_and_local_start_a_ray_of_the_run(given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert named_cluster(given) is None
    monkeypatch.setenv("RAY_ADDRESS", given or "")
    assert named_cluster(None) is None
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    assert named_cluster("local") is None


def test_an_option_takes_precedence_over_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    assert named_cluster(None) == Cluster("192.0.2.1:6379", "RAY_ADDRESS")
    assert named_cluster("[2001:db8::1]:6379") == Cluster("[2001:db8::1]:6379", "--address")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://127.0.0.1:8265", "http:// is a job server, for `mpcache-bench submit`"),
        ("https://head:8265", "https:// is a job server"),
        ("ray://127.0.0.1:10001", "ray:// is not supported"),
        ("somewhere", "host:port of the head"),
    ],
)
def test_an_invalid_address_is_named_with_its_origin(
    given: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ClusterError) as option:
        named_cluster(given)
    monkeypatch.setenv("RAY_ADDRESS", given)
    with pytest.raises(ClusterError) as variable:
        named_cluster(None)
    for error, origin, way_out in ((option, "--address", "leave the address out"), (variable, "RAY_ADDRESS", "unset")):
        assert f"no Ray cluster at {given} ({origin})" in str(error.value)
        assert expected in str(error.value)
        assert way_out in str(error.value)


def test_auto_logs_the_cluster_that_it_joins_and_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(services, "get_ray_address_from_environment", lambda *_: "192.0.2.1:6379")
    monkeypatch.setattr(services, "find_gcs_addresses", lambda: {"192.0.2.1:6379", "192.0.2.1:7777"})
    assert named_cluster("auto") == Cluster("192.0.2.1:6379", "--address", searched=True)
    (message,) = caplog.messages
    assert message.index("joins the Ray cluster at 192.0.2.1:6379") < message.index("192.0.2.1:7777")
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.9:6379")
    assert named_cluster("auto") == Cluster("192.0.2.9:6379", "RAY_ADDRESS")  # as Ray has it


def test_auto_without_a_cluster_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> str:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(services, "get_ray_address_from_environment", none)
    with pytest.raises(ClusterError, match=r"at auto \(--address\): no Ray runs on this machine; start one"):
        named_cluster("auto")


def test_a_cluster_that_requires_a_token_is_reported_with_the_fix(locked: Cluster) -> None:
    with pytest.raises(ClusterError, match=r"it requires a token: export RAY_AUTH_MODE=token") as refused:
        probe(locked)
    assert f"{locked.address} (--address)" in str(refused.value)
    assert "start one" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"RAY_AUTH_TOKEN": "a-secret-of-the-users"}, "RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere/token"}, "/nowhere/token"),
    ],
)
def test_a_token_that_is_refused_or_missing_is_named_and_never_shown(
    locked: Cluster, settings: dict[str, str], named: str
) -> None:
    with (
        ray_settings(RAY_AUTH_MODE="token", **settings),
        pytest.raises(ClusterError, match=rf"{named} must hold the token that its head was started with") as refused,
    ):
        probe(locked)
    assert "a-secret" not in str(refused.value)


def test_a_head_that_answers_is_passed_to_ray() -> None:
    for status in (grpc.StatusCode.OK, grpc.StatusCode.UNIMPLEMENTED):
        server, cluster = answering(status)
        probe(cluster)
        server.stop(None).wait()


def test_an_address_without_a_head_is_reported_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ClusterError, match="refused; start one"):
        probe(Cluster(f"127.0.0.1:{port}", "--address"))


def test_a_reply_that_is_not_from_a_head_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    server, cluster = answering(grpc.StatusCode.UNAVAILABLE)  # as of a server of another protocol
    with pytest.raises(ClusterError, match="does not answer as a Ray head, or requires TLS"):
        probe(cluster)
    server.stop(None).wait()


def test_settings_reach_ray_and_are_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    with ray_settings(RAY_AUTH_MODE="token", RAY_ADDRESS=None):
        assert is_token_auth_enabled()
        assert "RAY_ADDRESS" not in os.environ
    assert not is_token_auth_enabled()
    assert os.environ["RAY_ADDRESS"] == "192.0.2.1:6379"
    assert "RAY_AUTH_MODE" not in os.environ


def test_auto_sends_the_users_token_unless_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    with ray_settings(RAY_AUTH_TOKEN="a-secret-of-the-users"):  # noqa: S106 - opens nothing
        assert Cluster("192.0.2.1:6379", "--address", searched=True).settings == {"RAY_AUTH_MODE": "token"}
        assert Cluster("192.0.2.1:6379", "--address").settings == {}
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        assert Cluster("192.0.2.1:6379", "--address", searched=True).settings == {}
