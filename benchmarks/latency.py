"""Does the time of a token follow from rounds, bytes and local work? From the records of a run alone.

    python benchmarks/latency.py runs/quickstart-lab

Takes each measurement on the network with the shortest delay, replaces the link's part of its time by that of another
network, and prints what that predicts beside what was measured there. The link's part is turns x one-way delay + bytes
/ rate. Turns are messages that wait for each other. With `fss` that is one a round, since the dealer runs ahead. With
`crypten` each triple is asked for when it is needed, a request and an answer (3 messages, counted as 1.5 rounds); the
opening that follows is under way while the next triple is asked for, so that the requests alone set the pace.
"""

import argparse
from collections import defaultdict
from pathlib import Path

from orchestrator.records.record import Record, Totals
from orchestrator.records.store import RecordStore

HEADER = (
    "| engine | policy | prompt | network | turns | MB | seconds predicted | measured | ratio | of it blocked |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
)
_MESSAGES_PER_TRIPLE = 3


def main() -> None:
    parser = argparse.ArgumentParser(description="Measured time of a token against rounds x delay + bytes / rate.")
    parser.add_argument("folder", type=Path, help="folder of a run on several networks")
    records = [record for record in RecordStore(parser.parse_args().folder).latest().values() if record.status == "ok"]
    groups: dict[tuple[str, str, int], list[Record]] = defaultdict(list)
    for record in records:
        groups[str(record.cell.engine), str(record.cell.policy), record.cell.seq_len].append(record)
    print(*HEADER, sep="\n")
    for (engine, policy, seq_len), group in groups.items():
        near = min(group, key=lambda record: delay_s(record))
        for far in group:
            if far is not near:
                print(f"| {engine} | {policy} | {seq_len} | {far.cell.network.name} | {row(near, far)} |")


def row(near: Record, far: Record) -> str:
    """What the near network's local work and the far one's link say of the far time, and what was measured there."""
    predicted, measured = seconds(near) - link_s(near) + link_s(far), seconds(far)
    return (
        f"{turns(far):,.0f} | {sent_mb(far):,.1f} | {predicted:.1f} | {measured:.1f} | {measured / predicted:.2f} | "
        f"{blocked(far) / measured:.0%}"
    )


def link_s(record: Record) -> float:
    """Seconds of a token that the link accounts for."""
    return turns(record) * delay_s(record) + sent_mb(record) * 8 / rate_mbit(record)


def seconds(record: Record) -> float:
    return record.seconds_per_token or 0.0


def totals(record: Record) -> Totals:
    if record.totals is None:
        raise ValueError(f"{record.cell} carries no totals")
    return record.totals


def turns(record: Record) -> float:
    """Messages of a token that wait for each other."""
    if record.cell.engine.name == "crypten":
        asked = sum(s.messages for s in record.stages if (s.party, s.stage) == ("client", "offline.triples"))
        return 2 * asked / _MESSAGES_PER_TRIPLE / record.tokens
    return totals(record).online.rounds / record.tokens


def sent_mb(record: Record) -> float:
    return totals(record).online.sent_bytes["client"] / record.tokens / 1e6


def blocked(record: Record) -> float:
    phases = totals(record)
    return (phases.online.blocked_seconds + phases.offline.blocked_seconds) / record.tokens


def delay_s(record: Record) -> float:
    """Measured one-way delay, the mean of all links, in seconds."""
    trips = [float(link.measured_before["rtt_ms"]) for link in record.links if link.measured_before]
    return sum(trips) / len(trips) / 2e3


def rate_mbit(record: Record) -> float:
    """Measured rate of the slowest link."""
    return min(float(link.measured_before["rate_mbit"]) for link in record.links if link.measured_before)


if __name__ == "__main__":
    main()
