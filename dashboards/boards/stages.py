"""The stages of a decoding step, for the board *Run*: time, rounds and bytes of each."""

from grafana_foundation_sdk.models import units

from dashboards.boards.panels import Panel, PanelOptions, bars, graph
from dashboards.boards.queries import Query, chosen, rate, total

_ONLINE = {"phase": "online"}


def stages() -> list[Panel]:
    """Time, rounds and bytes of each stage of the online phase."""
    time = rate("mpcbench_stage_seconds_total", **_ONLINE)
    rounds, sent = (rate(f"mpcbench_{name}_total", **_ONLINE) for name in ("rounds", "sent_bytes"))
    durations = (
        rate("mpcbench_stage_duration_seconds_sum", **_ONLINE),
        rate("mpcbench_stage_duration_seconds_count", **_ONLINE),
    )
    return [
        graph(
            PanelOptions(
                title="Time by stage",
                question="Which stage takes the time? Seconds per second in each stage, the mean over the parties.",
                unit=units.PercentUnit,
                queries=[Query(f"avg by (stage) ({chosen(time)})", "{{stage}}")],
                lowest=0,
                height=12,
            ),
            stacked=True,
            legend_right=True,
        ),
        bars(
            PanelOptions(
                title="Seconds per token by stage",
                question="Which stages make a token slow? The mean over the last tokens and the parties; a full bar is "
                "the largest in the time range.",
                unit=units.Seconds,
                queries=[
                    Query(
                        f"sort_desc({total(durations[0], 'stage')} / {total(durations[1], 'stage')} > 0)",
                        "{{stage}}",
                    )
                ],
                lowest=0,
                height=12,
            )
        ),
        graph(
            PanelOptions(
                title="Rounds per second by stage",
                question="Which stage needs the rounds? On a slow link each round costs a round trip.",
                unit=units.Short,
                queries=[Query(f"max by (stage) (sum by (stage, party) ({chosen(rounds)}))", "{{stage}}")],
                lowest=0,
                height=12,
            ),
            stacked=True,
            legend_right=True,
        ),
        graph(
            PanelOptions(
                title="Bytes per second by stage",
                question="Which stage loads the links? Bytes sent by all parties, with framing.",
                unit=units.BytesPerSecondSI,
                queries=[Query(total(sent, "stage"), "{{stage}}")],
                lowest=0,
                height=12,
            ),
            stacked=True,
            legend_right=True,
        ),
    ]
