"""The cost of a cell without running it: the dealer's dry run on shapes alone, with the counters of the links.

The dry run is the protocol itself, so there is no formula that could differ from it. Bytes include framing. Not counted
are the segments that are run again after a truncation failure, which depend on chance, and the requests to the dealer,
a few hundred bytes.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, compress, repeat, takewhile
from typing import Any

from torch import Tensor

from parties.decoding.batch import Batch
from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.prefill import chunked
from parties.decoding.program import run, staged
from parties.decoding.steps import open_token
from parties.engines.base import Shapes
from parties.engines.fss.arithmetic.matrices import ServerMatrix, is_matrix
from parties.engines.fss.arithmetic.opening import PLACE_BYTES, Opening, dealer_openings
from parties.engines.fss.arithmetic.values import Additive
from parties.engines.fss.computation import Computation
from parties.engines.fss.cost.counting import CountingSource
from parties.engines.fss.cost.meta_tensors import MetaTensors, meta_tensor
from parties.engines.fss.cost.shapes import installed_shapes, prefilled
from parties.engines.fss.dealing.plan import Plan, Segment
from parties.engines.fss.dealing.receiver import MATERIAL
from parties.engines.fss.dealing.sender import END
from parties.metering.meter import StageMeter
from parties.metering.readings import Counts
from parties.metering.stages import phase_of
from parties.models.folding import folded_shapes
from parties.models.spec import ModelSpec
from parties.options import DEFAULTS, RunOptions
from parties.policies.base import Policy
from parties.transport.announcements import NUMBER_BYTES
from parties.transport.frame import HEADER_BYTES


@dataclass(frozen=True)
class Traffic:
    """Traffic on the links.

    Attributes:
        counts: Counts by role and stage, with framing, as the meters of a run count them.
        retries: Expected number of segments that are run again; their traffic is not in `counts`.
    """

    counts: Mapping[tuple[str, str], Counts]
    retries: float = 0.0

    def total(self, role: str, phase: str) -> Counts:
        """All stages of a phase, `online` or `offline`."""
        chosen = ((party, phase_of(stage)) == (role, phase) for party, stage in self.counts)
        return sum(compress(self.counts.values(), chosen), start=Counts())

    def __add__(self, other: "Traffic") -> "Traffic":
        merged = defaultdict(Counts, self.counts)
        for key, counts in other.counts.items():
            merged[key] += counts
        return Traffic(dict(merged), self.retries + other.retries)


@dataclass(frozen=True)
class Work:
    """Local work of the client, in units whose speed can be measured.

    Attributes:
        weight_bytes: Bytes of the server's matrices, streamed once per token or pass.
        drawn_bytes: Bytes of keystream.
        comparison_levels: Levels of comparison trees, each a call of the block cipher and a few words of arithmetic.
        look_up_bytes: Bytes of the one-hot vectors of look-ups, summed over a table.
        rounds: Openings, each with a few small tensor operations.
    """

    weight_bytes: int
    drawn_bytes: int
    comparison_levels: int
    look_up_bytes: int
    rounds: int


@dataclass(frozen=True)
class Prediction:
    """The predicted cost of a cell.

    Attributes:
        prefill: Traffic of a prompt that client and server run themselves; None if the cache is shared.
        decode: Traffic of all tokens together.
        work: Local work of all tokens together, without the prompt.
    """

    prefill: Traffic | None
    decode: Traffic
    work: Work


def predict(
    spec: ModelSpec,
    policy: Policy,
    *,
    seq_len: int,
    new_tokens: int,
    counted: int | None = None,
    options: RunOptions = DEFAULTS,
    batch: int = 1,
    accepted: Iterable[int] = (),
) -> Prediction:
    """Counts of a cell, exact except for the parts named in the module's docstring.

    Args:
        spec: The model.
        policy: The cache policy.
        seq_len: Prompt tokens, the last of which is the first private step.
        new_tokens: Tokens to decode.
        counted: The first tokens, to which the counts are restricted; all if left out.
        options: The cell's engine options.
        batch: Sequences that decode side by side, all of that length.
        accepted: With drafts, how many draft tokens each pass accepts; passes after these accept none.

    Raises:
        HeadError: The policy rates tokens with trained heads whose file cannot be read.
    """
    with MetaTensors():
        inside = options.prefill == "mpc"
        dry_run = _DryRun(installed_shapes(spec, policy) if inside else folded_shapes(spec), options)
        decoder = Decoder(dry_run.engine, spec, policy)
        sizes = [chunked(decoder, seq_len - 1)] * batch if inside else []
        begun = Cache.empty(spec.n_layers) if inside else prefilled(spec, policy, seq_len - 1)
        plan = Plan.of(decoder.workload(Batch([begun] * batch), new_tokens, options, sizes), 1)
        caches, stay = plan.caches(dry_run.engine), [1 + number for number in accepted]
        counted = new_tokens if counted is None else counted
        passes = len(stay) + max(0, counted - sum(stay)) if plan.workload.drafts else counted
        end = plan.workload.end - new_tokens + counted
        stays = chain(stay, repeat(1))
        before, steps = plan.programs(dry_run.engine, caches, lambda: dry_run.engine.announce(next(stays), new_tokens))
        prompt, _ = dry_run.count(before if inside else map(dry_run.off_the_clock, before), decoder)
        decode, work = dry_run.count(takewhile(lambda _: caches.position < end, steps), decoder)
        decode += dry_run.end_frames(2 if options.offline == "stored" else 1)
        if not inside:
            decode += prompt
    return Prediction(
        prompt if inside else None, decode, replace(work, weight_bytes=8 * passes * _weights(spec, policy))
    )


def _weights(spec: ModelSpec, policy: Policy) -> int:
    """Elements of the matrices that a token is multiplied by; those that guess a query are read once more."""
    matrices = sum(math.prod(shape) for name, shape in folded_shapes(spec).items() if is_matrix(name, shape))
    guesses = sum(policy.selects_ahead(layer) for layer in range(spec.n_layers))
    return matrices + guesses * spec.hidden * spec.n_heads * spec.head_dim


class _Ledger:
    """Counts frames on both ends of a link, as a link does."""

    def __init__(self) -> None:
        self.counts: defaultdict[tuple[str, str], Counts] = defaultdict(Counts)

    def send(self, sender: str, receiver: str, stage: str, size: int) -> None:
        """One frame of `size` bytes of payload: half a round at either end."""
        size += HEADER_BYTES
        self.counts[sender, stage] += Counts(sent_bytes=size, messages=1, rounds=0.5)
        self.counts[receiver, stage] += Counts(received_bytes=size, messages=1, rounds=0.5)

    def exchange(self, stage: str, size: int) -> None:
        """A frame each way between client and server: one round."""
        self.send("client", "server", stage, size)
        self.send("server", "client", stage, size)


class _Counted(Computation):
    """The dealer's side of the computation; messages from the server to the client are counted."""

    def __init__(self, source: CountingSource, ledger: _Ledger) -> None:
        super().__init__(source)
        self._ledger = ledger

    def open_to_client(self, value: Additive) -> Tensor | None:
        """One message from the server to the client."""
        self._ledger.send("server", "client", self.meter.current, 8 * value.shape.numel())
        return None

    def announce(self, number: int | None, most: int) -> int:  # noqa: ARG002
        """One message from the client to the server."""
        assert number is not None  # noqa: S101 - an assumed one
        self._ledger.send("client", "server", "draft", NUMBER_BYTES)
        return number


class _DryRun:
    """A dry run of programs, with parameters of the given shapes installed."""

    def __init__(self, shapes: Shapes, options: RunOptions) -> None:
        self.meter = StageMeter()
        self._ledger = _Ledger()
        to_client, to_server = (partial(self._ledger.send, "dealer", role, MATERIAL) for role in ("client", "server"))
        self._source = CountingSource(self.meter, to_client, to_server)
        self.engine = _Counted(self._source, self._ledger)
        self.engine.configure(options)
        matrices = {name: shape for name, shape in shapes.items() if is_matrix(name, shape)}
        self.engine.matrices = {name: ServerMatrix(meta_tensor((out, rows))) for name, (rows, out) in matrices.items()}
        run(self.engine.install(shapes, None), dealer_openings)

    def off_the_clock(self, segment: Segment) -> Segment:
        """The segment as the parties run it before they start to decode."""
        return lambda: staged(self.meter, "bench.prefill", segment())

    def end_frames(self, times: int) -> Traffic:
        """The dealer's empty frames where the randomness ends, and where the cell does."""
        self._ledger.counts.clear()
        for role in ("client", "server") * times:
            self._ledger.send("dealer", role, MATERIAL, len(END))
        return Traffic(dict(self._ledger.counts))

    def count(self, segments: Iterable[Segment], decoder: Decoder) -> tuple[Traffic, Work]:
        """Runs one segment of a cell after the other, each in an epoch of its own; `Work` without the weights."""
        self._ledger.counts.clear()
        source = self._source
        drawn, levels, shared = source.drawn.size, source.comparison_levels, source.dealt_bytes
        failures = source.retries.expected
        for segment in segments:
            self._source.begin(self._source.epoch + 1)
            chosen = run(segment(), self._exchange)
            if chosen is not None:
                run(open_token(decoder, chosen), self._exchange)
            self._source.flush()
        traffic = Traffic(dict(self._ledger.counts), source.retries.expected - failures)
        work = Work(
            weight_bytes=0,
            drawn_bytes=source.drawn.size - drawn,
            comparison_levels=source.comparison_levels - levels,
            look_up_bytes=source.dealt_bytes - shared,
            rounds=int(traffic.total("client", "online").rounds),
        )
        return traffic, work

    def _exchange(self, wanted: Sequence[Opening]) -> list[Any]:
        size = sum(o.hidden.nbytes for o in wanted)
        self._ledger.exchange(wanted[0].stage, PLACE_BYTES + size)
        return dealer_openings(wanted)
