"""Recordings on a GPU: each tape, from one exchange to the next, is a CUDA graph over memory that stays where it is.

A graph is captured from kernels that are generated of instructions (`recording.launches`, `recording.cuda_source`) and
from the calls of other kernels. What crosses to the host does so through pinned memory that kernels read and write
themselves: opened numbers, noted constants, checks, and public numbers that change from token to token. Numbers on the
host that are not pinned are constants.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import cycle, pairwise
from typing import Any

import torch
from torch import Tensor

from parties.engines.fss.kernels import nvrtc
from parties.engines.fss.kernels.driver import DriverRefused
from parties.engines.fss.recording.cuda_source import PRELUDE, Kernel, kernel
from parties.engines.fss.recording.launches import Launch, launches
from parties.engines.fss.recording.memory import Arena, Buffer, Kind, View, mapped, plan
from parties.engines.fss.recording.notes import Call, Note, Unsupported
from parties.engines.fss.recording.tape import WRONG_INDEX, copied_to, externals_of, octets_of, place_kept, readable
from parties.engines.fss.recording.tracer import NotRecordable
from parties.engines.fss.replay.turns import Turn, Turns

Step = Callable[[], Any]
FIRST_TIMED, ONE_IN = 2, 8
"""See `Graph.launch`."""


@cache
def _pool() -> tuple[Any, Any]:
    """The pool for what graphs allocate while they run, and a graph that keeps it.

    Graphs run one after the other and leave nothing there. With a pool each, torch's allocator of pinned memory would
    look into thousands of pools at each copy of memory that it does not know, such as part of a frame.
    """
    pool, graph = torch.cuda.graph_pool_handle(), torch.cuda.CUDAGraph()
    with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
        graph.capture_begin(pool, "thread_local")
        torch.zeros(1, device="cuda")
        graph.capture_end()
    return pool, graph


def captured(run: Step) -> Step:
    """Captures what a function launches as a graph; returns its replay. Runs it once before, which compiles.

    It is replayed once, too: the first launch of a graph uploads it to the device, which no token should wait for.

    Raises:
        NotRecordable: The function fails, or does what a graph cannot.
    """
    graph, stream, (pool, _) = torch.cuda.CUDAGraph(), torch.cuda.Stream(), _pool()  # type: ignore[no-untyped-call]
    try:
        run()
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            graph.capture_begin(pool, "thread_local")
            try:
                run()
            finally:
                graph.capture_end()
        graph.replay()
        wait()
    except Exception as error:  # whatever it is, the segment can be interpreted
        raise NotRecordable("a stretch between two rounds", f"{type(error).__name__}: {error}") from error
    return graph.replay


def pinned(tensor: Tensor) -> Tensor:
    """Returns a copy in pinned memory of the host."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor)


@cache
def stream() -> torch.cuda.Stream:
    """The stream of everything that is not captured. To ask torch for it takes longer than to launch a graph."""
    return torch.cuda.default_stream()


def wait() -> None:
    """Waits for all that the stream has to do."""
    stream().synchronize()


class KernelClock:
    """Times graphs by CUDA events, two at a time: one is enqueued while the other runs.

    Args:
        count: Gets estimated seconds of kernels, in the stage of the graph.
    """

    def __init__(self, count: Callable[[float], None]) -> None:
        self.count = count
        self._pairs = cycle([[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(2)])  # type: ignore[no-untyped-call]

    def launch(self, replay: Step) -> Callable[[], float]:
        """Launches a graph; returns what tells its seconds once it has ended."""
        start, end = next(self._pairs)
        start.record(stream())
        replay()
        end.record(stream())
        return lambda: start.elapsed_time(end) / 1e3


class GraphRecording:
    """The tapes of one trace, and their memory; see `recording.tape.Recording`.

    Args:
        notes: The steps of each tape.
        keep: Tensors that stay readable, as views and as they were traced; None for one that was not.
        arena: Memory for the others.
        before: What the first graph does before the steps.
        clock: Times the graphs.
        turns: Runs them.

    Attributes:
        tapes: One graph for each cut, to be run in this order.
        tensors: The kept tensors, over the memory of the recording; at first with the values of the trace.
    """

    def __init__(
        self,
        notes: Sequence[Sequence[Note]],
        keep: Sequence[tuple[View, Tensor | None]],
        arena: Arena,
        before: Step,
        clock: KernelClock,
        turns: Turns,
    ) -> None:
        try:
            launched = [launches(tape) for tape in notes]
        except Unsupported:
            raise NotRecordable("a step", "a GPU has no instruction for it") from None
        device = arena.memory.device
        kept = torch.empty(place_kept([view.buffer for view, _ in keep]), dtype=torch.uint8, device=device)
        arena.reserve(plan([launch.buffers for tape in launched for launch in tape]))
        memory = _Memory(kept, arena.memory)
        self.tensors = [readable(view, tensor, kept) for view, tensor in keep]
        firsts: list[Step | None] = [before] + [None] * (len(launched) - 1)
        self.tapes = [Graph(tape, memory, first, clock, turns) for tape, first in zip(launched, firsts, strict=True)]
        for one, other in pairwise(self.tapes):
            one.after = other
        self.memory_bytes = kept.numel() + memory.copied_bytes + sum(tape.program_bytes for tape in self.tapes)


class Graph:
    """A part of a recording. It keeps alive what it reads and writes.

    Attributes:
        externals: The memory from outside that it reads or writes.
        launches: Number of kernels, and of calls.
        instructions: Number of instructions in its kernels.
        program_bytes: Size of what its kernels are given.
        after: The next part.
    """

    def __init__(
        self, launched: Sequence[Launch], memory: "_Memory", first: Step | None, clock: KernelClock, turns: Turns
    ) -> None:
        buffers = dict.fromkeys(buffer for launch in launched for buffer in launch.buffers)
        self.externals = externals_of(buffers)
        self._alive = [buffer.memory for buffer in buffers if buffer.kind is not Kind.PLANNED]
        self.launches, self.instructions = len(launched), sum(len(each.notes) for each in launched if not each.is_call)
        self._memory, self._wrong = memory, pinned(torch.zeros(1, dtype=torch.int64))
        self._index_failed = self._wrong.numpy().data
        self.program_bytes = 0
        steps = [*([] if first is None else [first]), *(self._step(launch) for launch in launched)]

        def run() -> None:
            for step in steps:
                step()

        self._steps, self._replay = steps, captured(run)
        self._index_failed[0] = 0  # the second run finds what the first has left, and perhaps no index
        self._clock, self._counted, self._untimed, self._due = clock, 0, 0, FIRST_TIMED
        self._turns = turns
        self._seconds: Callable[[], float] | None = None
        self.after: Turn | None = None

    @property
    def steps(self) -> Sequence[Callable[[], Any]]:
        """See `Tape`."""
        return [self.run]

    def run(self) -> None:
        """Replays the graph and waits for it.

        Raises:
            IndexError: An index is outside its dimension.
        """
        self._turns.run(self)
        if self._seconds is not None:
            self._clock.count(self._untimed * self._seconds())
            self._counted += self._untimed
            self._untimed, self._due = 0, min(ONE_IN, self._counted)
        if self._index_failed[0]:
            raise IndexError(WRONG_INDEX)

    def launch(self) -> None:
        """See `Turn`. Replays 2, 4, and 8 are timed, then one in eight: an event costs as much as a small kernel."""
        self._untimed += 1
        self._seconds = self._clock.launch(self._replay) if self._untimed == self._due else self._replay()

    def dropped(self) -> None:
        """See `Turn`."""
        self._index_failed[0] = 0
        self._untimed -= 1

    def _step(self, launch: Launch) -> Step:
        (first, *_) = launch.notes
        if isinstance(first, Call):
            return self._memory.call(first)
        made = kernel(launch, outside(self._wrong))
        self.program_bytes += 8 * len(made.words)
        return self._memory.kernel(made)


def outside(tensor: Tensor) -> View:
    """Returns a tensor that is no part of a trace as a view."""
    storage = tensor.untyped_storage()
    return View(Buffer(Kind.EXTERNAL, storage.nbytes(), storage), 0, tensor.dtype, tuple(tensor.shape), tensor.stride())


class _Memory:
    """Where the buffers of a recording are.

    Args:
        kept: Memory for planned buffers that are kept.
        arena: Memory for the others.
    """

    def __init__(self, kept: Tensor, arena: Tensor) -> None:
        self._kept, self._arena, self.device = kept, arena, arena.device
        self._copies: dict[Buffer, torch.UntypedStorage] = {}

    @property
    def copied_bytes(self) -> int:
        """Bytes of constants that were copied to the device."""
        return sum(storage.nbytes() for storage in self._copies.values())

    def kernel(self, made: Kernel) -> Step:
        """Binds a kernel to addresses.

        Raises:
            NotRecordable: It cannot be compiled or loaded.
        """
        try:
            return nvrtc.bound(PRELUDE + made.text, "run", self.words(made), made.blocks, made.threads)
        except DriverRefused as refusal:
            raise NotRecordable("a kernel", str(refusal)) from None

    def words(self, made: Kernel) -> list[int]:
        """Returns the words of a kernel, with addresses in place of views."""
        return [word if isinstance(word, int) else self._address(word) for word in made.words]

    def _address(self, view: View) -> int:
        storage, start = self._place(view.buffer)
        return storage.data_ptr() + start + view.offset

    def call(self, call: Call) -> Step:
        """Binds a call to tensors over the memory."""
        args, kwargs = mapped([call.args, call.kwargs], View, self._tensor)
        if call.kernel:
            return partial(call.function, *args)
        return partial(copied_to, partial(call.function, *args, **kwargs), [self._tensor(v) for v in call.outputs])

    def _tensor(self, view: View) -> Tensor:
        storage, start = self._place(view.buffer)
        return view.tensor(storage, start)

    def _place(self, buffer: Buffer) -> tuple[torch.UntypedStorage, int]:
        if buffer.kind is Kind.PLANNED:
            return (self._kept if buffer.kept else self._arena).untyped_storage(), buffer.offset
        held = buffer.memory
        if held.device.type != "cpu" or octets_of(held).is_pinned():
            return held, 0
        if buffer not in self._copies:
            self._copies[buffer] = octets_of(held).to(self.device).untyped_storage()
        return self._copies[buffer], 0
