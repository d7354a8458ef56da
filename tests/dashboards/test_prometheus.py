"""The Prometheus configuration of a run, held to Prometheus itself where it is installed."""

import subprocess
from pathlib import Path

import pytest
import yaml

from dashboards.prometheus import configuration
from dashboards.rules import rules
from tests.helpers.needs import needs


def test_the_runs_target_file_is_read_every_second(tmp_path: Path) -> None:
    made = configuration(tmp_path / "targets.json")
    (job,) = made["scrape_configs"]
    assert job["file_sd_configs"] == [{"files": [str(tmp_path / "targets.json")], "refresh_interval": "1s"}]
    assert made["global"]["scrape_interval"] == job["scrape_interval"] == "1s"


def test_ray_is_found_through_its_dashboard(tmp_path: Path) -> None:
    made = configuration(tmp_path / "*.json", ray="http://192.0.2.1:8265/")
    _, ray = made["scrape_configs"]
    assert ray["http_sd_configs"][0]["url"] == "http://192.0.2.1:8265/api/prometheus/sd"
    with pytest.raises(ValueError, match=r"ray: 192\.0\.2\.1:8265 must begin with http://"):
        configuration(tmp_path / "*.json", ray="192.0.2.1:8265")


def test_a_file_that_prometheus_would_not_read_is_refused() -> None:
    with pytest.raises(ValueError, match=r"targets: targets\.txt must end in \.json"):
        configuration(Path("targets.txt"))


@needs("prometheus")
def test_promtool_accepts_it(tmp_path: Path) -> None:
    (tmp_path / "targets.json").write_text("[]")
    path = tmp_path / "prometheus.yml"
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules()))
    made = configuration(tmp_path / "*.json", [tmp_path / "rules.yml"], "http://127.0.0.1:8265")
    path.write_text(yaml.safe_dump(made))
    done = subprocess.run(["promtool", "check", "config", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
