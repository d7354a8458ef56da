"""Predicts the time per token from rounds, bytes and local work, using only the records of a run.

    python benchmarks/latency.py runs/quickstart-lab

Takes each measurement on the network with the shortest delay, replaces the time of its links by that of another
network, and prints this prediction next to the measurement there. The time of the links is turns x one-way delay +
bytes / rate. Turns are messages that wait for each other. With `fss` that is one per round, since the dealer runs
ahead. With `crypten` each triple is requested when it is needed, with a request and a reply (3 messages, counted as 1.5
rounds); the opening that follows overlaps with the request of the next triple, so that the requests alone determine the
time.
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
    parser = argparse.ArgumentParser(description="Measured time per token against rounds x delay + bytes / rate.")
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
    """The prediction for the far network, from the local work of the near one, and the measurement there."""
    predicted, measured = seconds(near) - link_s(near) + link_s(far), seconds(far)
    return (
        f"{turns(far):,.0f} | {sent_mb(far):,.1f} | {predicted:.1f} | {measured:.1f} | {measured / predicted:.2f} | "
        f"{blocked(far) / measured:.0%}"
    )


def link_s(record: Record) -> float:
    """Seconds per token that the links account for."""
    return turns(record) * delay_s(record) + sent_mb(record) * 8 / rate_mbit(record)


def seconds(record: Record) -> float:
    return record.seconds_per_token or 0.0


def totals(record: Record) -> Totals:
    if record.totals is None:
        raise ValueError(f"{record.cell} has no totals")
    return record.totals


def turns(record: Record) -> float:
    """Messages per token that wait for each other."""
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
