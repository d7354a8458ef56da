"""Recording and alert rules, held to Prometheus itself where it is installed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from dashboards.rules import _m, rules
from tests.helpers.needs import needs

needs_promtool = needs("prometheus")


def promtool(*arguments: str, folder: Path) -> None:
    (folder / "rules.yml").write_text(yaml.safe_dump(rules()))
    done = subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_accepts_them(tmp_path: Path) -> None:
    promtool("check", "rules", "--lint-fatal", "rules.yml", folder=tmp_path)


@needs_promtool
def test_rules_pass_their_unit_tests(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("rules_test.yml"), tmp_path)
    promtool("test", "rules", "rules_test.yml", folder=tmp_path)


def test_every_name_has_our_prefix_and_is_unique() -> None:
    recording, alerts = (group["rules"] for group in rules()["groups"])
    names = [rule["record"] for rule in recording]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"mpcbench:[a-z_]+:[a-z0-9_]+", name) for name in names)
    recorded = {name for rule in alerts for name in re.findall(r"mpcbench:[a-z0-9_:]+", rule["expr"])}
    assert recorded <= set(names)
    assert all(rule["alert"].startswith("Mpcbench") and rule["annotations"]["summary"] for rule in alerts)


def test_a_name_that_the_registry_does_not_know_is_refused() -> None:
    assert _m("exchange_seconds_bucket") == "mpcbench_exchange_seconds_bucket"
    with pytest.raises(KeyError, match="mpcbench_nonsense_total is not in the registry"):
        _m("nonsense_total")


def test_the_time_without_a_token_can_be_chosen() -> None:
    (stall,) = (rule for rule in rules(7.5)["groups"][1]["rules"] if rule["alert"] == "MpcbenchNoToken")
    assert "> 7.5 unless" in stall["expr"]
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValueError, match=r"stall_seconds: .* positive"):
            rules(wrong)
