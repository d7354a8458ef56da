"""Ray on a lab: one node per host, and nothing left behind."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from netem.lab import Lab
from orchestrator.run.lab import ray_environment, run_in_lab, start_ray
from orchestrator.run.placement import PROTOCOL_ROLES, ROLES
from parties.metering import nvml
from tests.helpers.paths import ROOT

pytestmark = [pytest.mark.netns, pytest.mark.ray]

FAKE_NVML = ROOT / "tests" / "helpers" / "fake_nvml"
WHERE = """
import json, ray
ray.init(log_to_driver=False, logging_level="ERROR")
@ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
def where():
    import socket, netem.lab
    return ray.util.get_node_ip_address(), socket.gethostname(), len(netem.lab.attached().hosts)
nodes = sorted(node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"])
print(*nodes, *ray.get(where.remote()))
from orchestrator.run.placement import place
placement = place(gpu=("client", "server"), wished=("dealer", "referee"), timeout_s=60)
print(json.dumps([placement.hosts, placement.gpus, placement.cards]))
"""


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two GPUs, which Ray only counts."""
    monkeypatch.setenv("MPCBENCH_FAKE_GPUS", "GPU-a,GPU-b")
    monkeypatch.setenv("PYTHONPATH", str(FAKE_NVML), prepend=os.pathsep)
    monkeypatch.syspath_prepend(str(FAKE_NVML))
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    nvml._started.cache_clear()
    yield
    nvml._started.cache_clear()
    sys.modules.pop("pynvml", None)


def test_every_host_is_a_node_with_a_gpu_and_a_role_and_tasks_find_the_lab(two_gpus: None) -> None:
    with Lab.up(3) as lab:
        start_ray(lab, cpus=1)
        argv = [sys.executable, "-c", WHERE]
        done = lab.run("h0", argv, env=ray_environment(lab), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        first, second = done.stdout.splitlines()
        *nodes, ip, name, hosts = first.split()
        assert nodes == [host.address for host in lab.hosts]
        assert name == f"mpcb-{lab.id}-{lab.host(ip).name}"
        assert hosts == "3"
        at, gpus, cards = json.loads(second)
        own = {role: host.address for role, host in zip(PROTOCOL_ROLES, lab.hosts, strict=True)}
        assert at == own | {"referee": own["server"]}  # both know the weights
        assert gpus == dict.fromkeys(ROLES, 0.5)
        assert cards == {"client": "GPU-a", "server": "GPU-b", "dealer": "GPU-a", "referee": "GPU-b"}
        inside = psutil.Process(lab.pid).children(recursive=True)
        assert sum("raylet" in process.name() for process in inside) == 3
    assert not any(process.is_running() for process in inside)


def test_a_command_runs_in_its_own_lab_and_returns_its_status_and_results(tmp_path: Path) -> None:
    script = "import os, sys; open(sys.argv[1], 'w').write(os.environ['RAY_ADDRESS']); sys.exit(4)"
    argv = [sys.executable, "-c", script, str(tmp_path / "result")]
    assert run_in_lab(argv, hosts=2, keep=[tmp_path]) == 4
    assert (tmp_path / "result").read_text() == "10.77.0.10:6379"
