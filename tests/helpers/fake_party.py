"""A party without cryptography: real links, a real process, and faults on request.

The name of the prompt file names the fault: `FAULT-ROLE-STATE`, for instance `sigkill-server-decode`. A fault happens
in that role's process when it has reached that state; `none` runs through, `second` hangs from seq_len 17 on, and with
`alone` only the bench can notice that the party has stopped.
"""

import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import psutil

from parties.errors import OutOfRange, PartyError, PromptError
from parties.metering.meter import StageMeter
from parties.roles.reports import PartyProgress, PartyResult
from parties.transport.mesh import Listener, Mesh, connect
from parties.transport.tls import Identity
from tests.helpers.metering import totals
from tests.helpers.waiting import eventually

STATES = ("loading", "prefill", "decode", "check")
STEPS = 4
REACHED = ".reached"  # added to the prompt's name: the file that marks that the fault has been reached


class FakeParty:
    """The interface of `parties.roles.party.Party`."""

    def __init__(self, role: str, host: str, session: str, port: int = 0, timeout_s: float = 60.0) -> None:
        self.role, self.session, self.timeout_s = role, session, timeout_s
        self.meter = StageMeter()
        self.listener, self.exporter = Listener(host, port), Listener(host)
        self.address, self.metrics_address = self.listener.address, self.exporter.address
        self.mesh: Mesh | None = None
        self.state, self.tokens, self.looks = "idle", 0, 0

    def connect(self, addresses: dict[str, tuple[str, int]], identity: Identity | None = None) -> None:
        if self.mesh is not None:
            self.mesh.renew(addresses)
            return
        self.mesh = connect(self.role, self.listener, addresses, self.session, self.meter, self.timeout_s, identity)

    def run(self, job: dict[str, Any]) -> PartyResult:
        assert self.mesh is not None
        prompt = Path(job["prompt"]["text_file"])
        fault, role, state = f"{prompt.name}--".split("-")[:3]
        alone = fault == "alone"  # like the parties that are idle in `plain`
        self.meter.reset()
        self.tokens = 0
        started = time.monotonic()
        for self.state in STATES:
            with self.meter.stage("softmax" if self.state == "decode" else f"bench.{self.state}"):
                for _ in range(STEPS):
                    for peer in () if alone else self.mesh.values():
                        peer.exchange(b"x" * 100)
                    time.sleep(0.05)
                if self.role == role and self.state == state:
                    self.inject_fault(
                        fault if fault != "second" else "none" if job["seq_len"] == 16 else "sleep", prompt
                    )
            self.tokens += self.state == "decode"
        self.state = "idle"
        result = {
            "role": self.role,
            "tokens": self.tokens,
            "decode_seconds": time.monotonic() - started,
            "stages": list(self.meter.snapshot()),
            "peak_rss_bytes": 1,
            "gpu_peak_bytes": None,
            "interface_sent_bytes": 0,
            "interface_received_bytes": 0,
            "versions": {"python": "3"},
            "warnings": [],
        }
        return PartyResult.model_validate(result | self.extras(job))

    def inject_fault(self, fault: str, prompt: Path) -> None:
        """Fails once the driver has polled twice, and so knows the state; leaves a file for the test first."""
        if fault == "none":
            return
        known = self.looks + 2
        eventually(lambda: self.looks >= known, 10.0)  # there may be no driver
        prompt.with_name(f"{prompt.name}{REACHED}").touch()
        fail(fault)

    def extras(self, job: dict[str, Any]) -> dict[str, Any]:
        if self.role == "referee":
            check = {"max_abs_logit_error": 0.001, "median_abs_logit_error": 0.0005}
            return {"check": {**check, "tokens_match": True, "tokens_compared": self.tokens}}
        return {"text": "a word"} if self.role == "client" and job.get("show_text") else {}

    def progress(self) -> PartyProgress:
        self.looks += 1
        online = totals(self.meter, "online")
        return PartyProgress(
            role=self.role,
            state=self.state,
            stage=self.meter.current,
            tokens=self.tokens,
            sent_bytes=online.sent_bytes,
            received_bytes=online.received_bytes,
            rounds=online.rounds,
            blocked_seconds=online.blocked_seconds,
            rss_bytes=1,
        )

    def close(self) -> None:
        self.state = "closed"
        if self.mesh is not None:
            self.mesh.close()
        self.listener.close()
        self.exporter.close()


def fail(fault: str) -> None:
    if fault == "sigkill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault in ("sigstop", "alone"):
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fault in ("sleep", "pause"):
        time.sleep(600 if fault == "sleep" else 1)
    elif fault == "range":
        number = {"number": "mean square", "low": 0.0, "high": 1.0, "kind": "certain", "value": 2.0}
        raise OutOfRange("fss", "mean square of layer 3 is 2", {**number, "layer": 3, "token": 1})
    elif fault == "hog":
        import torch  # only here: a fake party is to start quickly

        in_use = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**26, resource.RLIM_INFINITY))
        torch.empty(2**33, dtype=torch.uint8)
    elif fault == "eat":
        held = []
        while True:
            held.append(b"x" * 2**26)  # written, so that it is taken
    elif fault == "partyerror":
        raise PartyError("the party said no")
    elif fault == "prompterror":
        raise PromptError("prompt.text_file: the prompt is too short")
    elif fault == "bug":
        raise KeyError("secret token orange-otter")
