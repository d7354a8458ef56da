"""The dealer's part of a cell: correlated randomness for the two computing parties, from public numbers."""

from typing import Any

from parties.decoding.prefill import protocol
from parties.engines.factory import Dealer, make_dealer
from parties.metering.meter import StageMeter
from parties.metering.progress import Progress
from parties.roles.client_and_server import ComputingParty
from parties.roles.job import Job
from parties.roles.reports import PromptReport, RoleResult
from parties.transport.mesh import Mesh


class DealingParty:
    """Serves an engine's dealer until the client needs nothing more, or computes as a protocol's third party."""

    def __init__(self, mesh: Mesh, meter: StageMeter, state: Progress) -> None:
        self.mesh, self.meter, self.state = mesh, meter, state
        self._dealer: tuple[tuple[Any, ...], Dealer] | None = None
        self._third = ComputingParty("dealer", mesh, meter, state)

    def run(self, job: Job) -> RoleResult:
        """One cell."""
        if "dealer" in job.computing:
            return self._third.run(job)
        self.state.enter("loading")
        wanted = job.session
        if self._dealer is None or self._dealer[0] != wanted:
            device = job.device_if_any
            self._dealer = (wanted, make_dealer(job.engine, self.mesh, self.meter, job.randomness, device))
        prompt: PromptReport | None = None

        def prefilled() -> None:
            nonlocal prompt
            prompt = PromptReport(seconds=0.0, stages=protocol(self.meter.snapshot()))
            self.state.enter("decode")

        self.state.enter("prefill" if job.options.prefill == "mpc" else "decode")
        self._dealer[1].serve(prefilled, job.policy.name)
        return RoleResult(tokens=job.new_tokens, prefill=prompt)
