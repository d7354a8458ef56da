"""Prometheus configuration that scrapes the driver and the parties of runs, and Ray.

python -m dashboards.prometheus runs/quickstart/targets.json > prometheus.yml
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

SCRAPE_SECONDS = 1  # stages last only seconds, as do the exporters of a short cell
JOB = "mpcbench"


def configuration(targets: Path, rules: Sequence[Path] = (), ray: str = "") -> dict[str, Any]:
    """The configuration of a Prometheus server.

    Args:
        targets: The `file_sd` file of a run, or `FOLDER/*.json` for all runs of a folder; files may come and go.
        rules: Rule files.
        ray: Address of Ray's dashboard, such as `http://127.0.0.1:8265`, to find Ray's own metrics; empty for none.

    Raises:
        ValueError: `targets` does not end in `.json`, or `ray` is not an HTTP address.
    """
    if targets.suffix != ".json":
        raise ValueError(f"targets: {targets} must end in .json; a run writes it to DIR/targets.json")
    if ray and not ray.startswith(("http://", "https://")):
        raise ValueError(f"ray: {ray} must begin with http:// or https://, such as http://127.0.0.1:8265")
    every = f"{SCRAPE_SECONDS}s"
    return {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": [str(path.resolve()) for path in rules],
        "scrape_configs": [scrape_parties(targets), *([scrape_ray(ray)] if ray else [])],
    }


def scrape_parties(targets: Path) -> dict[str, Any]:
    """The scrape job for the driver and the parties, also for an existing Prometheus."""
    return {
        "job_name": JOB,
        "scrape_interval": f"{SCRAPE_SECONDS}s",
        "scrape_timeout": f"{SCRAPE_SECONDS}s",
        "honor_labels": True,  # exporters set the label `party` themselves; the driver sets it for links
        "file_sd_configs": [{"files": [str(targets.absolute())], "refresh_interval": f"{SCRAPE_SECONDS}s"}],
    }


def scrape_ray(address: str) -> dict[str, Any]:
    """The scrape job for Ray's own exporters, discovered through its dashboard; empty where Ray does not run."""
    return {
        "job_name": "ray",
        "scrape_interval": "10s",  # Ray collects no faster
        "scrape_timeout": "10s",
        "http_sd_configs": [{"url": f"{address.rstrip('/')}/api/prometheus/sd", "refresh_interval": "10s"}],
    }


if __name__ == "__main__":
    sys.stdout.write(yaml.safe_dump(configuration(Path(sys.argv[1])), sort_keys=False))
