"""The recordings of a party: which segments are replayed, and which are interpreted and why."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch

from parties.decoding.batch import Caches
from parties.decoding.layer_names import LayerName
from parties.decoding.program import Program
from parties.decoding.steps import name_of
from parties.decoding.workload import Workload
from parties.engines.fss.randomness.source import Source
from parties.engines.fss.recording.tracer import NotRecordable
from parties.engines.fss.replay.alike import Pattern
from parties.engines.fss.replay.chunks import ChunkInLayer, ChunkRecordings
from parties.engines.fss.replay.inputs import Inputs
from parties.engines.fss.replay.layer_parameters import Weights
from parties.engines.fss.replay.parts import End
from parties.engines.fss.replay.segment import RecordedSegment
from parties.metering.process import release_memory, trim_heap
from parties.metering.stages import RECORDING

LEAST_STEPS = 4
"""Tokens of a cell from which on recording them costs less than interpreting them."""
LARGE = 1 << 22
"""Layers times width squared of a model whose cells are recorded whatever they decode: tokens then take as long in a
cell of one token as in a long one, and recording takes less than loading the model."""
MOST_KEPT = 1024
"""Recordings that a party keeps: four shapes of 256 layers."""
NAMELESS = "its step depends on more than shapes, or the cell is not recorded"
FIRST = "the first of its name"
FULL = "the GPU has no memory left for its recording"


def records(workload: Workload) -> bool:
    """Whether the tokens of a cell are recorded. Public."""
    spec = workload.spec
    return workload.steps >= LEAST_STEPS or spec.n_layers * spec.hidden**2 >= LARGE


class Recordings:
    """Records segments in a rehearsal, or when met for the second time, and keeps the recordings while they fit.

    Args:
        source: The party's randomness.
        inputs: The party's memory for recorded segments.
        weights: Returns the tensors of the installed parameters, by name.

    Attributes:
        refused: Why segments are interpreted, by key.
        replayed: Number of segments that were replayed.
        interpreted: Numbers of segments that were interpreted, by the reason.
    """

    def __init__(self, source: Source, inputs: Inputs, weights: Callable[[], Weights]) -> None:
        self._source, self.inputs, self._weights = source, inputs, weights
        self._known: dict[Hashable, RecordedSegment] = {}
        self._met: set[Hashable] = set()
        self._patterns: dict[Hashable, list[Pattern]] = {}
        self._chunks = ChunkRecordings(source, inputs, weights)
        self.refused: dict[Hashable, str] = {}
        self.count_anew()

    def count_anew(self) -> None:
        """Forgets the counts, but not the recordings."""
        self.replayed, self.interpreted = 0, Counter[str]()

    @property
    def dealt_bytes(self) -> int:
        """Randomness of the dealer's that the recorded segments take together."""
        return sum(sum(made.recorder.drawn.dealt) for made in self._known.values())

    @property
    def instructions(self) -> list[int]:
        """Instructions of the tape machine in each recording, in the order in which they were last used."""
        return [sum(tape.instructions for tape in made.tapes) for made in self._known.values()]

    def end_prompts(self) -> None:
        """Forgets the recordings of prompts, and frees the memory that they took."""
        self._chunks.clear()
        self.inputs.release()
        self.count_anew()

    def clear(self) -> None:
        """Forgets the recordings, and with them the caches that they are bound to."""
        self._known.clear()
        self._patterns.clear()

    def find(self, key: Hashable, program: Callable[[], Program[Any]], cache: Caches) -> RecordedSegment | None:
        """Returns the recording of a segment, made now if need be; None if it has to be interpreted.

        Args:
            key: The segment's name; None if it has none, or if the cell is not to be recorded.
            program: The segment.
            cache: What it reads and changes.
        """
        known = None if key is None else self._find(key, program, cache)
        if known is not None:
            self.replayed += 1
        elif key is None:
            self.interpreted[NAMELESS] += 1
        else:
            self.interpreted[self.refused.get(key, FIRST)] += 1
        return known

    def find_chunk(self, name: Any, program: Callable[[], Program[Any]], cache: Caches) -> ChunkInLayer | None:
        """As `find`, for the name of a chunk, or None, and the cache of the prompt's sequence."""
        known, why = None, FIRST if name else NAMELESS
        try:
            known = self._chunks.find(name, program, cache) if name else None
        except NotRecordable as refusal:
            why = str(refusal)
        except torch.OutOfMemoryError:
            why = FULL
        if known is None:
            self.interpreted[why] += 1
        else:
            self.replayed += 1
        return known

    def rehearse(
        self, segments: Sequence[Callable[[], Program[Any]]], caches: Caches, end: End, *, record: bool
    ) -> None:
        """Records segments in order, each on the shapes that the one before leaves: the first token is replayed.

        Ends early at a segment that cannot be recorded: what comes after it is recorded when it is met again.

        Args:
            segments: Those of a token.
            caches: What they read and change; they get room for the token and stay as they are otherwise.
            end: See `RecordedSegment.replay`.
            record: Whether to record; a party that interprets makes room, which notes constants, at the same point.
        """
        release_memory()  # that of the caches before they were masked and folded
        source, names = self._source, list[Hashable]()
        for segment in segments:
            names.append(name_of(segment))  # makes room in a layer; what was there before does not fit the next one
            trim_heap()
        before, restore = source.epoch, caches.snapshot()
        try:
            for segment, name in zip(segments, names, strict=True) if record else ():
                source.epoch += 1  # as in a run: what comes from an earlier segment has not been opened in this one
                self._met.add(name)
                known = None if name is None else self._record(name, segment, caches)
                if known is None:
                    break
                known.leave(caches, source.epoch, self.inputs)
        finally:
            restore()
            source.epoch = before
        for made in self._known.values():  # by now the memory that they share is as large as it will be
            made.bind(source, self.inputs, end)
        release_memory()

    def _find(self, key: Hashable, program: Callable[[], Program[Any]], cache: Caches) -> RecordedSegment | None:
        known = self._known.get(key)
        if known is not None and not known.fits(cache):
            del self._known[key]
            known = None
        if known is not None:
            self._known[key] = self._known.pop(key)  # the least recently used one is the first
        if known is None and key in self._met:
            known = self._record(key, program, cache)
        self._met.add(key)
        return known

    def _record(self, key: Hashable, program: Callable[[], Program[Any]], cache: Caches) -> RecordedSegment | None:
        if key in self.refused:
            return None
        self._known = {other: made for other, made in self._known.items() if not made.stale(cache)}
        for kind, patterns in self._patterns.items():
            self._patterns[kind] = [pattern for pattern in patterns if not pattern.segment.stale(cache)]
        for oldest in list(self._known)[: max(0, len(self._known) - MOST_KEPT + 1)]:
            del self._known[oldest]
        try:
            with self._source.meter.stage(RECORDING):
                made = self._known[key] = self._alike(key, cache) or self._recorded(key, program, cache)
        except NotRecordable as refusal:
            self.refused[key] = str(refusal)
            return None
        except torch.OutOfMemoryError:
            self.refused[key] = FULL
            return None
        if self.inputs.staged:
            self._source.meter.add("mpcbench_gpu_graph_captures_total", len(made.tapes))
        return made

    def _alike(self, key: Hashable, cache: Caches) -> RecordedSegment | None:
        """The recording made from that of a layer alike, if there is one."""
        if not isinstance(key, LayerName):
            return None
        weights = self._weights()
        made = (
            pattern.recording(key.layer, cache, self._source, self.inputs, weights)
            for pattern in self._patterns.get(key.kind, ())
        )
        return next((each for each in made if each is not None), None)

    def _recorded(self, key: Hashable, program: Callable[[], Program[Any]], cache: Caches) -> RecordedSegment:
        """A new recording, from which those of layers alike will be made."""
        made = RecordedSegment.record(program, cache, self._source, self.inputs)
        if isinstance(key, LayerName):
            pattern = Pattern.of(made, key.layer, cache, self.inputs, self._weights())
            if pattern is not None:
                self._patterns.setdefault(key.kind, []).append(pattern)
        made.trace = None  # a pattern has it; of most recordings none is made
        return made
