"""The dealer's dry run of a cell: its programs on shapes alone, in a thread of its own, as far ahead as it may."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch._dynamo  # noqa: F401 - arithmetic on tensors without elements needs it; the dry run would take seconds for it

from parties.decoding.program import Program, run
from parties.decoding.steps import name_of
from parties.engines.fss.arithmetic.opening import dealer_openings
from parties.engines.fss.computation import Computation
from parties.engines.fss.dealing.plan import Plan, epoch
from parties.engines.fss.dealing.requests import BadRequest
from parties.engines.fss.dealing.sender import END, Sender, Stopped
from parties.engines.fss.randomness.dealer_source import DealerSource
from parties.engines.fss.replay.inputs import Inputs
from parties.engines.fss.replay.recordings import Recordings, records
from parties.metering.process import release_memory

_POLL_S = 0.1  # how soon a stop is seen
_STORED_SNAPSHOTS = 4  # most of a cell's tokens that have one; each may hold the cache as it was before a block grew


class DryRun:
    """Runs the segments of a plan on shapes; the correlated randomness that they use is queued at the senders.

    A segment with a truncation failure is run again, and all that follow it, since their masks depend on its masks. To
    begin again at a segment, the dry run needs the cache as it was there. Streamed, it keeps a snapshot for each
    segment that the parties may still repeat, but for those that mask a cache: these are quick, and their snapshots
    would hold the cache a second time. Stored, all segments are ahead of the parties and too many for that: a few
    tokens have one each. Without a snapshot it runs from the last one before, and sends nothing until it is there.
    Replays write the masks of new keys and values into spare rows, and a snapshot does not hold these: what was there
    is put back, since at the parties the spare rows hold nothing of what is dropped.

    Args:
        engine: The dealer's side of the computation.
        source: The engine's randomness.
        plan: The programs to run.
        senders: The senders, by role.
        inputs: The dealer's memory for recorded segments.
    """

    def __init__(
        self, engine: Computation, source: DealerSource, plan: Plan, senders: Mapping[str, Sender], inputs: Inputs
    ) -> None:
        self._source, self._plan, self._senders = source, plan, senders
        self._caches = plan.caches(engine)
        self._replays = records(plan.workload)
        self._inputs = inputs
        self._recordings = Recordings(source, inputs, engine.installed)
        before, steps = plan.programs(engine, self._caches, self._accepted_now)
        self._programs, self._prompt_segments = [*before, *steps], len(before)
        self._step = len(steps) // plan.workload.steps
        self._unrehearsed = steps[: self._step]
        self._restores: dict[int, Callable[[], None]] = {plan.first: self._caches.snapshot()}
        self._undo: dict[int, Callable[[], None]] = {}
        self._attempts: dict[int, int] = {}
        self._index, self._accepted = plan.first, dict[int, int]()
        self._news = threading.Event()
        self._failure: BaseException | None = None
        self._stop, self._prompted = threading.Event(), threading.Event()
        self._through = threading.Event()
        self._offline = plan.workload.options.offline
        self._masks = 0 if plan.workload.runs_prompts else len(before)
        if self._offline == "stored" or self._masks:
            self._prompted.set()

    def begin(self, attempt: int) -> None:
        """Starts the thread.

        Args:
            attempt: Number of failed attempts, in this and earlier cells.
        """
        self._start(self._plan.first, attempt)

    def put(self, role: str, frame: bytes) -> None:
        """Queues a frame of the source.

        Raises:
            Stopped: The dry run is not wanted any more.
        """
        self._senders[role].put(frame, self._stop)

    @property
    def through(self) -> bool:
        """Whether everything that the prompt takes is queued."""
        return self._through.is_set()

    def prompted(self) -> None:
        """The prompt is through: from now on, everything sent is for decoding, and accounted for separately."""
        self._prompted.set()

    def again(self, index: int, attempt: int) -> None:
        """Drops everything from epoch `index` on, and runs it again.

        Raises:
            BadRequest: The segment was never run, or the parties have passed it.
        """
        least, most = min(list(self._restores)), self._plan.first + len(self._programs) - 1
        if not least <= index <= most:
            raise BadRequest("client", "again request's index", index, f"a segment under way, from {least} to {most}")
        self.stop()
        self._through.clear()
        for sender in self._senders.values():
            sender.drop()
        for later in [known for known in self._restores if known > index]:
            del self._restores[later]
        self._start(index, attempt)

    def accepted(self, index: int, tokens: int) -> None:
        """So many tokens stay of the pass that epoch `index` settles.

        Raises:
            BadRequest: There is no such epoch.
        """
        if not self._plan.first <= index < self._plan.first + len(self._programs):
            raise BadRequest("client", "accepted request's index", index, "an epoch of the cell")
        self._accepted[index] = tokens
        self._news.set()

    def _accepted_now(self) -> int:
        """How many tokens stay of the pass that the current epoch settles, once the client has announced it."""
        while self._index not in self._accepted:
            if self._stop.is_set():
                raise Stopped
            self._news.wait(_POLL_S)
            self._news.clear()
        return self._accepted[self._index]

    def forget(self, index: int) -> None:
        """No epoch before `index` will be wanted again."""
        begun = sorted(known for known in list(self._restores) if known <= index)
        for past in begun[:-1]:
            del self._restores[past]
        for past in [known for known in list(self._undo) if begun and known < begun[-1]]:
            del self._undo[past]

    def check(self) -> None:
        """Raises what stopped the thread, if something did."""
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Ends the thread and waits for it: afterwards nothing draws from the source."""
        self.abandon()
        self._thread.join()
        self._stop.clear()

    def abandon(self) -> None:
        """Queues nothing more; does not wait for the running segment."""
        self._stop.set()

    def _start(self, index: int, attempt: int) -> None:
        self._thread = threading.Thread(target=self._guarded, args=(index, attempt), name="dry-run", daemon=True)
        self._thread.start()

    def _guarded(self, index: int, attempt: int) -> None:
        try:
            self._run(index, attempt)
        except Stopped:
            return
        except Exception as error:  # noqa: BLE001 - raised again where the links are
            self._failure = error

    def _run(self, start: int, attempt: int) -> None:
        base, first = max(known for known in self._restores if known <= start), self._plan.first
        for dropped in sorted((index for index in self._undo if index >= base), reverse=True):
            self._undo.pop(dropped)()
        self._restores[base]()
        if base == first:  # the cache is made anew: recordings would hold the old one until each has been met again
            self._recordings.clear()
            release_memory()
        for index, program in enumerate(self._programs[base - first :], base):
            self._source.silent = index < start
            if not self._source.silent:
                self._attempts[index] = attempt
            if index - first == self._prompt_segments:
                self._rehearse()
            if self._keeps(index - first):
                self._restores[index] = self._caches.snapshot()
            if index - first >= self._prompt_segments:
                if self._caches.position == self._plan.workload.end:
                    break
                self._await_prompt()
            self._index = index
            self._source.begin(epoch(self._attempts[index], index))
            self._deal(program)
            self._source.flush()
        if self._offline == "stored":
            for sender in self._senders.values():
                sender.put(END, self._stop)

    def _keeps(self, place: int) -> bool:
        """Whether the segment at a place in the plan has a snapshot."""
        if self._offline == "streamed":
            return place >= self._masks
        spaced = self._step * -(-self._plan.workload.steps // _STORED_SNAPSHOTS)
        return place >= self._prompt_segments and (place - self._prompt_segments) % spaced == 0

    def _rehearse(self) -> None:
        segments, self._unrehearsed = self._unrehearsed, []
        if segments:
            self._recordings.rehearse(segments, self._caches, _nothing, record=self._replays)

    def _deal(self, segment: Callable[[], Program[Any]]) -> None:
        recorded = self._replays and self._index >= self._plan.first + self._prompt_segments
        known = self._recordings.find(name_of(segment) if recorded else None, segment, self._caches)
        if known is None:
            run(segment(), dealer_openings)
            return
        source, self._undo[self._index] = self._source, known.undo(self._caches)
        self._inputs.fill(known.recorder.drawn, (source.client, source.server), None, source.epoch)
        with source.meter.stage(known.stage):
            known.replay(self._caches, self._source, self._inputs, _nothing)
        self._source.forward(known.recorder.sent)

    def _await_prompt(self) -> None:
        self._through.set()
        while not self._prompted.wait(_POLL_S):
            if self._stop.is_set():
                raise Stopped


def _nothing(_: Any) -> None:
    """What ends a part of a segment at the dealer, which has nothing to exchange."""
