"""The cost of monitoring for a party: a decoding loop with and without scrapes by a second process.

    python benchmarks/exporter.py [--pairs 40]

Scrapes are many times more frequent than those of Prometheus, so that their cost stands out of the noise; it is then
reported for the rates of a run: one scrape per second, and three requests for progress per second from the driver.
"""

import argparse
import multiprocessing
import os
import statistics
import time
import urllib.request
from collections.abc import Callable
from multiprocessing.synchronize import Event
from typing import Self

import torch
from prometheus_client import generate_latest

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import run
from parties.engines.plain import PlainEngine
from parties.metering.collector import PartyCollector
from parties.metering.stages import STAGES
from parties.models import load_spec, load_weights
from parties.models.folding import fold, folded_shapes
from parties.policies import make
from parties.roles.party import Party

MODEL = "random:tiny-llama"
PROMPT = 128
WINDOW_SECONDS = 0.5
SCRAPES_A_SECOND = 10.0
PROGRESS_A_SECOND = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=40, help="windows of half a second, each with and without scrapes")
    count = parser.parse_args().pairs
    torch.set_num_threads(1)
    party = Party("client", "127.0.0.1", "session")
    step = decoding(party)
    fill(party)
    for _ in range(5):
        step()
    served = collector(party)
    text = generate_latest(served)
    scrape, progress = cpu_seconds(lambda: generate_latest(served)), cpu_seconds(party.progress)
    pairs = []
    with Scraper(party.metrics_address) as scraper:
        for _ in range(count):  # alternating, since the load of the machine changes
            alone = window(step)
            scraper.on.set()
            pairs.append((alone, *window(step)))
            scraper.on.clear()
    scrapes = WINDOW_SECONDS * SCRAPES_A_SECOND
    extra = [(seconds - done * (cpu / steps)) / scrapes for (cpu, steps), seconds, done in pairs]
    print(f"{os.cpu_count()} cores; a scrape has {len(text.splitlines())} lines, {len(text) / 1000:.0f} kB")
    print(f"CPU time per scrape {scrape * 1e3:.2f} ms, per request for progress {progress * 1e3:.2f} ms")
    share = scrape + PROGRESS_A_SECOND * progress
    print(f"CPU of one core at one scrape and {PROGRESS_A_SECOND:g} requests per second: {share:.2%}")
    low, middle, high = statistics.quantiles(extra, n=4)
    print(
        f"in total, with HTTP and threads, during decoding: {middle * 1e3:.1f} ms per scrape (median of {count} pairs, "
        f"quartiles {low * 1e3:.1f} and {high * 1e3:.1f}), so one per second takes {middle:.2%} of a core"
    )
    party.close()


def decoding(party: Party) -> Callable[[], None]:
    """One step of the plain engine, on the meter of a party."""
    spec = load_spec(MODEL)
    engine = PlainEngine(party.meter)
    run(engine.install(folded_shapes(spec), fold(spec, load_weights(MODEL))))
    decoder = Decoder(engine, spec, make("full"))
    cache = Cache.empty(spec.n_layers)
    run(decoder.prefill(run(decoder.embed(list(range(PROMPT)), PROMPT, 0)), cache))
    party.state.enter("decode")
    party.state.prefilled(cache.tokens)
    kept = [(layer.k, layer.v) for layer in cache.layers]

    def step() -> None:
        for layer, (k, v) in zip(cache.layers, kept, strict=True):  # each step is the first one
            layer.k, layer.v = k, v
        cache.position = PROMPT
        run(decoder.step(run(decoder.embed([1], 1, PROMPT)), cache))
        party.state.token(cache.tokens, decoder.policy.attended, spec.cached_numbers)

    return step


def fill(party: Party) -> None:
    """Adds traffic to every stage, as in a private run: with the server online, and with the dealer and the referee."""
    peers = dict.fromkeys(STAGES, "server") | {"setup.weights": "server"}
    peers |= {"offline.material": "dealer", "bench.prefill": "referee", "bench.check": "referee"}
    for stage, peer in peers.items():
        with party.meter.stage(stage):
            for _ in range(10):
                party.meter.count(peer, sent=1000, received=1000, messages=2, rounds=1, blocked=0.001)


def collector(party: Party) -> PartyCollector:
    """The collector of the party's exporter."""
    made = PartyCollector(party.role, party.meter)
    made.state = party.state
    return made


def cpu_seconds(work: Callable[[], object], times: int = 200) -> float:
    """CPU time of one call."""
    start = time.thread_time()
    for _ in range(times):
        work()
    return (time.thread_time() - start) / times


def window(step: Callable[[], None]) -> tuple[float, int]:
    """CPU seconds of the whole process in one window, and the number of steps."""
    until, count, start = time.perf_counter() + WINDOW_SECONDS, 0, time.process_time()
    while time.perf_counter() < until:
        step()
        count += 1
    return time.process_time() - start, count


class Scraper:
    """A process that scrapes an exporter while `on` is set, for as long as the block lasts."""

    def __init__(self, address: tuple[str, int]) -> None:
        context = multiprocessing.get_context("spawn")
        self.on, self._stop = context.Event(), context.Event()
        self._process = context.Process(target=scrape_until, args=(address, self.on, self._stop))

    def __enter__(self) -> Self:
        self._process.start()
        time.sleep(3.0)  # time to start
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._process.join()


def scrape_until(address: tuple[str, int], on: Event, stop: Event) -> None:
    """Scrapes at regular intervals."""
    url = "http://{}:{}/metrics".format(*address)
    while not stop.wait(1 / SCRAPES_A_SECOND):
        if on.is_set():
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own exporter
                answer.read()


if __name__ == "__main__":
    main()
