"""What Grafana knows our boards, their folder and their data source by."""

from pathlib import Path

TAG = "mpcbench"
"""Tag of every board, by which each links to all, and of every annotation."""

FOLDER_UID = "mpcbench"
FOLDER_TITLE = "mpcache-bench"

DATA_SOURCE_UID = "mpcbench-prometheus"
DATA_SOURCE_NAME = "mpcache-bench Prometheus"

GENERATED = Path(__file__).parent / "generated"
"""The boards' JSON, as `python -m dashboards` writes it."""
