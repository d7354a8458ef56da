"""The worker, seen from its party: a child process that ends with it, and what its links carried."""

import math
import os
import select
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parties.engines.spu import environment
from parties.engines.spu.values import Graph, SpuValue
from parties.engines.spu.worker import wire
from parties.errors import PeerLost, WorkerFailed
from parties.metering.meter import StageMeter
from parties.metering.readings import Counts
from parties.transport.frame import tensor_bytes
from parties.transport.mesh import Mesh

_WORKER = Path(__file__).parent / "worker"


class Worker:
    """One rank of SPU.

    Args:
        roles: The computing parties in the order of their ranks.
        role: This party's role.
        options: Protocol, field and fraction bits, as plain values.
        mesh: The party's links; the worker takes over its data port, and dials the peers where they were dialled.
        meter: Counts what SPU's links carry.
    """

    def __init__(
        self, roles: Sequence[str], role: str, options: Mapping[str, Any], mesh: Mesh, meter: StageMeter
    ) -> None:
        self._roles, self._mesh, self._meter = roles, mesh, meter
        self._programs: dict[str, str] = {}
        self._named = 0
        self._freed: list[str] = []
        self._sock, theirs = socket.socketpair()
        command = [str(environment.python()), "-I", str(_WORKER), str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=_variables()
            )
        own, peers = mesh.hand_over_port()
        addresses = {**peers, role: own}
        given = {
            **options,
            "rank": roles.index(role),
            "addresses": ["{}:{}".format(*addresses[name]) for name in roles],
            "timeout_s": mesh[next(name for name in roles if name != role)].timeout_s,
        }
        self.version: str = self._ask("open", given)[0]["version"]

    def put(self, parts: Iterable[Tensor], shape: Sequence[int]) -> SpuValue:
        """A secret value from this party's share of it, which comes in parts of some rows each."""
        value, start = SpuValue(shape), 0
        whole = 8 * math.prod(shape) * (2 if len(self._roles) > 2 else 1)
        value.become(self._name(), self._freed.append)
        for part in parts:
            self._ask("add", {"bytes": whole, "start": start}, [tensor_bytes(part)])
            start += part.nbytes
        self._ask("put", {"name": value.name, "shape": list(shape)})
        return value

    def get(self, value: SpuValue) -> Tensor:
        """This party's share of a value, int64; in ABY3 with a last axis of length 2.

        A public zero is added, since the result of a comparison may be in Boolean shares, which have no sum.
        """
        value = value + SpuValue.constant(torch.zeros(value.shape))
        self.compute([value])
        _, (octets,) = self._ask("get", {"name": value.name})
        share = torch.frombuffer(octets, dtype=torch.int64)
        return share.reshape(*value.shape, 2) if len(self._roles) > 2 else share.reshape(value.shape)

    def compute(self, values: Sequence[SpuValue]) -> None:
        """Makes variables of pending values, in one program; compiles it if it is new."""
        graph = Graph([value for value in values if value.pending])
        if not graph.nodes:
            return
        text = str(graph)
        if text not in self._programs:
            self._programs[text] = f"program{len(self._programs)}"
            with self._meter.stage("setup.compile"):
                self._ask("compile", {"program": self._programs[text], "graph": text})
        constants = [value.public for value in graph.inputs if value.public is not None]
        names = [self._name() for _ in graph.outputs]
        given = {
            "program": self._programs[text],
            "inputs": [value.name or None for value in graph.inputs],
            "outputs": names,
            "shapes": [list(constant.shape) for constant in constants],
        }
        answer, _ = self._ask("run", given, [tensor_bytes(constant) for constant in constants])
        for value, name in zip(graph.outputs, names, strict=True):
            value.become(name, self._freed.append)
        self._count(answer)

    def _count(self, answer: Mapping[str, Any]) -> None:
        """Adds what a program's links carried to the current stage.

        SPU counts messages of all peers together, so they are divided among them; a message is half a round.
        """
        messages = answer["sent"] + answer["received"]
        carried = {self._roles[int(rank)]: counts for rank, counts in answer["carried"].items()}
        for peer, (sent, received) in carried.items():
            counts = Counts(
                sent_bytes=sent,
                received_bytes=received,
                messages=messages // len(carried),
                rounds=messages / 2 / len(carried),
            )
            self._meter.count_background(self._meter.current, peer, counts)

    def _name(self) -> str:
        self._named += 1
        return f"v{self._named}"

    def _ask(
        self, command: str, given: Mapping[str, Any], blobs: Sequence[memoryview] = ()
    ) -> tuple[dict[str, Any], list[bytearray]]:
        """The worker's answer to a command.

        Raises:
            PeerLost: A peer's link closed meanwhile.
            WorkerFailed: The worker failed or ended.
        """
        dropped = self._freed[:]
        del self._freed[: len(dropped)]
        try:
            wire.send(self._sock, {**given, "command": command, "drop": dropped}, blobs)
            self._await_answer()
            answer, parts = wire.receive(self._sock)
        except wire.Closed:
            raise WorkerFailed(command, f"the worker has ended with status {self._process.wait()}") from None
        if "error" in answer:
            self._check_peers()
            raise WorkerFailed(command, answer["error"])
        return answer, parts

    def _await_answer(self) -> None:
        """Waits for the worker; a peer that goes is noticed here, since SPU would only notice its time-out."""
        while not _readable(self._sock.fileno(), 1.0):
            self._check_peers()

    def _check_peers(self) -> None:
        for peer in self._roles:
            if peer in self._mesh and _hung_up(self._mesh[peer].fileno):
                link = self._mesh[peer]
                raise PeerLost(peer, self._meter.current, link.sent_bytes, link.received_bytes)

    def close(self) -> None:
        """Ends the worker, which frees the data port."""
        self._sock.close()
        self._process.wait()

    def __del__(self) -> None:
        if not self._sock._closed:  # type: ignore[attr-defined]  # noqa: SLF001
            self.close()


def _variables() -> dict[str, str]:
    """The worker's environment: nothing of the party's Python, and threads as the party has them."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return {**kept, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": str(torch.get_num_threads())}


def _readable(descriptor: int, timeout_s: float) -> bool:
    return bool(select.select([descriptor], [], [], timeout_s)[0])


def _hung_up(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    return bool(poll.poll(0))
