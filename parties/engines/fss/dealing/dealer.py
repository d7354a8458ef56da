"""The dealer: walks the parties' programs with shapes alone, ahead of them, and sends what they need."""

import math
import os
from collections.abc import Callable, Iterator
from typing import Any

from parties.decoding.program import run
from parties.engines.base import Shapes
from parties.engines.fss.arithmetic.matrices import ServerMatrix, is_matrix
from parties.engines.fss.arithmetic.opening import dealers
from parties.engines.fss.computation import Computation
from parties.engines.fss.dealing.dry_run import Walk
from parties.engines.fss.dealing.plan import Plan, epoch
from parties.engines.fss.dealing.receiver import MATERIAL
from parties.engines.fss.dealing.requests import MOST_NUMBERS, REQUEST_BYTES, BadRequest, checked
from parties.engines.fss.dealing.sender import WITHOUT_LIMIT, Courier
from parties.engines.fss.randomness.dcf import PERMUTATION_KEY_BYTES, Permutation
from parties.engines.fss.randomness.inbox import Outbox
from parties.engines.fss.randomness.seeds import DealersToss
from parties.engines.fss.randomness.source import DealerSource
from parties.engines.keystream import Keystream
from parties.errors import OutOfStep
from parties.metering.meter import StageMeter
from parties.models.folding import folded_shapes
from parties.models.spec import ModelSpec
from parties.transport.link import Link, await_any

_PATIENCE_S = 0.1  # how soon a failure of another thread is seen


class Dealer:
    """Serves client and server over links.

    Args:
        client, server: links.
        meter: the dealer's stage meter.
    """

    def __init__(self, client: Link, server: Link, meter: StageMeter) -> None:
        self.links, self.meter = {"client": client, "server": server}, meter
        permutation_key = os.urandom(PERMUTATION_KEY_BYTES)
        with meter.stage("setup.seeds"):
            tosses = {role: DealersToss(link) for role, link in self.links.items()}
            seeds = {role: toss.seed(permutation_key) for role, toss in tosses.items()}
        self._server_stream = Keystream(seeds["server"])
        outboxes = [Outbox(lambda frame, role=role: self._deliver(role, frame)) for role in self.links]  # type: ignore[misc]
        self._source = DealerSource(StageMeter(), Keystream(seeds["client"]), self._server_stream, *outboxes)
        self._source.permutation = Permutation(permutation_key)
        self.engine = Computation(self._source)
        self._installed: Shapes = {}
        self._walk: Walk | None = None
        self._couriers: dict[str, Courier] = {}
        self._prompted: set[str] = set()  # who has said that the prompt is through
        self._prefilled: Callable[[], None] = lambda: None

    def serve(self, prefilled: Callable[[], None] = lambda: None) -> None:
        """Answers the parties until both say that the run needs nothing more.

        Args:
            prefilled: called once the prompt is through, and accounted for, at both parties and here.

        Raises:
            BadRequest: a request that does not exist, or asks for what cannot be.
            OutOfStep: a request that does not come next.
            MaterialReused: an epoch was asked for again.
        """
        self._settle()
        self._prefilled = prefilled
        account = self.meter.background_account(MATERIAL)
        self._couriers = couriers = {role: Courier(link, account) for role, link in self.links.items()}
        self.meter.put("mpcbench_dealer_backlog_bytes", lambda: sum(c.queued_bytes for c in couriers.values()))
        try:
            for role, request in self._requests():
                with self.meter.stage(MATERIAL):
                    self._answer(role, request)
            for courier in self._couriers.values():
                courier.finish()
            self._settle()
        finally:
            for courier in self._couriers.values():
                courier.abandon()
            if self._walk is not None:
                self._walk.abandon()
            self.meter.put("mpcbench_dealer_backlog_bytes", None)

    def _settle(self) -> None:
        """Waits for the walk of an earlier cell, which draws from the same streams until it has noticed its end."""
        if self._walk is not None:
            self._walk.stop()
        self._walk = None
        self._prompted.clear()

    def _requests(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What the parties say, in the order of arrival, up to the last word of each."""
        talking = dict(self.links)
        while talking:
            for link in await_any(list(talking.values()), _PATIENCE_S):
                request = checked(link.peer, link.receive_json(at_most=REQUEST_BYTES))
                if request["do"] == "end":
                    del talking[link.peer]
                else:
                    yield link.peer, request
            for courier in self._couriers.values():
                courier.check()
            if self._walk is not None:
                self._walk.check()
                self._part_prompt(self._walk)

    def _part_prompt(self, walk: Walk) -> None:
        """Once all that the prompt took is sent, and counted at all three, what follows is accounted for apart."""
        if len(self._prompted) < len(self.links) or not walk.through:
            return
        if all(courier.idle for courier in self._couriers.values()):
            self._prompted.clear()
            self._prefilled()
            walk.prompted()

    def _answer(self, role: str, request: dict[str, Any]) -> None:
        do, walk = request["do"], self._walk
        if do == "grant":
            self._couriers[role].grant(request["upto"])
        elif do == "install" and walk is None:
            self._install(request["shapes"])
        elif do == "decode" and walk is None:
            self._decode(Plan.from_json(request["plan"]), request["attempt"])
        elif do == "go" and walk is not None:
            walk.forget(request["index"])
        elif do == "prefilled" and walk is not None:
            self._prompted.add(role)
        elif do == "again" and walk is not None:
            walk.again(request["index"], request["attempt"])
        else:
            after = "that a cell has begun" if walk is None else "that the cell has ended"
            raise OutOfStep(role, self.meter.current, after, f"the request {do}")

    def _decode(self, plan: Plan, attempt: int) -> None:
        spec = ModelSpec.from_json(plan.spec)
        if missing := [n for n, shape in folded_shapes(spec).items() if self._installed.get(n) != shape]:
            raise BadRequest("client", "plan's spec", plan.spec, f"the installed model, which has another {missing[0]}")
        self._source.comparison = plan.comparison
        if plan.offline == "stored":
            for courier in self._couriers.values():
                courier.grant(WITHOUT_LIMIT)
        self._walk = Walk(self.engine, self._source, plan, self._couriers)
        self._walk.begin(attempt)

    def _deliver(self, role: str, frame: bytes) -> None:
        if self._walk is None:
            self.links[role].send(frame)
        else:
            self._walk.put(role, frame)

    def _install(self, shapes: dict[str, list[int]]) -> None:
        """The masks of the server's matrices, and the fixed mask of its positions.

        Raises:
            BadRequest: more numbers than any model has.
            MaterialReused: a model was installed before; its masks would be dealt twice.
        """
        if (numbers := sum(map(math.prod, shapes.values()))) > MOST_NUMBERS:
            raise BadRequest("client", "install request's shapes", f"{numbers} numbers", f"at most {MOST_NUMBERS}")
        self._installed = {name: tuple(shape) for name, shape in shapes.items()}
        for name, shape in self._installed.items():
            if is_matrix(name, shape):
                self.engine.matrices[name] = ServerMatrix(self._server_stream.words((shape[1], shape[0])))
        self._source.begin(epoch(0, 1))
        run(self.engine.install(self._installed, None), dealers)
        self._source.flush()
