"""`ray up` with the repository's ray_cluster.yaml, on hosts with an sshd: a private cell runs, `ray down` ends it."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from netem.lab import Lab
from orchestrator.records.store import RecordStore
from tests.helpers.needs import needs
from tests.helpers.paths import ROOT
from tests.helpers.waiting import PATIENCE_S, wait_until

SSHD = shutil.which("sshd", path="/usr/sbin:/sbin:" + os.environ["PATH"])

pytestmark = [
    pytest.mark.ray,
    pytest.mark.netns,
    needs("ssh"),
]

BIN = Path(sys.executable).parent
ROLES = ("client", "server", "dealer")
HOME = "/tmp/home"  # noqa: S108 - a host's /tmp is its own

# What makes a host of a lab a machine with an ssh server and a user. The user has the number of root, because the
# Python that all hosts share may lie where only root can read.
BECOME_A_MACHINE = f"""
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
mount --bind "$0/passwd" /etc/passwd
mount --bind "$0/shadow" /etc/shadow
mount --bind "$0/sudoers" /etc/sudoers
cp -r /etc/skel {HOME}
install -d -m 700 {HOME}/.ssh
install -m 600 "$0/key.pub" {HOME}/.ssh/authorized_keys
install -m 600 "$0/key" {HOME}/.ssh/id_ed25519
"""
SSHD_OPTIONS = (
    "PidFile=none",
    "UsePAM=no",
    "PermitRootLogin=prohibit-password",
    "AuthorizedKeysFile=.ssh/authorized_keys",
    "SetEnv=RAY_raylet_start_wait_time_s=600",  # Ray itself waits 30 s for a node to start, too short on a busy machine
)

EXPERIMENT = {
    "name": "brought-up",
    "model": "random:tiny-llama",
    "prompt": {"random_tokens": True},
    "engines": ["fss"],
    "policies": ["mpcache"],
    "seq_lens": [32],
    "new_tokens": 1,
}


def accounts(folder: Path, user: str) -> None:
    """The users of this machine and one more, whom only a key lets in and who may use `sudo` without a password."""
    others = [line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith(f"{user}:")]
    (folder / "passwd").write_text("\n".join([f"{user}:x:0:0::{HOME}:/bin/bash", *others, ""]))
    (folder / "shadow").write_text(f"{user}:*:20000:0:99999:7:::\nroot:*:20000:0:99999:7:::\n")
    (folder / "shadow").chmod(0o600)
    (folder / "sudoers").write_text(f"{user} ALL=(ALL) NOPASSWD: ALL\n")
    (folder / "sudoers").chmod(0o440)


def keys(folder: Path) -> None:
    for name in ("key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)


def cluster_file(folder: Path) -> Path:
    """The repository's file, with the Python that all hosts share instead of installations from the network."""
    content = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    content["setup_commands"] = [
        line for line in content["setup_commands"] if "pip" not in line and "-m venv" not in line
    ]
    content["setup_commands"].insert(0, f"ln -sfn {sys.prefix} ~/mpcache-bench-venv")
    (folder / "ray_cluster.yaml").write_text(yaml.safe_dump(content))
    return folder / "ray_cluster.yaml"


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Hosts with the addresses of the file: three with an sshd, and the user's own, the last."""
    monkeypatch.chdir(ROOT)  # the file's mounts are relative to the checkout, where its user stands
    keys(tmp_path)
    accounts(tmp_path, "ubuntu")
    with Lab.up(4, subnet="192.0.2", keep=[tmp_path]) as lab:
        for host in lab.hosts:
            done = lab.run(host.name, ["sh", "-c", BECOME_A_MACHINE, str(tmp_path)], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        for host in lab.hosts[:3]:
            options = [word for option in SSHD_OPTIONS for word in ("-o", option)]
            server = [str(SSHD), "-D", "-e", "-f", "/dev/null", "-h", str(tmp_path / "host_key"), *options]
            lab.spawn(host.name, server, f"{HOME}/sshd.log")
        yield lab


def by_the_user(lab: Lab, folder: Path, *command: object) -> str:
    """The output of a command of the user's, in a checkout, on both streams; it must succeed."""
    environment = {"HOME": HOME, "USER": "ubuntu", "PATH": f"{BIN}:{os.environ['PATH']}", "RAY_AUTH_MODE": "disabled"}
    environment |= {"RAY_UP_enable_autoscaler_v2": "0", "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8"}
    with (folder / "log").open("w+") as log:
        argv = [str(word) for word in command]
        done = lab.run(
            lab.hosts[3].name,
            argv,
            env=environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE_S,
        )
        log.seek(0)
        text = log.read()
    assert done.returncode == 0, text
    return text


def wait_for_raylets(lab: Lab, count: int) -> None:
    """Waits until `count` machines run Ray."""

    def running() -> int:
        inside = psutil.Process(lab.pid).children(recursive=True)
        return sum(name_of(process) == "raylet" for process in inside)

    wait_until(lambda: running() == count, lambda: f"{running()} machines run Ray, not {count}")


def name_of(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.name()
    return ""


def test_ray_up_brings_up_a_cluster_that_runs_a_private_cell_and_ray_down_ends_it(
    machines: Lab, tmp_path: Path
) -> None:
    file = cluster_file(tmp_path)
    by_the_user(machines, tmp_path, "ray", "up", "-y", "--no-config-cache", file)
    wait_for_raylets(machines, 3)
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    head = f"http://{machines.hosts[0].address}:8265"
    run = ["mpcache-bench", "submit", tmp_path / "experiment.yaml", "--address", head, "--out", tmp_path / "out"]
    output = by_the_user(machines, tmp_path, *run)
    (record,) = RecordStore(tmp_path / "out").read()
    assert record.status == "ok", output
    where = {role: record.parties[role].host for role in ROLES}
    assert where == dict(zip(ROLES, (host.address for host in machines.hosts[:3]), strict=True))
    by_the_user(machines, tmp_path, "ray", "down", "-y", file)
    wait_for_raylets(machines, 0)  # the workers' ends a minute after the head's
