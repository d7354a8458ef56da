"""The dealer: walks the parties' programs with shapes alone, a token ahead of them, and streams what they need."""

import os
import queue
import threading
from collections.abc import Callable
from typing import Any

from parties.engines.fss.engine import Computation, snapshot
from parties.engines.fss.inbox import Outbox
from parties.engines.fss.keystream import Keystream
from parties.engines.fss.matrices import ServerMatrix
from parties.engines.fss.opening import dealers
from parties.engines.fss.party import MATERIAL, is_matrix
from parties.engines.fss.plan import Plan, epoch
from parties.engines.fss.source import DealerSource
from parties.errors import OutOfStep
from parties.link import Link
from parties.meter import StageMeter
from parties.program import run

QUEUED_FRAMES = 64  # of about a megabyte: how far the dealer may be ahead

Item = tuple[str, bytes] | int | BaseException
"""A frame for a party; the index of an epoch that is complete; or what went wrong."""


class Stopped(Exception):  # noqa: N818 - an order, not a fault
    """The walk is no longer wanted."""


class Walk:
    """Walks the tokens of a plan in a thread of its own, as far ahead as the queue allows.

    Args:
        engine: the dealer's side of the computation.
        source: the engine's randomness.
        plan: what to walk.
        attempt: how many attempts have failed before.
        attach: is given `put` before the walk starts, for the source's frames.
    """

    def __init__(
        self,
        engine: Computation,
        source: DealerSource,
        plan: Plan,
        attempt: int,
        attach: Callable[[Callable[[Item], None]], None],
    ) -> None:
        self.engine, self.source, self.plan = engine, source, plan
        self.items: queue.Queue[Item] = queue.Queue(QUEUED_FRAMES)
        self._cache = plan.cache(engine)
        self._programs = plan.programs(engine, self._cache)
        self._restores: dict[int, Callable[[], None]] = {}
        self._stop = threading.Event()
        attach(self.put)
        self._start(plan.first, attempt)

    def put(self, item: Item) -> None:
        """Queues an item; waits while the queue is full.

        Raises:
            Stopped: the walk is not wanted any more.
        """
        while True:
            if self._stop.is_set():
                raise Stopped
            try:
                return self.items.put(item, timeout=0.1)
            except queue.Full:
                continue

    def again(self, index: int, attempt: int) -> None:
        """Gives up what was walked from epoch `index` on, and walks it anew."""
        self.stop()
        self._restores[index]()
        self._start(index, attempt)

    def forget(self, index: int) -> None:
        """No epoch before `index` will be wanted again: what it began with may go."""
        for past in [known for known in list(self._restores) if known < index]:
            del self._restores[past]

    def stop(self) -> None:
        """Ends the thread and drops what it had queued."""
        self._stop.set()
        self._thread.join()
        self.items = queue.Queue(QUEUED_FRAMES)
        self._stop.clear()

    def _start(self, index: int, attempt: int) -> None:
        self._thread = threading.Thread(target=self._guarded, args=(index, attempt), daemon=True)
        self._thread.start()

    def _guarded(self, index: int, attempt: int) -> None:
        try:
            try:
                self._walk(index, attempt)
            except Exception as error:  # noqa: BLE001 - raised again where the links are
                self.put(error)
        except Stopped:
            return

    def _walk(self, start: int, attempt: int) -> None:
        for index, program in enumerate(self._programs[start - self.plan.first :], start):
            self._restores[index] = snapshot(self._cache)
            self.source.begin(epoch(attempt, index))
            run(program(), dealers)
            self.source.flush()
            self.put(index)


class Dealer:
    """Serves client and server over links.

    Args:
        client, server: links.
        meter: the dealer's stage meter; only this object's thread uses it.
    """

    def __init__(self, client: Link, server: Link, meter: StageMeter) -> None:
        self.links, self.meter = {"client": client, "server": server}, meter
        seeds = {role: os.urandom(32) for role in self.links}
        with meter.stage("setup.seeds"):
            for role, link in self.links.items():
                link.send(seeds[role])
        self._server_stream = Keystream(seeds["server"])
        self._put: Callable[[Item], None] = self._send
        to_client, to_server = Outbox(lambda f: self._put(("client", f))), Outbox(lambda f: self._put(("server", f)))
        self._source = DealerSource(StageMeter(), Keystream(seeds["client"]), self._server_stream, to_client, to_server)
        self.engine = Computation(self._source)

    def serve(self, prefilled: Callable[[], None] = lambda: None) -> None:
        """Answers the client until it says that the run needs nothing more.

        Args:
            prefilled: called when the client says that the prompt is through.

        Raises:
            OutOfStep: a request that does not exist.
        """
        walk: Walk | None = None
        try:
            while (request := self._request())["do"] != "end":
                if request["do"] == "prefilled":
                    prefilled()
                    continue
                with self.meter.stage(MATERIAL):
                    walk = self._answer(request, walk)
        finally:
            if walk is not None:
                walk.stop()

    def _request(self) -> dict[str, Any]:
        self.links["client"].await_peer()
        request: dict[str, Any] = self.links["client"].receive_json()
        return request

    def _answer(self, request: dict[str, Any], walk: Walk | None) -> Walk | None:
        if request["do"] == "install":
            self._install(request["shapes"])
        elif request["do"] == "decode":
            plan = Plan(**request["plan"])
            walk = Walk(self.engine, self._source, plan, request["attempt"], self._attach)
        elif request["do"] == "go" and walk is not None:
            walk.forget(request["index"])
            self._stream(walk, request["index"])
        elif request["do"] == "again" and walk is not None:
            walk.again(request["index"], request["attempt"])
            self._stream(walk, request["index"])
        else:
            raise OutOfStep("client", self.meter.current, "a request for correlated randomness", "something else")
        return walk

    def _attach(self, put: Callable[[Item], None]) -> None:
        self._put = put

    def _install(self, shapes: dict[str, list[int]]) -> None:
        """The masks of the server's matrices, and the fixed mask of its positions."""
        for name, shape in shapes.items():
            if is_matrix(name, tuple(shape)):
                self.engine.matrices[name] = ServerMatrix(self._server_stream.words((shape[1], shape[0])))
        self._source.begin(epoch(0, 1))
        run(self.engine.install({name: tuple(shape) for name, shape in shapes.items()}, None), dealers)
        self._source.flush()

    def _stream(self, walk: Walk, index: int) -> None:
        """Sends frames until an epoch is complete."""
        while (item := walk.items.get()) != index:
            if isinstance(item, BaseException):
                raise item
            self._send(item)

    def _send(self, item: Item) -> None:
        if isinstance(item, tuple):
            self.links[item[0]].send(item[1])
