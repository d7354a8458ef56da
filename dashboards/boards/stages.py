"""The stages of a decoding step, for the board *Run*: which takes the time, the rounds and the bytes."""

from grafana_foundation_sdk.models import units

from dashboards.boards.panels import Facts, Panel, bars, graph
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
            Facts(
                title="Time by stage",
                question="Which stage takes the time? Seconds of each stage in a second, the mean of the parties.",
                unit=units.PercentUnit,
                queries=[Query(f"avg by (stage) ({chosen(time)})", "{{stage}}")],
                lowest=0,
                height=12,
            ),
            stacked=True,
            legend_beside=True,
        ),
        bars(
            Facts(
                title="Seconds of a stage in one token",
                question="Which stages make a token slow? The mean over the last tokens and the parties; a full bar is "
                "the largest in the time shown.",
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
            Facts(
                title="Rounds a second by stage",
                question="Which stage eats the rounds? On a slow link each costs a round trip.",
                unit=units.Short,
                queries=[Query(f"max by (stage) (sum by (stage, party) ({chosen(rounds)}))", "{{stage}}")],
                lowest=0,
                height=12,
            ),
            stacked=True,
            legend_beside=True,
        ),
        graph(
            Facts(
                title="Bytes a second by stage",
                question="Which stage fills the links? Bytes that the parties send, with framing.",
                unit=units.BytesPerSecondSI,
                queries=[Query(total(sent, "stage"), "{{stage}}")],
                lowest=0,
                height=12,
            ),
            stacked=True,
            legend_beside=True,
        ),
    ]
