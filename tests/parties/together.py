"""Runs several parties as real processes that talk over loopback, and brings their results back."""

import multiprocessing
import pickle
import secrets
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from parties.mesh import Listener, Mesh, connect
from parties.meter import StageMeter

Part = Callable[[str, Mesh, StageMeter], Any]

PRELOAD = ["torch", "transformers", "parties.party", "parties.engines.crypten.engine"]


def together(part: Part, *arguments: Any, roles: tuple[str, ...] = ("client", "server", "dealer")) -> dict[str, Any]:
    """Calls `part(role, mesh, meter, *arguments)` in one process a role; returns what each returned.

    Raises:
        AssertionError: a party failed; the message is its traceback.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    listeners = {role: Listener("127.0.0.1") for role in roles}
    addresses = {role: listener.address for role, listener in listeners.items()}
    session = secrets.token_hex(8)
    pipes, processes = {}, []
    for role in roles:
        pipes[role], theirs = context.Pipe()
        process = context.Process(
            target=_run, args=(part, role, listeners[role].socket, addresses, session, theirs, arguments)
        )
        process.start()
        theirs.close()
        processes.append(process)
        listeners[role].close()
    try:
        outcomes = {role: pickle.loads(pipe.recv_bytes()) for role, pipe in pipes.items()}  # noqa: S301 - our own child
    finally:
        for process in processes:
            process.join(10)
            process.kill()
        for pipe in pipes.values():
            pipe.close()
    failures = [f"{role}:\n{text}" for role, (ok, text) in outcomes.items() if not ok]
    assert not failures, "\n".join(failures)
    return {role: result for role, (_, result) in outcomes.items()}


def _run(
    part: Part, role: str, sock: Any, addresses: Any, session: str, pipe: Connection, arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    listener = Listener.__new__(Listener)
    listener.socket = sock
    meter = StageMeter()
    try:
        with connect(role, listener, addresses, session, meter, 60.0) as mesh:
            pipe.send_bytes(pickle.dumps((True, part(role, mesh, meter, *arguments))))
    except BaseException:  # noqa: BLE001 - the parent shows it
        pipe.send_bytes(pickle.dumps((False, traceback.format_exc())))
    finally:
        listener.close()
        pipe.close()
