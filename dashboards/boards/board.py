"""Variables, links between boards and annotations of cells, the same on every board."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders.dashboard import AnnotationQuery, AnnotationTarget, Dashboard, DashboardLink, Row
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DashboardLinkType, DataSourceRef

from dashboards.boards import variables
from dashboards.boards.panels import Panel
from dashboards.names import TAG


def board(name: str, title: str, purpose: str, sections: Sequence[tuple[str, Sequence[Panel]]]) -> Dashboard:
    """A board with the shared variables, links and annotations.

    Args:
        name: Last part of the uid of the board.
        title: Title of the board.
        purpose: Description of the board, one sentence.
        sections: Headings, each with its panels from left to right.
    """
    built = (
        Dashboard(title)
        .uid(f"{TAG}-{name}")
        .description(purpose)
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .time("now-15m", "now")
        .refresh("5s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(variables.source())
        .with_variable(variables.run())
        .with_variable(variables.experiment())
        .link(_to_the_others())
        .annotation(_cells())
    )
    for label in variables.FILTERS:
        built.with_variable(variables.filter_of(label))
    for heading, panels in sections:
        built.with_row(Row(heading))
        for panel in panels:
            built.with_panel(panel)
    return built


def _to_the_others() -> DashboardLink:
    """A menu of all boards; each link keeps the variables and the time range."""
    link = DashboardLink("Boards").type(DashboardLinkType.DASHBOARDS).tags([TAG]).icon("dashboard")
    return link.tooltip("Another board, for the same run and time range.").keep_time(True).include_vars(True)


def _cells() -> AnnotationQuery:
    """The regions that `mpcache-bench observe push` creates, one per cell."""
    target = AnnotationTarget().type("tags").tags([TAG, "experiment:$experiment"]).match_any(False).limit(1000)
    built = AnnotationQuery().name("Cells").datasource(DataSourceRef(type_val="grafana", uid="-- Grafana --"))
    return built.enable(True).hide(False).icon_color("blue").target(target)
