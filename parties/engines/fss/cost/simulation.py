"""Client, server and dealer in one process and one thread: for tests and for counting.

The dealer runs the program first, which also shows that it does not depend on the opened values.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from parties.decoding.program import Program, run
from parties.engines.fss.arithmetic import ring
from parties.engines.fss.arithmetic.opening import Opening, combined, dealer_openings
from parties.engines.fss.arithmetic.values import Additive, Masked, Number
from parties.engines.fss.randomness.constants import Constants, ConstantsDiffer
from parties.engines.fss.randomness.dcf import PERMUTATION_KEY_BYTES, Permutation
from parties.engines.fss.randomness.dealer_source import DealerSource
from parties.engines.fss.randomness.frames import FrameReader, FrameWriter, RandomnessOutOfStep
from parties.engines.fss.randomness.party_sources import ClientSource, ServerSource
from parties.engines.fss.randomness.source import Source
from parties.engines.keystream import Keystream
from parties.metering.meter import StageMeter

T = TypeVar("T")


class BeyondBound(ValueError):  # noqa: N818 - named for what happened
    """A value is larger than was declared."""


@dataclass
class Cost:
    """The cost of a program.

    Attributes:
        rounds: Messages each way between client and server.
        online_bytes: Payload that each of the two sends the other.
        offline_bytes: Payload that the dealer sends, by receiver.
    """

    rounds: int = 0
    online_bytes: int = 0
    offline_bytes: tuple[int, int] = (0, 0)


class Simulation:
    """Runs programs at three sources in lockstep, and checks every value where a bound of it is declared or relied on.

    Args:
        seed: Seed, for a reproducible run.
    """

    def __init__(self, seed: int = 0) -> None:
        secrets = [bytes([seed % 256, seed // 256 % 256, side]) + bytes(29) for side in range(2)]
        self.queues: tuple[deque[bytes], deque[bytes]] = (deque(), deque())
        first, second = (self._inbox(queue) for queue in self.queues)
        outboxes = [FrameWriter(queue.append) for queue in self.queues]
        meter = StageMeter()
        self.client = ClientSource(meter, Keystream(secrets[0]), first)
        self.server = ServerSource(meter, Keystream(secrets[1]), second)
        self.dealer = DealerSource(meter, Keystream(secrets[0]), Keystream(secrets[1]), *outboxes)
        self.outboxes = outboxes
        self.sources: tuple[Source, ...] = (self.dealer, self.client, self.server)
        for source in self.sources:
            source.permutation = Permutation(bytes(PERMUTATION_KEY_BYTES))
        self.epoch = 0
        self.cost = Cost()
        self.opened: list[list[Any]] = []
        self._declared: deque[Number] = deque()  # the client's parts of what the server is yet to declare
        self.client.declared, self.server.declared = self._declared.append, self._compare

    @staticmethod
    def _inbox(queue: deque[bytes]) -> FrameReader:
        def next_frame() -> bytes:
            if not queue:
                raise RandomnessOutOfStep("the dealer's correlated randomness is used up")
            return queue.popleft()

        return FrameReader(next_frame)

    def run(self, program: Callable[[Source], Program[T]]) -> tuple[T, T]:
        """Results of client and server.

        Raises:
            BeyondBound: A value is larger than declared, where it is opened or its bound is declared (`bounded`).
            ConstantsDiffer: The two parties used different public constants.
            RandomnessOutOfStep: The parties used less or more randomness than the dealer dealt.
        """
        self.epoch += 1
        for source in self.sources:
            source.begin(self.epoch)
        for queue in (*self.queues, self._declared):
            queue.clear()
        for party in (self.client, self.server):  # a program that failed has not come as far at both
            party.constants = Constants()
        run(program(self.dealer), dealer_openings)
        for outbox in self.outboxes:
            outbox.flush()
        sizes = [sum(len(frame) - 8 for frame in queue) for queue in self.queues]
        self.cost, self.opened = Cost(offline_bytes=(sizes[0], sizes[1])), []
        results = self._lockstep(program(self.client), program(self.server))
        for queue in self.queues:
            if queue:
                raise RandomnessOutOfStep(f"{len(queue)} frames of the dealer's were not used")
        return results

    def _compare(self, theirs: Number) -> None:
        mine = self._declared.popleft()
        _require(_integers(mine, theirs), theirs.bits, theirs.source.meter.current)

    def _lockstep(self, *programs: Program[T]) -> tuple[T, T]:
        answers: list[Any] = [None, None]
        while True:
            wanted, results = [], []
            for program, answer in zip(programs, answers, strict=True):
                try:
                    wanted.append(next(program) if answer is None else program.send(answer))
                except StopIteration as stop:
                    results.append(stop.value)
            if results:
                return (results[0], results[1])
            answers = list(self._exchange(*wanted))

    def _exchange(self, first: Sequence[Opening], second: Sequence[Opening]) -> tuple[list[Any], list[Any]]:
        if [o.kind for o in first] != [o.kind for o in second]:
            raise RandomnessOutOfStep("client and server want different things opened")
        if self.client.constants.digest() != self.server.constants.digest():
            raise ConstantsDiffer("server", first[0].stage)
        self.cost.rounds += 1
        opened: list[Any] = []
        for mine, theirs in zip(first, second, strict=True):
            opened.append(combined(mine.hidden, theirs.hidden))
            self.cost.online_bytes += opened[-1].nbytes
            if mine.pad is not None and theirs.pad is not None:
                _require(opened[-1] - mine.pad - theirs.pad, mine.limit_bits, mine.stage)
        self.opened.append(opened)
        return opened, opened


def _require(integers: Tensor, bits: int, stage: str) -> None:
    if bits < 63 and bool((integers.abs() >= 2**bits).any()):
        worst = float(integers.abs().max())
        raise BeyondBound(f"stage {stage}: a value of {worst:g} was declared to stay below 2^{bits}")


def _integers(first: Number, second: Number) -> Tensor:
    shares = [v.additive().share if isinstance(v, Masked) else v.share for v in (first, second)]  # type: ignore[attr-defined]
    return shares[0] + shares[1]


def share(source: Source, numbers: Tensor, limit: float, scale: int = ring.FRACTION_BITS) -> Additive:
    """Numbers as additive shares in a simulation: the server's share is a fixed pseudo-random tensor."""
    noise = torch.randint(-(2**62), 2**62, numbers.shape, generator=torch.Generator().manual_seed(1))
    parts = {"ClientSource": ring.encode(numbers, scale) - noise, "ServerSource": noise}
    part = parts.get(type(source).__name__)
    return Additive(source, source.placeholder(numbers.shape) if part is None else part.to(source.device), scale, limit)


def value_of(first: Masked | Additive, second: Masked | Additive) -> Tensor:
    """The numbers behind both parties' parts, float64."""
    return ring.decode(_integers(first, second), first.scale)
