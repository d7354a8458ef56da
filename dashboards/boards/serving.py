"""The numbers of inference serving, for the board *Run*: TTFT, TPOT, ITL, tokens per second, acceptance."""

from grafana_foundation_sdk.models import units

from dashboards.boards.look import WARNING, Limit
from dashboards.boards.panels import Panel, PanelOptions, graph, number
from dashboards.boards.queries import Query, largest, series, total

_SINCE = "Of all cells since these parties started."


def serving() -> list[Panel]:
    """Latencies from histograms, which count since the parties started, and the throughput of the current cell."""
    itl = total(series("mpcbench_itl_seconds_bucket"), "le")
    throughput = largest("mpcbench_tokens_per_second", "run")
    return [
        number(
            PanelOptions(
                title="TTFT",
                question="How long does the first token take? Time to first token, the mean; a shared prompt is not "
                f"in it. {_SINCE}",
                unit=units.Seconds,
                queries=[Query(_mean("mpcbench_ttft_seconds"))],
                limits=[Limit(60, WARNING), Limit(600)],
                width=4,
                height=4,
            )
        ),
        number(
            PanelOptions(
                title="TPOT",
                question=f"How long does an output token take? Time per output token, the mean. {_SINCE}",
                unit=units.Seconds,
                queries=[Query(_mean("mpcbench_tpot_seconds"))],
                limits=[Limit(60, WARNING), Limit(600)],
                empty="no cell is done",
                width=4,
                height=4,
            )
        ),
        number(
            PanelOptions(
                title="ITL (p50, p90, p99)",
                question=f"How evenly do tokens follow each other? Inter-token latency, from its buckets. {_SINCE}",
                unit=units.Seconds,
                queries=[
                    Query(f"histogram_quantile({share}, {itl})", f"p{100 * share:.0f}") for share in (0.5, 0.9, 0.99)
                ],
                limits=[Limit(60, WARNING), Limit(600)],
                width=8,
                height=4,
            )
        ),
        number(
            PanelOptions(
                title="Tokens per second",
                question="How much comes out? New tokens of all sequences over decode time, in the current cell.",
                unit=units.Short,
                queries=[Query(throughput)],
                width=4,
                height=4,
            )
        ),
        number(
            PanelOptions(
                title="Acceptance",
                question="How many of the drafted tokens are right? In the current cell; empty without drafts.",
                unit=units.PercentUnit,
                queries=[Query(largest("mpcbench_acceptance_ratio", "run"))],
                empty="no drafts",
                width=4,
                height=4,
            )
        ),
        graph(
            PanelOptions(
                title="Throughput",
                question="Does throughput hold? Tokens per second of all sequences, since decoding of the cell began.",
                unit=units.Short,
                queries=[Query(throughput, "tokens per second")],
                lowest=0,
                width=24,
                height=6,
            ),
            steps=True,
        ),
    ]


def _mean(name: str) -> str:
    """The mean of a histogram's observations."""
    return f"{total(series(f'{name}_sum'), 'run')} / {total(series(f'{name}_count'), 'run')}"
