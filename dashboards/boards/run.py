"""The board *Run*: the current cell, its tokens, its stages, and which party waits for which."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models import units

from dashboards.boards.board import board
from dashboards.boards.look import BAD, GOOD, NEUTRAL, WARNING, Limit
from dashboards.boards.panels import Column, Panel, PanelOptions, graph, number, rows
from dashboards.boards.queries import Query, chosen, largest, of_cell, quantile, rate, series, total
from dashboards.boards.serving import serving
from dashboards.boards.stages import stages
from parties.metering.registry import CELL_STATES, RUN_INFO

_STATE_COLORS = ("text", "purple", WARNING, GOOD, NEUTRAL, BAD)


def run() -> Dashboard:
    """The board."""
    purpose = "The current cell: its tokens, where their time goes, and which party waits for which."
    sections = [
        ("Now", _now()),
        ("Inference serving", serving()),
        ("Stages of the online phase", stages()),
        ("Parties", _parties()),
        ("KV cache and correlated randomness", _memory()),
    ]
    return board("run", "mpcache-bench: Run", purpose, sections)


def _now() -> list[Panel]:
    parameters = ("engine", "policy", "parameters", "model", "seq_len", "new_tokens", "network", "prefill", "repeat")
    token = of_cell(f"max by (run) ({series('mpcbench_last_token_seconds')})", "engine", "policy", "seq_len", "network")
    time = rate("mpcbench_stage_seconds_total", phase="online|offline|setup")
    return [
        rows(
            PanelOptions(
                title="Current cell",
                question="Which cell is running? The parameters of the current cell.",
                unit=units.NoUnit,
                queries=[Query(series(RUN_INFO))],
                empty="-",
                width=24,
                height=4,
            ),
            [Column(label, label.replace("_", " ").capitalize()) for label in parameters],
        ),
        number(
            PanelOptions(
                title="State",
                question="What is each party doing? A party that has exited is not shown.",
                unit=units.NoUnit,
                queries=[Query(largest("mpcbench_cell_state"), "{{party}}", instant=True)],
                width=10,
                height=4,
            ),
            words=list(zip(CELL_STATES, _STATE_COLORS, strict=True)),
        ),
        number(
            PanelOptions(
                title="Tokens decoded",
                question="How many tokens have the parties decoded? Total over all cells of this group of parties.",
                unit=units.Short,
                queries=[Query(largest("mpcbench_tokens_total", "run"))],
                width=4,
                height=4,
            )
        ),
        number(
            PanelOptions(
                title="Latency of last token",
                question="How long did the last token take? Wall time of the decoding step at the slowest party.",
                unit=units.Seconds,
                queries=[Query(largest("mpcbench_last_token_seconds", "run"))],
                limits=[Limit(60, WARNING), Limit(600)],
                width=5,
                height=4,
            ),
            base=GOOD,
        ),
        number(
            PanelOptions(
                title="Time since last token",
                question="Does decoding make progress? Time since the last token or the start of decoding; empty "
                "otherwise.",
                unit=units.Seconds,
                queries=[Query(largest("mpcbench_token_age_seconds", "run"))],
                limits=[Limit(120, WARNING), Limit(900)],
                empty="not decoding",
                width=5,
                height=4,
            ),
            base=GOOD,
        ),
        graph(
            PanelOptions(
                title="Seconds per token (ITL)",
                question="How fast is decoding, and is it steady? Inter-token latency: the wall time of each decoding "
                "step; "
                "the first step begins when prefill ends.",
                unit=units.Seconds,
                queries=[Query(token, "{{engine}} {{policy}} {{seq_len}} {{network}}")],
                limits=[Limit(60, WARNING), Limit(600)],
                lowest=0,
            ),
            steps=True,
        ),
        graph(
            PanelOptions(
                title="Time by phase",
                question="Does the online phase dominate? Seconds per second in each phase, the mean over the "
                "parties; the rest "
                "is the phase bench, which a deployment would not have, and the time between cells.",
                unit=units.PercentUnit,
                queries=[
                    Query(
                        f"sum by (phase) (avg by (phase, stage) ({chosen(time)}))",
                        "{{phase}}",
                    )
                ],
                lowest=0,
                highest=1,
            ),
            stacked=True,
        ),
    ]


def _parties() -> list[Panel]:
    blocked = rate("mpcbench_blocked_seconds_total", phase="online|offline")
    compute = rate("mpcbench_compute_seconds_total", phase="online|offline")
    return [
        graph(
            PanelOptions(
                title="Time blocked on each peer",
                question="Which party waits for which? Seconds per second in link calls to each peer.",
                unit=units.PercentUnit,
                queries=[Query(total(blocked, "party, peer"), "{{party}} on {{peer}}")],
                lowest=0,
                highest=1,
            )
        ),
        graph(
            PanelOptions(
                title="Blocked fraction",
                question="Is a party limited by the network or by compute? Blocked time over blocked plus compute "
                "time; "
                "near 1 the party only waits.",
                unit=units.PercentUnit,
                queries=[
                    Query(
                        f"{total(blocked, 'party')} / ({total(blocked, 'party')} + {total(compute, 'party')})",
                        "{{party}}",
                    )
                ],
                limits=[Limit(0.9, WARNING)],
                lowest=0,
                highest=1,
            )
        ),
        graph(
            PanelOptions(
                title="Compute time",
                question="Which party computes? Seconds per second outside link calls.",
                unit=units.PercentUnit,
                queries=[Query(total(compute, "party"), "{{party}}")],
                lowest=0,
                highest=1,
            )
        ),
        graph(
            PanelOptions(
                title="Exchange latency (p50, p95)",
                question="What does a round cost? Median and 95th percentile of an exchange, with the compute time of "
                "the peer.",
                unit=units.Seconds,
                queries=[
                    Query(quantile(0.5, "mpcbench_exchange_seconds", "party"), "{{party}}, p50"),
                    Query(quantile(0.95, "mpcbench_exchange_seconds", "party"), "{{party}}, p95"),
                ],
                lowest=0,
            )
        ),
    ]


def _memory() -> list[Panel]:
    kinds = (("cache", "in the cache"), ("kept", "kept after prefill"), ("selected", "attended to"))
    return [
        graph(
            PanelOptions(
                title="Tokens in the KV cache",
                question="What does the policy keep? Tokens in the cache, prompt tokens kept after prefill, and "
                "tokens attended "
                "to; the mean over the layers.",
                unit=units.Short,
                queries=[Query(largest(f"mpcbench_{kind}_tokens", "run"), words) for kind, words in kinds],
                lowest=0,
                width=6,
            ),
            steps=True,
        ),
        graph(
            PanelOptions(
                title="Size of the KV cache",
                question="How large is the KV cache of each party? Keys and values of all layers.",
                unit=units.BytesIEC,
                queries=[Query(largest("mpcbench_cache_bytes"), "{{party}}")],
                lowest=0,
                width=6,
            ),
            steps=True,
        ),
        graph(
            PanelOptions(
                title="Dealer backlog",
                question="Is the dealer ahead of the parties, or do they wait for it? Correlated randomness that was "
                "generated and not used yet.",
                unit=units.BytesIEC,
                queries=[Query(largest("mpcbench_dealer_backlog_bytes"), "{{party}}")],
                lowest=0,
                width=6,
            )
        ),
        graph(
            PanelOptions(
                title="Retries",
                question="How often was work repeated? Truncation failures so far; engine fss only.",
                unit=units.Short,
                queries=[Query(largest("mpcbench_repeats_total"), "{{party}}")],
                lowest=0,
                width=6,
            ),
            steps=True,
        ),
    ]
