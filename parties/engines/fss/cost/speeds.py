"""How fast this machine does what the engine's local work consists of, measured with the engine's own code."""

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from parties.decoding.program import Program
from parties.engines.fss.arithmetic import gates, ring
from parties.engines.fss.cost.cost import Work
from parties.engines.fss.cost.simulation import Simulation, share
from parties.engines.fss.functions.activation import activation
from parties.engines.fss.functions.tables import Tables, window
from parties.engines.fss.randomness import dcf
from parties.engines.fss.randomness.source import Source
from parties.engines.keystream import SEED_BYTES, Keystream
from parties.metering.meter import StageMeter
from parties.transport.link import Link

_LEAST_SECONDS = 0.3


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """The speeds of one core, all positive.

    Attributes:
        weight_bytes_per_s: Bytes of a matrix, streamed by its product with a row.
        cipher_bytes_per_s: Bytes of keystream.
        comparison_levels_per_s: Levels of comparison trees.
        look_up_bytes_per_s: Bytes of the one-hot vectors of look-ups, summed over a table.
        seconds_per_round: Time of an exchange over loopback and of the small tensor operations of a round.
    """

    weight_bytes_per_s: float
    cipher_bytes_per_s: float
    comparison_levels_per_s: float
    look_up_bytes_per_s: float
    seconds_per_round: float

    def seconds(self, work: Work) -> float:
        """Local work done at these speeds, one thing after the other."""
        return (
            work.weight_bytes / self.weight_bytes_per_s
            + work.drawn_bytes / self.cipher_bytes_per_s
            + work.comparison_levels / self.comparison_levels_per_s
            + work.look_up_bytes / self.look_up_bytes_per_s
            + work.rounds * self.seconds_per_round
        )


def measure() -> Speeds:
    """Measures for a few seconds."""
    return Speeds(
        weight_bytes_per_s=_weights(),
        cipher_bytes_per_s=_cipher(),
        comparison_levels_per_s=_comparisons(),
        look_up_bytes_per_s=_look_ups(),
        seconds_per_round=_exchange() + _small_operations(),
    )


def _rate(amount: float, action: Callable[[], Any]) -> float:
    """Amount over the seconds of one action, which is repeated for a while after a first time that does not count."""
    action()
    start, times = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < _LEAST_SECONDS:
        action()
        times += 1
    return amount * times / passed


def _weights() -> float:
    matrix, row = torch.ones(8192, 4096, dtype=torch.int64), torch.ones(1, 4096, dtype=torch.int64)
    return _rate(8 * matrix.numel(), lambda: ring.vector_matrix(row, matrix))


def _cipher() -> float:
    stream, count = Keystream(bytes(SEED_BYTES)), 1 << 22
    return _rate(count, lambda: stream.octets(count))


def _comparisons() -> float:
    count, width = 20_000, 30
    x, seeds = torch.zeros(count, 1, dtype=torch.int64), torch.zeros(count, 16, dtype=torch.uint8)
    permutation = dcf.Permutation(bytes(dcf.PERMUTATION_KEY_BYTES))
    key = dcf.generate(permutation, x[:, 0], width, seeds, seeds)
    return _rate(count * dcf.key_blocks(width), lambda: dcf.evaluate(permutation, 0, x, width, seeds, key))


def _look_ups() -> float:
    count, width = 10_000, 8
    exps = np.exp(np.minimum(window(1 << width, -(1 << width) + 5), 4))  # as of the softmax
    tables = Tables(np.rint(exps * 2.0**18).astype(np.int64)[None, None])
    turn, bits = torch.arange(count) % (1 << width), torch.zeros(count, (1 << width) // 8, dtype=torch.uint8)
    return _rate(bits.nbytes, lambda: tables.sums(turn, bits))


def _exchange() -> float:
    """Seconds of one exchange of a short message between two threads."""
    ends = socket.create_server(("127.0.0.1", 0))
    near = socket.create_connection(ends.getsockname())
    far, _ = ends.accept()
    ends.close()
    links = [Link(end, "peer", StageMeter(), timeout_s=60.0) for end in (near, far)]
    count, message = 500, bytes(64)

    def work(link: Link) -> None:
        for _ in range(count):
            link.exchange(message)

    other = threading.Thread(target=work, args=(links[1],))
    start = time.perf_counter()
    other.start()
    work(links[0])
    other.join()
    for link in links:
        link.close()
    return (time.perf_counter() - start) / count


def _small_operations() -> float:
    """Seconds of a party's local work around a round of few numbers."""
    simulation, numbers = Simulation(), torch.zeros(8, dtype=torch.float64)

    def program(source: Source) -> Program[Any]:
        x = yield from gates.open_(share(source, numbers, 8.0))
        for _ in range(10):
            x = yield from activation(x, "silu")
        return x

    rate = _rate(1, lambda: simulation.run(program))
    return 1 / (rate * len(simulation.sources) * simulation.cost.rounds)
