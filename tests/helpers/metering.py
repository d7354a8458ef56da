"""Sums over a stage meter."""

from parties.metering.meter import StageMeter
from parties.metering.readings import Counts


def totals(meter: StageMeter, phase: str) -> Counts:
    """Traffic of all stages of a phase, over all peers."""
    readings = [reading for reading in meter.snapshot() if reading.phase == phase]
    return sum((counts for reading in readings for counts in reading.peers.values()), start=Counts())
