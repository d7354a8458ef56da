"""Ray on a lab: one node per host, and nothing left behind."""

import sys
from pathlib import Path

import psutil
import pytest

from netem.lab import Lab
from orchestrator.run.lab import ray_environment, run_in_lab, start_ray

pytestmark = [pytest.mark.netns, pytest.mark.ray]

WHERE = """
import ray
ray.init(log_to_driver=False, logging_level="ERROR")
@ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
def where():
    import socket, netem.lab
    return ray.util.get_node_ip_address(), socket.gethostname(), len(netem.lab.attached().hosts)
nodes = sorted(node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"])
print(*nodes, *ray.get(where.remote()))
"""


def test_every_host_is_a_node_and_tasks_find_the_lab() -> None:
    with Lab.up(3) as lab:
        start_ray(lab, cpus=1)
        argv = [sys.executable, "-c", WHERE]
        done = lab.run("h0", argv, env=ray_environment(lab), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        *nodes, ip, name, hosts = done.stdout.split()
        assert nodes == [host.address for host in lab.hosts]
        assert name == f"mpcb-{lab.id}-{lab.host(ip).name}"
        assert hosts == "3"
        inside = psutil.Process(lab.pid).children(recursive=True)
        assert sum("raylet" in process.name() for process in inside) == 3
    assert not any(process.is_running() for process in inside)


def test_a_command_runs_in_its_own_lab_and_returns_its_status_and_results(tmp_path: Path) -> None:
    script = "import os, sys; open(sys.argv[1], 'w').write(os.environ['RAY_ADDRESS']); sys.exit(4)"
    argv = [sys.executable, "-c", script, str(tmp_path / "result")]
    assert run_in_lab(argv, hosts=2, keep=[tmp_path]) == 4
    assert (tmp_path / "result").read_text() == "10.77.0.10:6379"
