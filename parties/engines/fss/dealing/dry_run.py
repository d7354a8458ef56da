"""The dealer's walk through a cell: its programs with shapes alone, in a thread of its own, as far as it may go."""

import threading
from collections.abc import Callable, Mapping

import torch._dynamo  # noqa: F401 - arithmetic on tensors without elements needs it; in the walk it would take seconds

from parties.decoding.program import run
from parties.engines.fss.arithmetic.opening import dealer_openings
from parties.engines.fss.computation import Computation, snapshot
from parties.engines.fss.dealing.plan import Plan, epoch
from parties.engines.fss.dealing.requests import BadRequest
from parties.engines.fss.dealing.sender import END, Courier, Stopped
from parties.engines.fss.randomness.dealer_source import DealerSource


class Walk:
    """Walks the pieces of a plan; what it puts goes to the couriers.

    A piece that met the danger zone is dry_run again, and all that follow it: their masks hang on its own. Where the
    walk begins again it needs what the cache held there. Streamed, it remembers that for each piece that the parties
    may still repeat; stored, all pieces are ahead of the parties and too many to remember, so it walks in silence from
    the first one.

    Args:
        engine: the dealer's side of the computation.
        source: the engine's randomness.
        plan: what to walk.
        couriers: by role.
    """

    def __init__(self, engine: Computation, source: DealerSource, plan: Plan, couriers: Mapping[str, Courier]) -> None:
        self._source, self._plan, self._couriers = source, plan, couriers
        self._cache = plan.cache(engine)
        before, steps = plan.programs(engine, self._cache)
        self._programs, self._prompt_pieces = [*before, *steps], len(before)
        self._restores: dict[int, Callable[[], None]] = {plan.first: snapshot(self._cache)}
        self._attempts: dict[int, int] = {}
        self._failure: BaseException | None = None
        self._stop, self._prompted = threading.Event(), threading.Event()
        self._through = threading.Event()
        self._offline = plan.workload.options.offline
        if self._offline == "stored" or plan.workload.prefill is None:
            self._prompted.set()

    def begin(self, attempt: int) -> None:
        """Starts the thread.

        Args:
            attempt: how many attempts have failed before, in this and earlier cells.
        """
        self._start(self._plan.first, attempt)

    def put(self, role: str, frame: bytes) -> None:
        """Takes a frame of the source's.

        Raises:
            Stopped: the walk is not wanted any more.
        """
        self._couriers[role].put(frame, self._stop)

    @property
    def through(self) -> bool:
        """Whether all that the prompt takes has been put."""
        return self._through.is_set()

    def prompted(self) -> None:
        """The prompt is through: from now on, what is sent is for decoding, and accounted for apart."""
        self._prompted.set()

    def again(self, index: int, attempt: int) -> None:
        """Gives up what was dry_run from epoch `index` on, and walks it anew.

        Raises:
            BadRequest: the piece was never dry_run, or is through.
        """
        least, most = min(list(self._restores)), self._plan.first + len(self._programs) - 1
        if not least <= index <= most:
            raise BadRequest("client", "again request's index", index, f"a piece under way, from {least} to {most}")
        self.stop()
        self._through.clear()
        for courier in self._couriers.values():
            courier.drop()
        for later in [known for known in self._restores if known > index]:
            del self._restores[later]
        self._start(index, attempt)

    def forget(self, index: int) -> None:
        """No epoch before `index` will be wanted again."""
        begun = sorted(known for known in list(self._restores) if known <= index)
        for past in begun[:-1]:
            del self._restores[past]

    def check(self) -> None:
        """Raises what stopped the thread, if something did."""
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Ends the thread, and waits for its end: from then on nobody draws from the source."""
        self.abandon()
        self._thread.join()
        self._stop.clear()

    def abandon(self) -> None:
        """Puts nothing more; does not wait for what is being computed."""
        self._stop.set()

    def _start(self, index: int, attempt: int) -> None:
        self._thread = threading.Thread(target=self._guarded, args=(index, attempt), name="walk", daemon=True)
        self._thread.start()

    def _guarded(self, index: int, attempt: int) -> None:
        try:
            self._walk(index, attempt)
        except Stopped:
            return
        except Exception as error:  # noqa: BLE001 - raised again where the links are
            self._failure = error

    def _walk(self, start: int, attempt: int) -> None:
        base, first = max(known for known in self._restores if known <= start), self._plan.first
        self._restores[base]()
        for index, program in enumerate(self._programs[base - first :], base):
            self._source.silent = index < start
            if not self._source.silent:
                self._attempts[index] = attempt
            if self._offline == "streamed":
                self._restores[index] = snapshot(self._cache)
            if index - first >= self._prompt_pieces:
                self._await_prompt()
            self._source.begin(epoch(self._attempts[index], index))
            run(program(), dealer_openings)
            self._source.flush()
        if self._offline == "stored":
            for courier in self._couriers.values():
                courier.put(END, self._stop)

    def _await_prompt(self) -> None:
        self._through.set()
        while not self._prompted.wait(0.1):
            if self._stop.is_set():
                raise Stopped
