"""The board *Links*: what was asked of each link, what was measured and what is used."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models import units

from dashboards.boards.board import board
from dashboards.boards.look import BAD, GOOD, WARNING, Limit
from dashboards.boards.panels import Column, Facts, Panel, bars, graph, rows
from dashboards.boards.queries import Query, largest, quantile, rate, total

_PAIR = "{{party}} to {{peer}}"
_BITS = 8
_UNSHAPED = "The links are left as they are: nothing was asked of them"


def links() -> Dashboard:
    """The board."""
    purpose = "What was asked of the link of each ordered pair of parties, what was measured, and what is used of it."
    return board("links", "mpcache-bench: Links", purpose, [("Asked and measured", _asked()), ("Used", _used())])


def _link(name: str) -> str:
    return largest(f"mpcbench_link_{name}", "party, peer")


def _asked() -> list[Panel]:
    rate_, rtt, share = units.BitsPerSecondSI, units.Seconds, units.PercentUnit
    shown = [("Rate asked", rate_), ("Rate measured", rate_), ("Round trip asked", rtt), ("Round trip measured", rtt)]
    shown += [("Loss asked", share), ("Used", share)]
    queries = [f"{_BITS} * {_link('asked_bytes_per_second')}", f"{_BITS} * {_link('measured_bytes_per_second')}"]
    queries += [_link("asked_rtt_seconds"), _link("measured_rtt_seconds"), _link("asked_loss_ratio")]
    queries += [_link("used_ratio")]
    columns = [Column("party", "From"), Column("peer", "To")]
    columns += [Column(f"Value #{ref}", title, unit) for ref, (title, unit) in zip("ABCDEF", shown, strict=True)]
    asked, measured = _link("asked_rtt_seconds"), _link("measured_rtt_seconds")
    ratio = f"{_link('measured_bytes_per_second')} / {_link('asked_bytes_per_second')}"
    return [
        rows(
            Facts(
                title="Each ordered pair",
                question="Is each link what was asked for? Before the cell, or after it once it is over; a link "
                "that is left as it is has nothing asked of it.",
                unit=units.NoUnit,
                queries=[Query(query) for query in queries],
                empty="-",
                width=24,
                height=8,
            ),
            columns,
        ),
        graph(
            Facts(
                title="Round-trip time",
                question="Does the round trip match what was asked? Measured on the idle link, and asked.",
                unit=rtt,
                queries=[Query(measured, f"{_PAIR}, measured"), Query(asked, f"{_PAIR}, asked")],
                lowest=0,
                height=10,
            ),
            steps=True,
            legend_beside=True,
        ),
        bars(
            Facts(
                title="Measured rate over asked rate",
                question="Does the link carry what was asked? 1 is exact; a cell whose link is far off is not run.",
                unit=share,
                queries=[Query(ratio, _PAIR)],
                limits=[Limit(0, BAD), Limit(0.8, WARNING), Limit(0.9, GOOD)],
                lowest=0,
                highest=1.2,
                empty=_UNSHAPED,
                height=10,
            ),
            base=BAD,
        ),
    ]


def _used() -> list[Panel]:
    sent = total(rate("mpcbench_sent_bytes_total"), "party, peer")
    return [
        graph(
            Facts(
                title="Share of the link in use",
                question="Is a link full? Bytes sent over what the measured rate would have carried; near 1, a "
                "faster link would help.",
                unit=units.PercentUnit,
                queries=[Query(_link("used_ratio"), _PAIR)],
                limits=[Limit(0.7, WARNING), Limit(0.9)],
                lowest=0,
            )
        ),
        graph(
            Facts(
                title="Sent",
                question="How much does each party send to each? With framing, all phases, as bits like the rates.",
                unit=units.BitsPerSecondSI,
                queries=[Query(f"{_BITS} * {sent}", _PAIR)],
                lowest=0,
            )
        ),
        graph(
            Facts(
                title="Round trips of the protocol",
                question="What round trip does the protocol see? The median exchange; above the measured round trip "
                "it is the peer's computing, or a full link.",
                unit=units.Seconds,
                queries=[Query(quantile(0.5, "mpcbench_exchange_seconds", "party, peer"), "{{party}} with {{peer}}")],
                lowest=0,
            )
        ),
        graph(
            Facts(
                title="Bytes in a message",
                question="Are messages large enough for the link? Mean size; small ones pay a round trip for little.",
                unit=units.BytesIEC,
                queries=[
                    Query(
                        f"2 * {sent} / {total(rate('mpcbench_messages_total'), 'party, peer')} > 0",
                        _PAIR,
                    )
                ],
                lowest=0,
            )
        ),
    ]
