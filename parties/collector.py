"""Reads the meter and the process at the moment Prometheus asks, so that being watched costs a party nothing else."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path

import psutil
import torch
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from parties.meter import EXCHANGE_BUCKETS, ExchangeTimes, StageMeter
from parties.metrics import BY_NAME, METRICS, RUN_INFO

Sample = tuple[str, Mapping[str, str], float]  # metric, labels beside those of party and run, value


class PartyCollector(Collector):
    """Everything one party serves to Prometheus.

    Args:
        role: value of the label `party`.
        meter: where stage and link numbers come from.

    Attributes:
        run: parameters of the current cell, by the labels of `mpcbench_run_info`; empty before the first cell.
        values: numbers that only the party knows, by metric name.
    """

    def __init__(self, role: str, meter: StageMeter) -> None:
        self._role = role
        self._meter = meter
        self.run: Mapping[str, str] = {}
        self.values: Mapping[str, float] = {}

    def collect(self) -> Iterable[Family]:
        """All metrics that have a value now."""
        shared = {**self.run, "party": self._role}
        counters = {
            m.name: CounterMetricFamily(m.name, m.help, labels=m.labels) for m in METRICS if m.kind == "counter"
        }
        gauges = {m.name: GaugeMetricFamily(m.name, m.help, labels=m.labels) for m in METRICS if m.kind == "gauge"}
        for name, labels, value in self._samples():
            every = {**shared, **labels}
            (counters.get(name) or gauges[name]).add_metric([every.get(key, "") for key in BY_NAME[name].labels], value)
        families = [*counters.values(), *gauges.values(), self._exchanges()]
        return [family for family in families if family.samples]

    def _samples(self) -> Iterator[Sample]:
        yield from self._meter_samples()
        yield from process_samples()
        yield from ((name, {}, value) for name, value in self.values.items())
        if self.run:
            yield RUN_INFO, {}, 1.0

    def _meter_samples(self) -> Iterator[Sample]:
        for reading in self._meter.snapshot():
            stage = {"stage": reading.stage, "phase": reading.phase}
            yield "mpcbench_stage_seconds_total", stage, reading.seconds
            for peer, counts in reading.peers.items():
                link = {**stage, "peer": peer}
                yield "mpcbench_sent_bytes_total", link, counts.sent_bytes
                yield "mpcbench_received_bytes_total", link, counts.received_bytes
                yield "mpcbench_messages_total", link, counts.messages
                yield "mpcbench_rounds_total", link, counts.rounds
                yield "mpcbench_blocked_seconds_total", link, counts.blocked_seconds

    def _exchanges(self) -> HistogramMetricFamily:
        metric = BY_NAME["mpcbench_exchange_seconds"]
        family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for peer, times in self._meter.exchange_times().items():
            family.add_metric([self._role, peer], buckets=_cumulative(times), sum_value=times.seconds)
        return family


def _cumulative(times: ExchangeTimes) -> list[tuple[str, float]]:
    """Prometheus wants each bucket to hold all that is at most its bound."""
    bounds = [*map(str, EXCHANGE_BUCKETS), "+Inf"]
    return list(zip(bounds, accumulate(times.buckets), strict=True))


def process_samples() -> Iterator[Sample]:
    """Memory, CPU time and interface counters of this process and its host, from the kernel."""
    process = psutil.Process()
    cpu = process.cpu_times()
    yield "mpcbench_resident_bytes", {}, process.memory_info().rss
    yield "mpcbench_peak_resident_bytes", {}, peak_resident_bytes()
    yield "mpcbench_cpu_seconds_total", {}, cpu.user + cpu.system
    if interfaces := psutil.net_io_counters():
        yield "mpcbench_interface_sent_bytes_total", {}, interfaces.bytes_sent
        yield "mpcbench_interface_received_bytes_total", {}, interfaces.bytes_recv
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # asking more would take GPU memory
        yield "mpcbench_gpu_allocated_bytes", {}, torch.cuda.memory_allocated()
        yield "mpcbench_gpu_peak_allocated_bytes", {}, torch.cuda.max_memory_allocated()


def peak_resident_bytes() -> float:
    """Most memory this process ever held.

    Unlike `ru_maxrss`, this does not inherit the peak of the process that started us.
    """
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found[1]) * 1024 if found else math.nan
