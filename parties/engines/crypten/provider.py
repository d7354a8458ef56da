"""CrypTen's trusted third party over our link: the dealer.

The protocol is CrypTen's (`crypten.mpc.provider.ttp_provider`): client and server each share a seed with the dealer and
draw their shares from it; the client requests the corrections that make the shares a triple. Requests are JSON objects
of shapes and an operation from a fixed list; nothing is pickled. For the generator see
`parties.engines.crypten.randomness`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from parties.engines import Randomness
from parties.engines.crypten import compat  # noqa: F401 - must come before crypten
from parties.engines.crypten.randomness import Generator, dealt_seed, generator_of
from parties.errors import OutOfStep
from parties.metering.meter import StageMeter
from parties.transport.link import Link

from crypten.mpc.provider import ttp_provider  # isort: skip

FUNCTIONS = frozenset({"additive", "square", "binary", "B2A"})
OPERATIONS = frozenset({"mul", "matmul"})


class DealerClient:
    """Replaces the `TTPClient` of CrypTen's provider; requests correlated randomness from the dealer.

    Args:
        dealer: Link to the dealer.
        meter: The party's stage meter.
    """

    def __init__(self, dealer: Link, meter: StageMeter) -> None:
        self.dealer, self.meter = dealer, meter
        self.generator = generator_of(dealer.receive_json()["seed"])

    def activate(self) -> None:
        """Installs this client for CrypTen's provider in this process."""
        ttp_provider.TTPClient.get = staticmethod(lambda: self)

    def get_generator(self, device: Any = None) -> Generator:  # noqa: ARG002 - shares are drawn on the CPU
        """The generator that this party shares with the dealer."""
        return self.generator

    def ttp_request(self, function: str, device: Any, *arguments: Any) -> Tensor:  # noqa: ARG002
        """Requests the correction of one correlation; called at the client only."""
        with self.meter.stage("offline.triples"):
            plain = [list(a) if isinstance(a, torch.Size) else a for a in arguments]
            self.dealer.send_json({"function": function, "arguments": plain})
            return self.dealer.receive_tensor(self.dealer.receive_json()["shape"], torch.int64)

    def prefilled(self) -> None:
        """Notifies the dealer that the prompt is complete."""
        self.dealer.send_json({"function": "prefilled"})

    def finish(self) -> None:
        """Notifies the dealer that this run has ended."""
        self.dealer.send_json({"function": "end"})


class Dealer(ttp_provider.TTPServer):  # type: ignore[misc]
    """The dealer's side: answers the client until its request `end`. Sees shapes, never a share.

    Args:
        client: Link to the client.
        server: Link to the server.
        meter: The dealer's stage meter.
        randomness: The generator of the shares; the parties must use the same.
    """

    def __init__(self, client: Link, server: Link, meter: StageMeter, randomness: Randomness = "private") -> None:
        self.client, self.meter = client, meter
        self.device = "cpu"
        seeds = [dealt_seed(randomness), dealt_seed(randomness)]
        for link, shared in zip((client, server), seeds, strict=True):
            link.send_json({"seed": shared})
        self.generators = [generator_of(shared) for shared in seeds]

    def serve(self, prefilled: Callable[[], None] = lambda: None, policy: str = "full") -> None:  # noqa: ARG002
        """Answers requests until the run ends.

        Args:
            prefilled: Called when the client has completed the prompt.
            policy: Ignored: it makes no difference to the requests.

        Raises:
            OutOfStep: A request is not in the fixed list.
        """
        while (request := self._next_request())["function"] != "end":
            if request["function"] == "prefilled":
                prefilled()
                continue
            with self.meter.stage("offline.triples"):
                correction = self._correct(request)
                self.client.send_json({"shape": list(correction.shape)})
                self.client.send_tensor(correction)

    def _next_request(self) -> dict[str, Any]:
        self.client.await_peer()
        request: dict[str, Any] = self.client.receive_json()
        return request

    def _correct(self, request: dict[str, Any]) -> Tensor:
        function, arguments = request["function"], request["arguments"]
        sizes = [torch.Size(a) if isinstance(a, list) else a for a in arguments]
        if function not in FUNCTIONS or any(a not in OPERATIONS for a in sizes if isinstance(a, str)):
            raise OutOfStep("client", self.meter.current, "a request for correlated randomness", "an unknown request")
        correction: Tensor = getattr(self, function)(*sizes)
        return correction
