"""The board *Sweep*: how far it is, what each cell took, what failed."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models import units

from dashboards.boards.board import board
from dashboards.boards.look import BAD, GOOD, WARNING, Limit
from dashboards.boards.panels import Column, Facts, Panel, bars, graph, number, rows
from dashboards.boards.queries import Query, of_cell, series
from parties.metering.registry import RUN_INFO

_FINISHED = "mpcbench_cells_finished_total"
_CELL = ("cell", "engine", "policy", "parameters", "seq_len", "network", "repeat")
ALERTS = 'ALERTS{alertstate="firing", run="$run"}'
"""What Prometheus itself says of the alert rules in `dashboards.rules`."""
NOTHING_WRONG = "No alert fires"
_NONE_OF_THEM = "or on () vector(0)"


def sweep() -> Dashboard:
    """The board."""
    purpose = "How far a sweep is, what each cell took and which failed."
    return board("sweep", "mpcache-bench: Sweep", purpose, [("Progress", _progress()), ("Cells", _cells())])


def _progress() -> list[Panel]:
    remaining = series("mpcbench_remaining_seconds")
    finished = f"(sum({series(_FINISHED)}) {_NONE_OF_THEM})"
    return [
        number(
            Facts(
                title="Finished",
                question="How many cells are done? Every cell that has a record, whatever its status.",
                unit=units.Short,
                queries=[Query(finished)],
                width=4,
                height=4,
            ),
            base=GOOD,
        ),
        number(
            Facts(
                title="Failed",
                question="Did cells fail? Those of any status but ok; the records say why.",
                unit=units.Short,
                queries=[Query(f"{finished} - (sum({series(_FINISHED, status='ok')}) {_NONE_OF_THEM})")],
                limits=[Limit(1)],
                width=4,
                height=4,
            ),
            base=GOOD,
        ),
        number(
            Facts(
                title="Left",
                question="How many cells are still to be finished? The running one is among them.",
                unit=units.Short,
                queries=[Query(f"sum({series('mpcbench_cells_left')})")],
                width=4,
                height=4,
            )
        ),
        number(
            Facts(
                title="Current cell",
                question="How long has the current cell been running? From its placement on.",
                unit=units.Seconds,
                queries=[Query(f"max({series('mpcbench_cell_elapsed_seconds')})")],
                limits=[Limit(3600, WARNING), Limit(4 * 3600)],
                width=4,
                height=4,
            )
        ),
        number(
            Facts(
                title="Time left",
                question="How long will the sweep still take? By the estimate that --dry-run prints.",
                unit=units.Seconds,
                queries=[Query(f"max({remaining})")],
                width=4,
                height=4,
            )
        ),
        number(
            Facts(
                title="Expected end",
                question="When will the sweep be over? Now and the time left, in your browser's time zone.",
                unit=units.DatetimeLocalNotToday,
                queries=[Query(f"1000 * (time() + max({remaining}))")],
                width=4,
                height=4,
            )
        ),
        graph(
            Facts(
                title="Cells over time",
                question="Does the sweep move? Finished cells by status, on top of each other, and those left.",
                unit=units.Short,
                queries=[
                    Query(f"sum by (status) ({series(_FINISHED)})", "{{status}}"),
                    Query(f"sum({series('mpcbench_cells_left')})", "left"),
                ],
                lowest=0,
                width=10,
            ),
            stacked=True,
            steps=True,
        ),
        bars(
            Facts(
                title="Cells by status",
                question="How did the cells end? Only ok and incorrect ones were measured.",
                unit=units.Short,
                queries=[Query(f"sum by (status) ({series(_FINISHED)})", "{{status}}")],
                lowest=0,
                empty="No cell has ended yet",
                width=7,
            )
        ),
        rows(
            Facts(
                title="Alerts",
                question="Does anything need a look? The alerts that fire now; docs/watching.md says what each means.",
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
            Facts(
                title="Cells in this time",
                question="What did each cell take? A row for each cell that ran in the time shown; "
                "seconds a token are the mean over its tokens as they came.",
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
                Column("Value #C", "Seconds a token", width=130),
                Column("cell", "Cell", width=160),
            ],
            newest_first="First seen",
        ),
        graph(
            Facts(
                title="Seconds a token, cell by cell",
                question="Which cells are slow? The last token of the current cell, named after its parameters.",
                unit=units.Seconds,
                queries=[Query(token, "{{engine}} {{policy}} {{seq_len}} {{network}} #{{repeat}}")],
                limits=[Limit(60, WARNING), Limit(600, BAD)],
                lowest=0,
                width=24,
            ),
            steps=True,
            legend_beside=True,
        ),
    ]
