"""Prometheus configuration that scrapes the parties of a run.

python -m dashboards.prometheus runs/quickstart/targets.json > prometheus.yml
"""

import sys
from pathlib import Path
from typing import Any

import yaml

SCRAPE_SECONDS = 1  # stages last seconds, and so do the exporters of a short cell


def configuration(targets: Path) -> dict[str, Any]:
    """The configuration for a run.

    Args:
        targets: The run's `file_sd` file; it may appear later. Prometheus wants the suffix `.json`.

    Raises:
        ValueError: The file has another suffix.
    """
    if targets.suffix != ".json":
        raise ValueError(f"targets: {targets} must end in .json; a run writes it to DIR/targets.json")
    parties = {
        "job_name": "mpcbench",
        "file_sd_configs": [{"files": [str(targets.resolve())], "refresh_interval": f"{SCRAPE_SECONDS}s"}],
    }
    every = f"{SCRAPE_SECONDS}s"
    return {"global": {"scrape_interval": every, "scrape_timeout": every}, "scrape_configs": [parties]}


if __name__ == "__main__":
    sys.stdout.write(yaml.safe_dump(configuration(Path(sys.argv[1])), sort_keys=False))
