"""The board *Links*: requested and measured values of each link, and its utilisation."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models import units

from dashboards.boards.board import board
from dashboards.boards.look import BAD, GOOD, WARNING, Limit
from dashboards.boards.panels import Column, Panel, PanelOptions, bars, graph, rows
from dashboards.boards.queries import Query, largest, quantile, rate, total

_PAIR = "{{party}} to {{peer}}"
_BITS = 8
_UNSHAPED = "The links are not shaped"


def links() -> Dashboard:
    """The board."""
    purpose = (
        "Requested and measured rate, RTT and loss of the link of each ordered pair of parties, and its utilisation."
    )
    sections = [("Requested and measured", _requested()), ("Utilisation", _used())]
    return board("links", "mpcache-bench: Links", purpose, sections)


def _link(name: str) -> str:
    return largest(f"mpcbench_link_{name}", "party, peer")


def _requested() -> list[Panel]:
    rate_, rtt, share = units.BitsPerSecondSI, units.Seconds, units.PercentUnit
    shown = [("Rate requested", rate_), ("Rate measured", rate_), ("RTT requested", rtt), ("RTT measured", rtt)]
    shown += [("Loss requested", share), ("Utilisation", share)]
    queries = [f"{_BITS} * {_link('asked_bytes_per_second')}", f"{_BITS} * {_link('measured_bytes_per_second')}"]
    queries += [_link("asked_rtt_seconds"), _link("measured_rtt_seconds"), _link("asked_loss_ratio")]
    queries += [_link("used_ratio")]
    columns = [Column("party", "From"), Column("peer", "To")]
    columns += [Column(f"Value #{ref}", title, unit) for ref, (title, unit) in zip("ABCDEF", shown, strict=True)]
    asked, measured = _link("asked_rtt_seconds"), _link("measured_rtt_seconds")
    ratio = f"{_link('measured_bytes_per_second')} / {_link('asked_bytes_per_second')}"
    return [
        rows(
            PanelOptions(
                title="Links",
                question="Does each link match the network profile? Measured before the cell, or after it once it is "
                "over; "
                "nothing is requested of a link that is not shaped.",
                unit=units.NoUnit,
                queries=[Query(query) for query in queries],
                empty="-",
                width=24,
                height=8,
            ),
            columns,
        ),
        graph(
            PanelOptions(
                title="Round-trip time (RTT)",
                question="Does the RTT match the network profile? Measured on the idle link, and requested.",
                unit=rtt,
                queries=[Query(measured, f"{_PAIR}, measured"), Query(asked, f"{_PAIR}, requested")],
                lowest=0,
                height=10,
            ),
            steps=True,
            legend_right=True,
        ),
        bars(
            PanelOptions(
                title="Measured over requested rate",
                question="Does the link carry the requested rate? 1 is exact; a cell whose link is out of tolerance "
                "is not run.",
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
            PanelOptions(
                title="Link utilisation",
                question="Is a link saturated? Bytes sent over what the measured rate would have carried; near 1, a "
                "faster link would help.",
                unit=units.PercentUnit,
                queries=[Query(_link("used_ratio"), _PAIR)],
                limits=[Limit(0.7, WARNING), Limit(0.9)],
                lowest=0,
            )
        ),
        graph(
            PanelOptions(
                title="Throughput",
                question="How much does each party send to each peer? All phases, with framing, in bits per second.",
                unit=units.BitsPerSecondSI,
                queries=[Query(f"{_BITS} * {sent}", _PAIR)],
                lowest=0,
            )
        ),
        graph(
            PanelOptions(
                title="Exchange latency (p50)",
                question="What round trip does the protocol see? The median exchange; time beyond the measured RTT is "
                "compute "
                "time of the peer, or a saturated link.",
                unit=units.Seconds,
                queries=[Query(quantile(0.5, "mpcbench_exchange_seconds", "party, peer"), "{{party}} with {{peer}}")],
                lowest=0,
            )
        ),
        graph(
            PanelOptions(
                title="Message size",
                question="Are messages large enough for the link? Mean bytes per message; small messages waste round "
                "trips.",
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
