"""A Ray head that requires a token and speaks TLS: unauthorised clients are refused, and our run works."""

import contextlib
import datetime as dt
import ipaddress
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import ray
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.helpers.paths import ROOT
from tests.helpers.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.ray

HERE = ray.util.get_node_ip_address()  # Ray replaces 127.0.0.1 by it, so the certificate names it
BIN = Path(sys.executable).parent
TOKEN = "a-token-of-this-test-alone-0123456789abcdef"  # noqa: S105 - it opens nothing but this test's head
EXPERIMENT = """
name: secured
model: random:tiny-llama
prompt: {random_tokens: true}
engines: [plain]
policies: [full]
seq_lens: [16]
new_tokens: 1
"""


@dataclass(frozen=True)
class Head:
    """A running head: its address, the environment to reach it, and the folder of its certificates."""

    port: int
    environment: dict[str, str]
    folder: Path

    @property
    def address(self) -> str:
        return f"{HERE}:{self.port}"


def certificates(folder: Path) -> None:
    """An authority of our own, and one certificate that it signed for this machine's address."""
    now = dt.datetime.now(dt.UTC)

    def certify(name: str, issuer: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey) -> None:
        names = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, issuer))
        subject, issued_by = names
        signed = (
            x509.CertificateBuilder(issued_by, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name == issuer, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HERE))]), critical=False)
            .sign(signer, hashes.SHA256())
        )
        (folder / f"{name}.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    authority, node = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    certify("ca", "ca", authority, authority)
    certify("node", "ca", node, authority)
    private = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "node.key").write_bytes(node.private_bytes(*private))
    (folder / "node.key").chmod(0o600)


def free_port() -> int:
    with socket.create_server((HERE, 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="cluster-", dir="/tmp"))
    certificates(folder)
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = inherited | {
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": str(ROOT),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(folder / "node.crt"),
        "RAY_TLS_SERVER_KEY": str(folder / "node.key"),
        "RAY_TLS_CA_CERT": str(folder / "ca.crt"),
    }
    head = Head(free_port(), environment, folder)
    command: list[str | Path] = [
        BIN / "ray",
        "start",
        "--head",
        f"--node-ip-address={HERE}",
        f"--port={head.port}",
        "--num-cpus=4",
    ]
    command += ["--object-store-memory=80000000", "--include-dashboard=false", f"--temp-dir={folder / 'ray'}"]
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}"]
    command += ["--disable-usage-stats", "--block"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        until_started(process, folder / "log")
        yield head
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def until_started(process: "subprocess.Popen[bytes]", log: Path) -> None:
    def started() -> bool:
        assert process.poll() is None, log.read_text()
        return "Ray runtime started" in log.read_text()

    wait_until(started, log.read_text)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ends the head and every process that it started."""
    if process.poll() is None:
        starter = psutil.Process(process.pid)
        family = [starter, *starter.children(recursive=True)]
        process.terminate()
        _, left = psutil.wait_procs(family, timeout=30)
        for one in left:
            one.kill()
    process.wait(PATIENCE_S)


def run(head: Head, folder: Path, **changes: str | None) -> "subprocess.CompletedProcess[str]":
    """Runs the experiment with the head's environment and the given changes; None removes a variable."""
    (folder / "experiment.yaml").write_text(EXPERIMENT)
    command: list[str | Path] = [BIN / "mpcache-bench", "run", folder / "experiment.yaml", "--out", folder / "out"]
    command += ["--address", head.address]
    environment = {name: value for name, value in (head.environment | changes).items() if value is not None}
    environment |= {"HOME": str(folder), "MPCACHE_BENCH_TARGETS": str(folder)}  # no token of the user's own
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)


def greeting(head: Head, *, certified: bool) -> bytes:
    """The first bytes that the head sends after a TLS handshake."""
    context = ssl.create_default_context(cafile=head.folder / "ca.crt")
    context.set_alpn_protocols(["h2"])
    if certified:
        context.load_cert_chain(head.folder / "node.crt", head.folder / "node.key")
    plain = socket.create_connection((HERE, head.port), PATIENCE_S)
    with plain, context.wrap_socket(plain, server_hostname=HERE) as secure:
        return secure.recv(64)


def test_our_run_works_with_the_token_and_the_certificate(head: Head, tmp_path: Path) -> None:
    done = run(head, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = (tmp_path / "out" / "records.jsonl").read_text().splitlines()
    assert json.loads(line)["status"] == "ok"
    kept = done.stdout + done.stderr + "".join(p.read_text() for p in (tmp_path / "out").rglob("*.jsonl"))
    assert TOKEN not in kept


def test_a_driver_without_the_token_is_refused(head: Head, tmp_path: Path) -> None:
    done = run(head, tmp_path, RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN_PATH=None)
    assert done.returncode == 2, done.stdout
    assert "it requires a token: export RAY_AUTH_MODE=token" in done.stderr
    assert "InvalidAuthToken" not in done.stdout + done.stderr  # reported once, and not by Ray
    assert not (tmp_path / "out" / "records.jsonl").exists()


def test_a_driver_without_a_certificate_gets_an_error_that_names_tls(head: Head, tmp_path: Path) -> None:
    done = run(head, tmp_path, RAY_USE_TLS=None)
    assert done.returncode == 2, done.stdout
    assert "does not answer as a Ray head, or requires TLS (RAY_USE_TLS=1)" in done.stderr


def test_the_head_answers_a_client_with_a_certificate(head: Head) -> None:
    settings_frame = 4
    assert greeting(head, certified=True)[3] == settings_frame


def test_the_head_closes_a_connection_without_a_certificate(head: Head) -> None:
    reply = b""  # the end of the connection, with an alert or without one
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        reply = greeting(head, certified=False)
    assert reply == b""
