"""Reads meter, state and process at each scrape, so that monitoring costs a party nothing between scrapes."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from parties.metering.meter import StageMeter
from parties.metering.process import process_readings
from parties.metering.progress import Progress
from parties.metering.readings import Histogram
from parties.metering.registry import BY_NAME
from parties.metering.stages import phase_of

Sample = tuple[str, Mapping[str, str], float]  # metric, labels other than `party`, value


class PartyCollector(Collector):
    """Collects all metrics of one party for Prometheus.

    Args:
        role: Value of the label `party`.
        meter: Source of the metrics of stages and links.

    Attributes:
        state: Progress of the party; None until it has one.
    """

    def __init__(self, role: str, meter: StageMeter) -> None:
        self._role = role
        self._meter = meter
        self.state: Progress | None = None

    def collect(self) -> Iterable[Family]:
        """All metrics that currently have a value."""
        yield from families(self._samples(), self._role)
        exchanges = [({"peer": peer}, times) for peer, times in self._meter.exchange_times().items()]
        yield from histogram("mpcbench_exchange_seconds", exchanges, self._role)
        steps = [({"stage": name, "phase": phase_of(name)}, times) for name, times in self._meter.step_times().items()]
        yield from histogram("mpcbench_stage_duration_seconds", steps, self._role)
        for name, times in self._meter.durations().items():
            yield from histogram(name, [({}, times)], self._role)

    def _samples(self) -> Iterator[Sample]:
        yield from self._meter_samples()
        yield from ((name, {}, value) for name, value in self._meter.numbers().items())
        if self.state is not None and (age := self.state.token_age) is not None:
            yield "mpcbench_token_age_seconds", {}, age
        yield from ((name, {}, value) for name, value in process_readings())

    def _meter_samples(self) -> Iterator[Sample]:
        for reading in self._meter.lifetime():
            stage = {"stage": reading.stage, "phase": reading.phase}
            yield "mpcbench_stage_seconds_total", stage, reading.seconds
            yield "mpcbench_compute_seconds_total", stage, reading.compute_seconds
            if reading.kernel_seconds:
                yield "mpcbench_gpu_kernel_seconds_total", stage, reading.kernel_seconds
            for peer, counts in reading.peers.items():
                link = {**stage, "peer": peer}
                yield "mpcbench_sent_bytes_total", link, counts.sent_bytes
                yield "mpcbench_received_bytes_total", link, counts.received_bytes
                yield "mpcbench_messages_total", link, counts.messages
                yield "mpcbench_rounds_total", link, counts.rounds
                yield "mpcbench_blocked_seconds_total", link, counts.blocked_seconds


def families(samples: Iterable[Sample], party: str) -> Iterator[Family]:
    """Counters and gauges of the registry, each with all of its samples.

    Args:
        samples: Samples in any order.
        party: Value of the label `party` where a sample has none.
    """
    found: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
    for name, labels, value in samples:
        metric = BY_NAME[name]
        if name not in found:
            family = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            found[name] = family(name, metric.help, labels=metric.labels)
        found[name].add_metric([labels.get(label, party if label == "party" else "") for label in metric.labels], value)
    yield from found.values()


def histogram(name: str, series: Iterable[tuple[Mapping[str, str], Histogram]], party: str) -> Iterator[Family]:
    """A histogram of the registry; nothing if it has no series."""
    metric = BY_NAME[name]
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, times in series:
        values = [{**labels, "party": party}[label] for label in metric.labels]
        family.add_metric(values, buckets=_cumulative(times), sum_value=times.seconds)
    if family.samples:
        yield family


def _cumulative(times: Histogram) -> list[tuple[str, float]]:
    """Cumulative buckets, as Prometheus defines them: each counts all values up to its bound."""
    bounds = [*map(str, times.bounds), "+Inf"]
    return list(zip(bounds, accumulate(times.buckets), strict=True))
