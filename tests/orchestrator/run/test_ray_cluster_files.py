"""The cluster files, held against Ray's own schema and the placement's roles."""

import re
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.docker import validate_docker_config
from ray.autoscaler._private.util import prepare_config, validate_config

from orchestrator.run.placement import PROTOCOL_ROLES
from tests.helpers.paths import ROOT

NAMES = ("ray_cluster.yaml", "ray_cluster.aws.yaml")


def document(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return loaded


@pytest.mark.parametrize("name", NAMES)
def test_ray_accepts_the_file(name: str) -> None:
    validate_config(prepare_config(document(name)))


@pytest.mark.parametrize("name", NAMES)
def test_ray_refuses_a_misspelt_key(name: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match="setup_comands"):
        validate_config(prepare_config(document(name) | {"setup_comands": []}))


@pytest.mark.parametrize("name", NAMES)
def test_every_role_of_the_protocol_has_a_machine(name: str) -> None:
    content = document(name)
    typed = {role for kind in content.get("available_node_types", {}).values() for role in kind["resources"]}
    started = " ".join(content["head_start_ray_commands"] + content["worker_start_ray_commands"])
    offered = typed | set(re.findall(r'(?:ROLE=|\{")(client|server|dealer)', started))
    assert offered == set(PROTOCOL_ROLES)


def test_ray_accepts_the_types_of_machines_with_gpus() -> None:
    content = document("ray_cluster.aws.yaml")
    types = content["available_node_types"]
    content["head_node_type"] = "client_gpu"
    types["server"]["min_workers"], types["server_gpu"]["min_workers"] = 0, 1
    validate_config(prepare_config(content))
    started = [kind for kind in types.values() if kind.get("min_workers")] + [types["client_gpu"]]
    assert {role for kind in started for role in kind["resources"]} == set(PROTOCOL_ROLES)


def test_ray_accepts_the_container_that_is_commented_out() -> None:
    text = (ROOT / "ray_cluster.yaml").read_text()
    (block,) = re.findall(r"^# docker:\n(?:#   .*\n)+", text, re.MULTILINE)
    content = document("ray_cluster.yaml") | yaml.safe_load(re.sub("^# ", "", block, flags=re.MULTILINE))
    assert "--shm-size=1g" in content["docker"]["run_options"]
    validate_config(prepare_config(content))
    validate_docker_config(content)


@pytest.mark.parametrize("name", NAMES)
def test_set_up_installs_the_projects_requirements(name: str) -> None:
    content = document(name)
    installed = set(re.findall(r"~/mpcache-bench/(\S+)", " ".join(content["setup_commands"])))
    assert installed == {"constraints.txt", "requirements-nodeps.txt"}
    assert all((ROOT / path).is_file() for path in installed)


@pytest.mark.parametrize("name", NAMES)
def test_ray_starts_with_the_capability_to_shape_links(name: str) -> None:
    content = document(name)
    for command in (content["head_start_ray_commands"][-1], content["worker_start_ray_commands"][-1]):
        assert "--ambient-caps=+net_admin,+sys_admin" in command
        assert "--metrics-export-port=" in command
        assert "RAY_worker_niceness=0 ray" in command or "RAY_worker_niceness=0 RAY_enable" in command
