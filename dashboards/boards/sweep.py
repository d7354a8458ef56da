"""The board *Sweep*: progress, the cost of each cell, failures."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models import units

from dashboards.boards.board import board
from dashboards.boards.look import BAD, GOOD, WARNING, Limit
from dashboards.boards.panels import Column, Panel, PanelOptions, bars, graph, number, rows
from dashboards.boards.queries import Query, of_cell, series
from parties.metering.registry import RUN_INFO

_FINISHED = "mpcbench_cells_finished_total"
_CELL = ("cell", "engine", "policy", "parameters", "seq_len", "network", "repeat")
ALERTS = 'ALERTS{alertstate="firing", run="$run"}'
"""The series that Prometheus itself serves for the alert rules in `dashboards.rules`."""
NOTHING_WRONG = "No alert is firing"
_OR_ZERO = "or on () vector(0)"


def sweep() -> Dashboard:
    """The board."""
    purpose = "The progress of a sweep, the time of each cell, and the cells that failed."
    return board("sweep", "mpcache-bench: Sweep", purpose, [("Progress", _progress()), ("Cells", _cells())])


def _progress() -> list[Panel]:
    remaining = series("mpcbench_remaining_seconds")
    finished = f"(sum({series(_FINISHED)}) {_OR_ZERO})"
    return [
        number(
            PanelOptions(
                title="Cells finished",
                question="How many cells are done? All cells that have a record, whatever its status.",
                unit=units.Short,
                queries=[Query(finished)],
                width=4,
                height=4,
            ),
            base=GOOD,
        ),
        number(
            PanelOptions(
                title="Cells failed",
                question="Did cells fail? Cells with any status other than ok; their records give the cause.",
                unit=units.Short,
                queries=[Query(f"{finished} - (sum({series(_FINISHED, status='ok')}) {_OR_ZERO})")],
                limits=[Limit(1)],
                width=4,
                height=4,
            ),
            base=GOOD,
        ),
        number(
            PanelOptions(
                title="Cells pending",
                question="How many cells are pending? The running cell is included.",
                unit=units.Short,
                queries=[Query(f"sum({series('mpcbench_cells_left')})")],
                width=4,
                height=4,
            )
        ),
        number(
            PanelOptions(
                title="Current cell",
                question="How long has the current cell been running? Counted from its placement.",
                unit=units.Seconds,
                queries=[Query(f"max({series('mpcbench_cell_elapsed_seconds')})")],
                limits=[Limit(3600, WARNING), Limit(4 * 3600)],
                width=4,
                height=4,
            )
        ),
        number(
            PanelOptions(
                title="Time left",
                question="How long will the sweep still take? By the same estimate as --dry-run.",
                unit=units.Seconds,
                queries=[Query(f"max({remaining})")],
                width=4,
                height=4,
            )
        ),
        number(
            PanelOptions(
                title="Estimated end",
                question="When will the sweep end? Now plus the time left, in the time zone of your browser.",
                unit=units.DatetimeLocalNotToday,
                queries=[Query(f"1000 * (time() + max({remaining}))")],
                width=4,
                height=4,
            )
        ),
        graph(
            PanelOptions(
                title="Cells over time",
                question="Does the sweep make progress? Finished cells by status, stacked, and pending cells.",
                unit=units.Short,
                queries=[
                    Query(f"sum by (status) ({series(_FINISHED)})", "{{status}}"),
                    Query(f"sum({series('mpcbench_cells_left')})", "pending"),
                ],
                lowest=0,
                width=10,
            ),
            stacked=True,
            steps=True,
        ),
        bars(
            PanelOptions(
                title="Cells by status",
                question="How did the cells end? Only cells with status ok or incorrect were measured.",
                unit=units.Short,
                queries=[Query(f"sum by (status) ({series(_FINISHED)})", "{{status}}")],
                lowest=0,
                empty="No cell has ended yet",
                width=7,
            )
        ),
        rows(
            PanelOptions(
                title="Alerts",
                question="Does anything need attention? The alerts that are firing; docs/watching.md explains each.",
                unit=units.NoUnit,
                queries=[Query(f"sum by (alertname, party, peer) ({ALERTS})")],
                empty=NOTHING_WRONG,
                width=7,
            ),
            [Column("alertname", "Alert"), Column("party", "Party"), Column("peer", "Peer")],
        ),
    ]


def _cells() -> list[Panel]:
    by = ", ".join(_CELL)
    seen = f"timestamp({series(RUN_INFO)})[$__range:$__interval]"
    token = of_cell(f"avg by (run) ({series('mpcbench_last_token_seconds')})", *_CELL)
    return [
        rows(
            PanelOptions(
                title="Cells in this time range",
                question="What did each cell take? One row per cell that ran in the time range; TPOT (time per output "
                "token) is the mean over its decoding steps.",
                unit=units.Seconds,
                queries=[
                    Query(f"1000 * min by ({by}) (min_over_time({seen}))"),
                    Query(f"max by ({by}) (max_over_time({seen})) - min by ({by}) (min_over_time({seen}))"),
                    Query(f"avg by ({by}) (avg_over_time(({token})[$__range:$__interval]))"),
                ],
                empty="-",
                width=24,
                height=9,
            ),
            [
                Column("engine", "Engine", width=90),
                Column("policy", "Policy", width=90),
                Column("parameters", "Parameters"),
                Column("seq_len", "Prompt tokens", units.NoUnit, width=120),
                Column("network", "Network", width=90),
                Column("repeat", "Repeat", units.NoUnit, width=80),
                Column("Value #A", "First seen", units.DatetimeLocalNotToday, width=180),
                Column("Value #B", "Seen for", width=90),
                Column("Value #C", "TPOT", width=130),
                Column("cell", "Cell", width=160),
            ],
            newest_first="First seen",
        ),
        graph(
            PanelOptions(
                title="Seconds per token by cell",
                question="Which cells are slow? Wall time of the last decoding step of the current cell, named by its "
                "parameters.",
                unit=units.Seconds,
                queries=[Query(token, "{{engine}} {{policy}} {{seq_len}} {{network}} #{{repeat}}")],
                limits=[Limit(60, WARNING), Limit(600, BAD)],
                lowest=0,
                width=24,
            ),
            steps=True,
            legend_right=True,
        ),
    ]
