"""The dealer: runs the parties' programs on shapes alone, ahead of them, and sends the randomness they need."""

import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch

from parties.decoding.program import run
from parties.engines.base import Shapes
from parties.engines.fss.arithmetic.matrices import ServerMatrix, is_matrix, matrices_in
from parties.engines.fss.arithmetic.opening import dealer_openings
from parties.engines.fss.computation import Computation
from parties.engines.fss.dealing.dry_run import DryRun
from parties.engines.fss.dealing.plan import Plan, epoch
from parties.engines.fss.dealing.receiver import MATERIAL
from parties.engines.fss.dealing.requests import MOST_NUMBERS, REQUEST_BYTES, BadRequest, checked
from parties.engines.fss.dealing.sender import WITHOUT_LIMIT, Sender
from parties.engines.fss.randomness.dcf import PERMUTATION_KEY_BYTES, Permutation
from parties.engines.fss.randomness.dealer_source import DealerSource
from parties.engines.fss.randomness.frames import FrameWriter
from parties.engines.fss.randomness.seeds import DealerCoinToss
from parties.engines.fss.randomness.streams import stream_on
from parties.engines.fss.recording.warm_up import COMPILE, compile_all, compile_products
from parties.engines.fss.replay.inputs import Inputs
from parties.engines.keystream import Keystream
from parties.errors import OutOfStep
from parties.metering.meter import StageMeter
from parties.models.folding import folded_shapes
from parties.transport.link import Link, await_any

_POLL_S = 0.1  # how soon a failure of another thread is seen


class Dealer:
    """Serves client and server over links.

    Args:
        client: Link to the client.
        server: Link to the server.
        meter: The dealer's stage meter.
        device: `cpu` or `cuda`: where the masks of matrices are, and products with them are computed.
    """

    def __init__(self, client: Link, server: Link, meter: StageMeter, device: str = "cpu") -> None:
        self.links, self.meter = {"client": client, "server": server}, meter
        permutation_key = os.urandom(PERMUTATION_KEY_BYTES)
        with meter.stage(COMPILE):
            compile_all()
        with meter.stage("setup.seeds"):
            tosses = {role: DealerCoinToss(link) for role, link in self.links.items()}
            seeds = {role: toss.seed(permutation_key) for role, toss in tosses.items()}
        outboxes = [FrameWriter(lambda frame, role=role: self._deliver(role, frame)) for role in self.links]  # type: ignore[misc]
        client_stream, server_stream = (Keystream(seeds[role]) for role in self.links)
        self._source = DealerSource(StageMeter(), client_stream, server_stream, *outboxes)
        self._source.permutation = Permutation(permutation_key)
        self.engine = Computation(self._source)
        self._inputs, self._device = Inputs(), torch.device(device)
        self._masks = stream_on(self._device, seeds["server"])
        self._installed: Shapes = {}
        self._dry_run: DryRun | None = None
        self._senders: dict[str, Sender] = {}
        self._prompted: set[str] = set()  # who has reported that the prompt is through
        self._prefilled: Callable[[], None] = lambda: None
        self._policy = ""  # of the dealer's own job

    def serve(self, prefilled: Callable[[], None] = lambda: None, policy: str = "full") -> None:
        """Answers the parties until both end the cell.

        Args:
            prefilled: Called once the prompt is through and accounted for, at both parties and here.
            policy: Policy of the dealer's own job; see `Plan.from_json`.

        Raises:
            BadRequest: A request does not exist, or asks for something impossible.
            OutOfStep: A request comes out of order.
            RandomnessReused: An epoch was requested again.
        """
        self._settle()
        self._prefilled, self._policy = prefilled, policy
        account = self.meter.background_account(MATERIAL)
        self._senders = senders = {role: Sender(link, account) for role, link in self.links.items()}
        self.meter.put("mpcbench_dealer_backlog_bytes", lambda: sum(c.queued_bytes for c in senders.values()))
        try:
            for role, request in self._requests():
                with self.meter.stage(MATERIAL):
                    self._answer(role, request)
            for sender in self._senders.values():
                sender.finish()
            self._settle()
        finally:
            for sender in self._senders.values():
                sender.abandon()
            if self._dry_run is not None:
                self._dry_run.abandon()
            self.meter.put("mpcbench_dealer_backlog_bytes", None)

    def _settle(self) -> None:
        """Waits for the dry run of an earlier cell, which draws from the same streams until it has noticed its end."""
        if self._dry_run is not None:
            self._dry_run.stop()
        self._dry_run = None
        self._prompted.clear()

    def _requests(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The requests of the parties in the order of arrival, up to the last of each."""
        active = dict(self.links)
        while active:
            for link in await_any(list(active.values()), _POLL_S):
                request = checked(link.peer, link.receive_json(at_most=REQUEST_BYTES))
                if request["do"] == "end":
                    del active[link.peer]
                else:
                    yield link.peer, request
            for sender in self._senders.values():
                sender.check()
            if self._dry_run is not None:
                self._dry_run.check()
                self._part_prompt(self._dry_run)

    def _part_prompt(self, dry_run: DryRun) -> None:
        """Once the prompt's randomness is sent and counted at all three, decoding is accounted for separately."""
        if len(self._prompted) < len(self.links) or not dry_run.through:
            return
        if all(sender.idle for sender in self._senders.values()):
            self._prompted.clear()
            self._prefilled()
            dry_run.prompted()

    def _answer(self, role: str, request: dict[str, Any]) -> None:
        do, dry_run = request["do"], self._dry_run
        if do == "credit":
            self._senders[role].credit(request["upto"])
        elif do == "install" and dry_run is None:
            self._install(request["shapes"])
        elif do == "decode" and dry_run is None:
            self._decode(Plan.from_json(request["plan"], self._policy), request["attempt"])
        elif do == "go" and dry_run is not None:
            dry_run.forget(request["index"])
        elif do == "accepted" and dry_run is not None:
            dry_run.accepted(request["index"], request["tokens"])
        elif do == "prefilled" and dry_run is not None:
            self._prompted.add(role)
        elif do == "again" and dry_run is not None:
            dry_run.again(request["index"], request["attempt"])
        else:
            after = "that a cell has begun" if dry_run is None else "that the cell has ended"
            raise OutOfStep(role, self.meter.current, after, f"the request {do}")

    def _decode(self, plan: Plan, attempt: int) -> None:
        spec, options = plan.workload.spec, plan.workload.options
        if missing := [n for n, shape in folded_shapes(spec).items() if self._installed.get(n) != shape]:
            raise BadRequest(
                "client", "plan's spec", spec.to_json(), f"the installed model, which has another {missing[0]}"
            )
        self.engine.configure(options)
        if options.offline == "stored":
            for sender in self._senders.values():
                sender.credit(WITHOUT_LIMIT)
        self._dry_run = DryRun(self.engine, self._source, plan, self._senders, self._inputs)
        self._dry_run.begin(attempt)

    def _deliver(self, role: str, frame: bytes) -> None:
        if self._dry_run is None:
            self.links[role].send(frame)
        else:
            self._dry_run.put(role, frame)

    def _install(self, shapes: dict[str, list[int]]) -> None:
        """The masks of the server's matrices, and the fixed mask of its positions.

        Raises:
            BadRequest: There are more numbers than any model has.
            RandomnessReused: A model was installed before; its masks would be dealt twice.
        """
        if (numbers := sum(map(math.prod, shapes.values()))) > MOST_NUMBERS:
            raise BadRequest("client", "install request's shapes", f"{numbers} numbers", f"at most {MOST_NUMBERS}")
        self._installed = {name: tuple(shape) for name, shape in shapes.items()}
        with self.meter.stage(COMPILE):
            compile_products(self._device, [s[0] for name, s in self._installed.items() if is_matrix(name, s)])
        for name, shape in matrices_in(self._installed, self.meter):
            self.engine.matrices[name] = ServerMatrix(self._masks.words((shape[1], shape[0])))
        self._source.begin(epoch(0, 1))
        run(self.engine.install(self._installed, None), dealer_openings)
        self._source.flush()
