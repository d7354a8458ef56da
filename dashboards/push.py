"""Pushes boards and data source to a Grafana; pushing twice changes nothing."""

import json
from typing import Any, Literal

from dashboards.grafana import Grafana, found
from dashboards.names import DATA_SOURCE_NAME, DATA_SOURCE_UID, FOLDER_TITLE, FOLDER_UID, GENERATED

Outcome = Literal["created", "updated", "unchanged", "provisioned"]
"""What a push did to an object; an object that Grafana provisions from files is not changed."""


def data_source(prometheus: str) -> dict[str, Any]:
    """The data source in the format of Grafana's API.

    Args:
        prometheus: Address of Prometheus as seen from Grafana.
    """
    return {
        "uid": DATA_SOURCE_UID,
        "name": DATA_SOURCE_NAME,
        "type": "prometheus",
        "access": "proxy",
        "url": prometheus,
        "jsonData": {"httpMethod": "POST", "timeInterval": "1s"},  # scrape interval, needed by $__rate_interval
    }


def boards() -> tuple[dict[str, Any], ...]:
    """The generated boards."""
    return tuple(json.loads(path.read_text(encoding="utf-8")) for path in sorted(GENERATED.glob("*.json")))


def push_folder(grafana: Grafana) -> Outcome:
    """Create the folder of the boards.

    Raises:
        GrafanaError: Grafana refuses or cannot be reached.
    """

    def do(api: Any) -> Outcome:
        if found(api.folder.get_folder, FOLDER_UID) is not None:
            return "unchanged"
        api.folder.create_folder(FOLDER_TITLE, uid=FOLDER_UID)
        return "created"

    return grafana.step(f"create the folder {FOLDER_TITLE!r}", do)


def push_data_source(grafana: Grafana, prometheus: str) -> Outcome:
    """Create or update the data source.

    Args:
        grafana: The server.
        prometheus: Address of Prometheus as seen from Grafana.

    Raises:
        GrafanaError: Grafana refuses or cannot be reached.
    """
    wanted = data_source(prometheus)

    def do(api: Any) -> Outcome:
        there = found(api.datasource.get_datasource_by_uid, DATA_SOURCE_UID)
        if there is None:
            api.datasource.create_datasource(wanted)
            return "created"
        if there["readOnly"]:
            return "provisioned"
        if all(there.get(key) == value for key, value in wanted.items()):
            return "unchanged"
        api.datasource.update_datasource_by_uid(DATA_SOURCE_UID, wanted)
        return "updated"

    return grafana.step(f"create the data source {DATA_SOURCE_NAME!r}", do)


def push_board(grafana: Grafana, board: dict[str, Any]) -> Outcome:
    """Store one board in our folder, replacing any board with the same uid.

    Args:
        grafana: The server.
        board: JSON of the board.

    Raises:
        GrafanaError: Grafana refuses or cannot be reached.
    """

    def do(api: Any) -> Outcome:
        there = found(api.dashboard.get_dashboard, board["uid"])
        if there is not None:
            if there["meta"].get("provisioned"):
                return "provisioned"
            stored = {key: value for key, value in there["dashboard"].items() if key not in ("id", "version")}
            if stored == board and there["meta"].get("folderUid") == FOLDER_UID:
                return "unchanged"
        api.dashboard.update_dashboard({"dashboard": board, "folderUid": FOLDER_UID, "overwrite": True})
        return "created" if there is None else "updated"

    return grafana.step(f"store the board {board['title']!r}", do)
