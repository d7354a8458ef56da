"""Tags, uids and titles of our boards, their folder and their data source in Grafana."""

from pathlib import Path

TAG = "mpcbench"
"""Tag of every board, which the links between boards use, and of every annotation."""

FOLDER_UID = "mpcbench"
FOLDER_TITLE = "mpcache-bench"

DATA_SOURCE_UID = "mpcbench-prometheus"
DATA_SOURCE_NAME = "mpcache-bench Prometheus"

GENERATED = Path(__file__).parent / "generated"
"""Folder of the boards' JSON, written by `python -m dashboards`."""
