"""The board *Run*: the cell that runs now, its tokens, its stages and who waits for whom."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models import units

from dashboards.boards.board import board
from dashboards.boards.look import BAD, GOOD, NEUTRAL, WARNING, Limit
from dashboards.boards.panels import Column, Facts, Panel, graph, number, rows
from dashboards.boards.queries import Query, chosen, largest, of_cell, quantile, rate, series, total
from dashboards.boards.stages import stages
from parties.metering.registry import CELL_STATES, RUN_INFO

_STATE_COLORS = ("text", "purple", WARNING, GOOD, NEUTRAL, BAD)


def run() -> Dashboard:
    """The board."""
    purpose = "The cell that runs now: its tokens, where their time goes, and which party waits for which."
    sections = [
        ("Now", _now()),
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
            Facts(
                title="What runs",
                question="Which cell is this? The parameters of the current cell.",
                unit=units.NoUnit,
                queries=[Query(series(RUN_INFO))],
                empty="-",
                width=24,
                height=4,
            ),
            [Column(label, label.replace("_", " ").capitalize()) for label in parameters],
        ),
        number(
            Facts(
                title="State",
                question="What does each party do? A party that is gone is missing here.",
                unit=units.NoUnit,
                queries=[Query(largest("mpcbench_cell_state"), "{{party}}", instant=True)],
                width=10,
                height=4,
            ),
            words=list(zip(CELL_STATES, _STATE_COLORS, strict=True)),
        ),
        number(
            Facts(
                title="Tokens",
                question="How many tokens have the parties decoded? Over all cells of this group of them.",
                unit=units.Short,
                queries=[Query(largest("mpcbench_tokens_total", "run"))],
                width=4,
                height=4,
            )
        ),
        number(
            Facts(
                title="Last token took",
                question="How long did the last token take? The slowest party's wall time of the step.",
                unit=units.Seconds,
                queries=[Query(largest("mpcbench_last_token_seconds", "run"))],
                limits=[Limit(60, WARNING), Limit(600)],
                width=5,
                height=4,
            ),
            base=GOOD,
        ),
        number(
            Facts(
                title="Since the last token",
                question="Does decoding still move? Time since the last token; there is none unless a party decodes.",
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
            Facts(
                title="Seconds a token",
                question="How fast does it decode, and does it stay so? Wall time of each decoding step.",
                unit=units.Seconds,
                queries=[Query(token, "{{engine}} {{policy}} {{seq_len}} {{network}}")],
                limits=[Limit(60, WARNING), Limit(600)],
                lowest=0,
            ),
            steps=True,
        ),
        graph(
            Facts(
                title="Time by phase",
                question="Is it the online phase that takes the time? Seconds of each phase in a second, the mean of "
                "the parties; the rest is what a deployment would not have, and the time between cells.",
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
            Facts(
                title="Who waits for whom",
                question="Which party waits for which? Seconds in link calls to a peer, in a second.",
                unit=units.PercentUnit,
                queries=[Query(total(blocked, "party, peer"), "{{party}} for {{peer}}")],
                lowest=0,
                highest=1,
            )
        ),
        graph(
            Facts(
                title="Blocked share",
                question="Does the network or the computing hold a party up? Blocked seconds over blocked and "
                "computing ones; near 1 it only waits.",
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
            Facts(
                title="Computing",
                question="Which party computes? Seconds outside link calls, in a second.",
                unit=units.PercentUnit,
                queries=[Query(total(compute, "party"), "{{party}}")],
                lowest=0,
                highest=1,
            )
        ),
        graph(
            Facts(
                title="Round trips of the protocol",
                question="What does a round cost? Median and 95th percentile of one exchange, the peer's "
                "computing included.",
                unit=units.Seconds,
                queries=[
                    Query(quantile(0.5, "mpcbench_exchange_seconds", "party"), "{{party}}, median"),
                    Query(quantile(0.95, "mpcbench_exchange_seconds", "party"), "{{party}}, 95 %"),
                ],
                lowest=0,
            )
        ),
    ]


def _memory() -> list[Panel]:
    kinds = (("cache", "in the cache"), ("kept", "kept of the prompt"), ("selected", "attended to"))
    return [
        graph(
            Facts(
                title="Tokens in the cache",
                question="What does the policy keep? Tokens in the cache, kept of the prompt and attended to, the "
                "mean over the layers.",
                unit=units.Short,
                queries=[Query(largest(f"mpcbench_{kind}_tokens", "run"), words) for kind, words in kinds],
                lowest=0,
                width=6,
            ),
            steps=True,
        ),
        graph(
            Facts(
                title="Size of the cache",
                question="How large is the cache of each party? Keys and values of all layers.",
                unit=units.BytesIEC,
                queries=[Query(largest("mpcbench_cache_bytes"), "{{party}}")],
                lowest=0,
                width=6,
            ),
            steps=True,
        ),
        graph(
            Facts(
                title="Back-log of the dealer",
                question="Is the dealer ahead of the parties, or do they wait for it? Correlated randomness that is "
                "made and not used yet.",
                unit=units.BytesIEC,
                queries=[Query(largest("mpcbench_dealer_backlog_bytes"), "{{party}}")],
                lowest=0,
                width=6,
            )
        ),
        graph(
            Facts(
                title="Repeats",
                question="How often was work repeated? A truncation that met its danger zone, so far; engine fss only.",
                unit=units.Short,
                queries=[Query(largest("mpcbench_repeats_total"), "{{party}}")],
                lowest=0,
                width=6,
            ),
            steps=True,
        ),
    ]
