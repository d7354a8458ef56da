"""Serving and scraping one party in a test."""

import http.client
from collections.abc import Iterator
from contextlib import closing, contextmanager

from prometheus_client.parser import text_string_to_metric_families as parse

from parties.metering.exporter import Exporter
from parties.metering.meter import StageMeter
from tests.helpers.waiting import PATIENCE_S

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@contextmanager
def serving(role: str = "client", meter: StageMeter | None = None) -> Iterator[Exporter]:
    exporter = Exporter(role, meter or StageMeter(), "127.0.0.1")
    try:
        yield exporter
    finally:
        exporter.close()


def get(exporter: Exporter, accept: str = "text/plain") -> str:
    connection = http.client.HTTPConnection(*exporter.address, timeout=PATIENCE_S)
    with closing(connection):
        connection.request("GET", "/metrics", headers={"Accept": accept})
        return connection.getresponse().read().decode()


def scrape(exporter: Exporter) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(get(exporter))
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]
