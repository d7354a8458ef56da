"""One of the two computing parties: the programs of `Computation` over links to the peer and to the dealer."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from parties.decoding.batch import AnyCaches, Caches
from parties.decoding.layer_names import ChunkName
from parties.decoding.program import Program, run
from parties.decoding.workload import Workload
from parties.engines.base import Shapes
from parties.engines.fss.arithmetic.gates import TruncationFailure
from parties.engines.fss.arithmetic.masking import received, sent
from parties.engines.fss.arithmetic.matrices import ServerMatrix, is_matrix
from parties.engines.fss.arithmetic.opening import Opener
from parties.engines.fss.arithmetic.values import Additive, Masked
from parties.engines.fss.computation import Computation
from parties.engines.fss.dealing.plan import Plan, epoch
from parties.engines.fss.dealing.receiver import MATERIAL, Receiver
from parties.engines.fss.dealing.stored_receiver import StoredReceiver
from parties.engines.fss.randomness.dcf import Permutation
from parties.engines.fss.randomness.frames import LONGEST_BYTES, FrameReader
from parties.engines.fss.randomness.party_sources import ClientSource, ServerSource
from parties.engines.fss.randomness.seeds import drawn_seed
from parties.engines.fss.randomness.streams import stream_on
from parties.engines.fss.recording.warm_up import COMPILE, compile_all, compile_products
from parties.engines.fss.replay.exchange import bound
from parties.engines.fss.replay.placement import memory_on
from parties.engines.fss.replay.recorder import Round
from parties.engines.fss.replay.recordings import Recordings, records
from parties.errors import PartyError
from parties.metering.meter import StageMeter
from parties.metering.stages import RECORDING
from parties.transport.announcements import announced
from parties.transport.mesh import Mesh

T = TypeVar("T")


MOST_ATTEMPTS = 12
"""At one retry in hundreds of segments, this many in a row are not bad luck."""


class RetriesExhausted(PartyError):  # noqa: N818 - named for what happened
    """A segment had a truncation failure in each of so many attempts."""

    def __str__(self) -> str:
        attempts, where = self.args
        return (
            f"a segment failed in each of {attempts} attempts, the last time in {where}. Each attempt has new masks, "
            f"and a number below 2^k fails with probability 2^(k - 63): so many numbers with such wide bounds are "
            f"truncated in one segment that retries do not help; a shorter prompt, or prefill: shared, truncates fewer"
        )


class FssEngine(Computation):
    """Client or server.

    Args:
        role: `client` or `server`.
        mesh: Links to the other party and to the dealer.
        meter: The party's stage meter.
        device: `cpu` or `cuda`: where the matrices are and comparisons are evaluated.
    """

    def __init__(self, role: str, mesh: Mesh, meter: StageMeter, device: str = "cpu") -> None:
        self.client = role == "client"
        self.peer, self.dealer = mesh["server" if self.client else "client"], mesh["dealer"]
        with meter.stage(COMPILE):
            compile_all(device)
        with meter.stage("setup.seeds"):
            seed, permutation_key = drawn_seed(self.dealer, role)
        self.stream, self._masks = (stream_on(torch.device(device), seed) for _ in range(2))
        source = (ClientSource if self.client else ServerSource)(meter, self.stream, FrameReader(self._dealt_frame))
        super().__init__(source)
        self._draws = source
        self.source.device = torch.device(device)
        self.source.permutation = Permutation(permutation_key)
        self.source.note(permutation_key)
        self._inputs = memory_on(self.source.device, seed, meter)
        self.recordings = Recordings(source, self._inputs, self.installed)
        self.replays = self.replays_chunks = False
        self._supply: Receiver | StoredReceiver | None = None
        self.exchange = self._opener = Opener(self.peer, meter, source.constants, pinned=device != "cpu")
        self._index = 0

    @property
    def repeats(self) -> int:
        """Segments that were run again after a truncation failure."""
        return self.source.retries.count

    @property
    def replayed_segments(self) -> int:
        """See `Engine`."""
        return self.recordings.replayed

    @property
    def interpreted_segments(self) -> Mapping[str, int]:
        """See `Engine`."""
        return self.recordings.interpreted

    def _dealt_frame(self) -> bytes | bytearray | memoryview:
        if self._supply is not None:
            return self._supply.next()
        with self.meter.stage(MATERIAL):
            return self.dealer.receive(at_most=LONGEST_BYTES)

    def _ask(self, request: dict[str, Any]) -> None:
        if self.client:
            with self.meter.stage(MATERIAL):
                self.dealer.send_json(request)

    def _begin(self) -> int:
        self._index += 1
        self.source.begin(epoch(self.repeats, self._index))
        return self._index

    def install(self, shapes: Shapes, weights: Mapping[str, Tensor] | None) -> Program[None]:
        """Masks the server's matrices for the client: 8 bytes a weight, once a model."""
        with self.meter.stage(COMPILE):
            compile_products(self.source.device, [s[0] for name, s in shapes.items() if is_matrix(name, s)])
        self._ask({"do": "install", "shapes": {name: list(shape) for name, shape in shapes.items()}})
        self.matrices |= {name: ServerMatrix(matrix) for name, matrix in self._matrices(shapes, weights)}
        self._begin()
        yield from super().install(shapes, weights)

    def _matrices(self, shapes: Shapes, weights: Mapping[str, Tensor] | None) -> Iterator[tuple[str, Tensor]]:
        """Names and [out, in]: W at the server, which sends W - b; W - b at the client."""
        if weights is None:
            return received(self.peer, shapes, self.meter, self.source.device)
        return sent(self.peer, shapes, self.meter, weights, self._masks, self.source.device)

    def prepare(self, workload: Workload, caches: AnyCaches) -> AnyCaches:
        """Sends the dealer the cell's plan, and puts prefilled caches under masks that stay; see `mask_cache`."""
        plan = Plan.of(workload, self._index + 1)
        self.configure(workload.options)
        self.recordings = Recordings(self.source, self._inputs, self.installed)
        self.replays = records(workload)
        self.replays_chunks = self.replays and self._inputs.staged  # work on a CPU takes as long interpreted
        self._ask({"do": "decode", "plan": plan.to_json(), "attempt": self.repeats})
        if workload.options.offline == "stored":
            self._supply = StoredReceiver(self.dealer, self.meter, on_gpu=self._inputs.staged)
            if self.replays and not workload.runs_prompts:
                self._supply.await_recording()
            self._supply.fetch()
        else:
            self._supply = Receiver(self.dealer, self.meter)
        if not workload.runs_prompts:
            for segment in self.mask_cache(caches):
                self.run_segment(segment, caches)
        self.recordings.count_anew()
        return caches

    def rehearse(self, segments: Sequence[Callable[[], Program[Any]]], caches: Caches) -> None:
        """See `Engine`: records the segments, then waits for the peer and the dealer, which do the same: 1 round."""
        self.recordings.rehearse(segments, caches, self._end_of, record=self.replays)
        with self.meter.stage(RECORDING):
            self.peer.send(b"")
            self.peer.await_peer()
            self.peer.receive(at_most=0)
            if self.recordings.dealt_bytes and isinstance(self._supply, Receiver):
                self._supply.await_frame()

    def run_segment(self, program: Callable[[], Program[T]], caches: Caches, name: Hashable = None) -> T:
        """Runs a segment, from the start again after a truncation failure; one with a name is recorded and replayed.

        Both parties see the failure alike, in a number that is uniformly random to them. The randomness dealt for the
        failed attempt is dropped, so nothing is masked twice. So are the constants that it noted: up to its last round
        they were compared, and how many follow depends on whether it was replayed. The dealer knows the mask, so a
        retry reveals to it how a secret number compares with one that it knows (docs/protocols.md): therefore retries
        are few, and no more than chance explains.

        Raises:
            RetriesImprobable: There were more failures than the declared bounds let expect.
            RetriesExhausted: Every attempt failed.
        """
        index = self._begin()
        self.source.retries.begin()
        self._ask({"do": "go", "index": index})
        where, forget = "", self._draws.constants.snapshot()
        for attempt in range(MOST_ATTEMPTS):
            if attempt:
                self._again(index)
            try:
                return self._attempt(program, caches, name)
            except TruncationFailure as zone:
                where = str(zone)
                forget()
                self.source.retries.failed(self.meter.current)
        raise RetriesExhausted(MOST_ATTEMPTS, where)

    def _attempt(self, program: Callable[[], Program[T]], caches: Caches, name: Hashable) -> T:
        chunk = type(name) is ChunkName
        find = self.recordings.find_chunk if chunk else self.recordings.find
        known = find(name if (self.replays_chunks if chunk else self.replays) else None, program, caches)
        if known is None:
            self.meter.add("mpcbench_interpreted_segments_total")
            restore = caches.snapshot()
            try:
                return run(program(), self.exchange)
            except TruncationFailure:
                restore()
                raise
        self.meter.add("mpcbench_replayed_segments_total")
        with self.meter.stage(known.stage):
            streams, frames = [self.stream], self._draws.frames
            self._inputs.fill(known.recorder.drawn, streams, frames, self.source.epoch)
            result: Any = known.replay(caches, self.source, self._inputs, self._end_of)
        if self._inputs.staged:
            self.meter.add("mpcbench_gpu_graph_replays_total", len(known.tapes))
        return result  # type: ignore[no-any-return]

    def _end_of(self, made: Round) -> Callable[[], None] | None:
        return bound(made, self._opener)

    def _again(self, index: int) -> None:
        self.meter.add("mpcbench_repeats_total")
        self._ask({"do": "again", "index": index, "attempt": self.repeats})
        if isinstance(self._supply, StoredReceiver):
            self._supply.fetch()
        self.source.begin(epoch(self.repeats, index))

    def open_to_client(self, value: Additive) -> Tensor | None:
        """One message from the server to the client."""
        if not self.client:
            self.peer.send_tensor(value.share.cpu())
            return None
        return value.share.cpu() + self.peer.receive_tensor(value.shape, value.share.dtype)

    def announce(self, number: int | None, most: int) -> int:
        """One message to the server, and a request to the dealer, which needs it for what follows."""
        if number is not None:
            self._ask({"do": "accepted", "index": self._index + 1, "tokens": number})
        return announced(self.peer, number, most)

    def adopt(self, share: Tensor) -> Additive:
        """See `Computation.adopt`; the share goes where the party computes."""
        return super().adopt(share.to(self.source.device))

    def export(self, value: Masked) -> Tensor:
        """See `Computation.export`; on the CPU."""
        return super().export(value).cpu()

    def prefilled(self) -> None:
        """Reports to the dealer that decoding follows."""
        self.recordings.end_prompts()
        with self.meter.stage(MATERIAL):
            self.dealer.send_json({"do": "prefilled"})

    def finish(self) -> None:
        """Ends the cell at the dealer. Both parties do so; by then the dealer has received all of their credit."""
        with self.meter.stage(MATERIAL):
            self.dealer.send_json({"do": "end"})
        if self._supply is not None:
            self._supply.finish()
            self._supply = None
        self.recordings.clear()
