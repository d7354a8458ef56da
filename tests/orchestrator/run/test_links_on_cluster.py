"""Links between hosts that only Ray reaches, as on a cluster: rules are set, measured and removed on every host."""

import json
import subprocess
import sys

import pytest

from netem.lab import Lab
from orchestrator.run.lab import ray_environment, start_ray
from tests.helpers.paths import ROOT

pytestmark = [
    pytest.mark.ray,
    pytest.mark.netns,
]

# Rates only: many kernels have htb and no netem.
SCRIPT = """
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


def queues(lab: Lab) -> list[str]:
    commands = (lab.run(host.name, ["tc", "qdisc"], capture_output=True, text=True) for host in lab.hosts)
    return [done.stdout for done in commands]


def test_a_rate_is_set_measured_and_removed_on_hosts_that_only_ray_reaches() -> None:
    with Lab.up(3) as lab:
        start_ray(lab)
        before = queues(lab)
        # without the lab's own variable: the driver does not know that its hosts are emulated
        environment = {name: value for name, value in ray_environment(lab).items() if name != "MPCACHE_BENCH_LAB"}
        environment["PYTHONPATH"] = str(ROOT)
        done: subprocess.CompletedProcess[str] = lab.run(
            lab.hosts[0].name, [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True
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
