"""Ray on a lab: one node per host, links that are set and measured through Ray alone, and nothing left behind."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from netem.lab import Lab
from orchestrator.run import lab as ray_lab
from orchestrator.run.lab import ray_environment, run_in_lab, start_ray
from orchestrator.run.placement import PROTOCOL_ROLES, ROLES
from parties.metering import nvml
from tests.helpers.paths import ROOT

pytestmark = [pytest.mark.netns, pytest.mark.ray]

WHERE = """
import json, ray
ray.init(log_to_driver=False, logging_level="ERROR")
@ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
def where():
    import os, socket, netem.lab
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    return ray.util.get_node_ip_address(), socket.gethostname(), len(netem.lab.attached().hosts), nice
nodes = sorted(node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"])
print(*nodes, *ray.get(where.remote()))
from orchestrator.run.placement import place
placement = place(gpu=("client", "server"), wished=("dealer", "referee"), timeout_s=60)
print(json.dumps([placement.hosts, placement.gpus, placement.cards]))
"""

# Rates only: many kernels have htb and no netem.
LINKS = """
import json, logging, subprocess, ray
from dataclasses import asdict
from orchestrator.run.links import LinkMeasurements, _Cluster, links_between
from orchestrator.experiment.networks import ResolvedNetwork, parse_network
from orchestrator.run.placement import place

ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
placement = place(gpu=(), timeout_s=60)
bound = {role: (host, 7100) for role, host in placement.hosts.items()}
network = parse_network({"name": "thin", "rate_mbit": 50, "pairs": {"client>server": {"rate_mbit": 20}}})
try:
    with links_between(network, "tc", bound, placement) as links:
        measurements = LinkMeasurements(links)
        measurements.before()
        rules = subprocess.run(["tc", "qdisc"], capture_output=True, text=True).stdout
        measurements.after()
        readings = [asdict(reading) for reading in measurements.readings]
finally:
    placement.release()
print("RESULT", json.dumps({"hosts": placement.hosts, "backend": links.backend, "rules": rules, "links": readings}))
"""


@pytest.fixture(scope="module")
def two_gpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two GPUs, which Ray only counts; the folder of their library, which the hosts must see."""
    folder = tmp_path_factory.mktemp("nvml")
    shutil.copy(ROOT / "tests" / "helpers" / "fake_nvml.py", folder / "pynvml.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPCBENCH_FAKE_GPUS", "GPU-a,GPU-b")
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        patch.syspath_prepend(str(folder))
        patch.delitem(sys.modules, "pynvml", raising=False)
        nvml._started.cache_clear()
        yield folder
        nvml._started.cache_clear()
        sys.modules.pop("pynvml", None)


@pytest.fixture(scope="module")
def lab(two_gpus: Path) -> Iterator[Lab]:
    """Three hosts with a Ray node each; nothing is left of them afterwards."""
    with Lab.up(3, keep=[two_gpus]) as lab:
        start_ray(lab, cpus=2)
        yield lab
        inside = psutil.Process(lab.pid).children(recursive=True)
    assert not any(process.is_running() for process in inside)


def test_every_host_is_a_node_with_a_gpu_and_a_role_and_tasks_find_the_lab(lab: Lab) -> None:
    argv = [sys.executable, "-c", WHERE]
    done = lab.run("h0", argv, env=ray_environment(lab), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()[-2:]  # after what Ray may say of a busy machine
    *nodes, ip, name, hosts, nice = first.split()
    assert nodes == [host.address for host in lab.hosts]
    assert name == f"mpcb-{lab.id}-{lab.host(ip).name}"
    assert (hosts, nice) == ("3", "0")
    at, gpus, cards = json.loads(second)
    own = {role: host.address for role, host in zip(PROTOCOL_ROLES, lab.hosts, strict=True)}
    assert at == own | {"referee": own["server"]}  # both know the weights
    assert gpus == dict.fromkeys(ROLES, 0.5)
    assert cards == {"client": "GPU-a", "server": "GPU-b", "dealer": "GPU-a", "referee": "GPU-b"}
    inside = psutil.Process(lab.pid).children(recursive=True)
    assert sum("raylet" in process.name() for process in inside) == 3


def queues(lab: Lab) -> list[str]:
    commands = (lab.run(host.name, ["tc", "qdisc"], capture_output=True, text=True) for host in lab.hosts)
    return [done.stdout for done in commands]


def test_a_rate_is_set_measured_and_removed_on_hosts_that_only_ray_reaches(lab: Lab) -> None:
    before = queues(lab)
    # without the lab's own variable: the driver does not know that its hosts are emulated
    environment = {name: value for name, value in ray_environment(lab).items() if name != "MPCACHE_BENCH_LAB"}
    environment["PYTHONPATH"] = str(ROOT)
    done: subprocess.CompletedProcess[str] = lab.run(
        lab.hosts[0].name, [sys.executable, "-c", LINKS], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.split("RESULT ")[1])
    assert queues(lab) == before
    assert result["backend"] == "tc"
    assert len({result["hosts"][role] for role in ("client", "server", "dealer")}) == 3
    assert "htb" in result["rules"]
    assert len(result["links"]) == 6
    for link in result["links"]:
        rate = 20 if (link["src"], link["dst"]) == ("client", "server") else 50
        assert link["asked"]["rate_mbit"] == rate
        for when in ("measured_before", "measured_after"):
            assert 0.9 * rate <= link[when]["rate_mbit"] <= 1.1 * rate


def test_a_command_runs_in_its_own_lab_and_returns_its_status_and_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_lab, "start_ray", lambda _: None)  # the command does not use it
    script = "import os, sys; open(sys.argv[1], 'w').write(os.environ['RAY_ADDRESS']); sys.exit(4)"
    argv = [sys.executable, "-c", script, str(tmp_path / "result")]
    assert run_in_lab(argv, hosts=2, keep=[tmp_path]) == 4
    assert (tmp_path / "result").read_text() == "10.77.0.10:6379"


LATE = """#!/bin/sh
if [ "$1" = start ] && [ ! -e /tmp/late ]; then
    touch /tmp/late
    exit 1
fi
exec {ray} "$@"
"""


def test_a_node_that_did_not_join_in_time_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ray").write_text(LATE.format(ray=Path(sys.executable).with_name("ray")))
    (tmp_path / "ray").chmod(0o700)

    def first_ours(lab: Lab) -> dict[str, str]:
        environment = ray_environment(lab)
        return {**environment, "PATH": f"{tmp_path}{os.pathsep}{environment['PATH']}"}

    monkeypatch.setattr(ray_lab, "ray_environment", first_ours)
    with Lab.up(2, keep=[tmp_path]) as made:
        start_ray(made)  # waits until both have joined
        assert [made.run(host.name, ["test", "-e", "/tmp/late"]).returncode for host in made.hosts] == [0, 0]  # noqa: S108
