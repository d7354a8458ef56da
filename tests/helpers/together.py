"""Runs several parties as real processes that are connected over loopback, and returns their results."""

import multiprocessing
import pickle
import random
import secrets
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import torch
from omegaconf import OmegaConf

from parties.engines.crypten import randomness
from parties.metering.meter import StageMeter
from parties.transport.mesh import Listener, connect
from tests.helpers.waiting import PATIENCE_S

import crypten  # isort: skip - after what makes it importable
from crypten.config import cfg  # isort: skip

Part = Callable[..., Any]  # takes a role, its mesh, its meter and arguments

ENDING_S = 3.0  # for a process that has sent its result
PRELOAD = ["tests.helpers.preloaded"]


def together(part: Part, *arguments: Any, roles: tuple[str, ...] = ("client", "server", "dealer")) -> dict[str, Any]:
    """Calls `part(role, mesh, meter, *arguments)` in one process per role; returns the results.

    Raises:
        AssertionError: A party failed; the message is its traceback.
    """
    with start(part, *arguments, roles=roles) as (pipes, _):
        outcomes = {role: pickle.loads(pipe.recv_bytes()) for role, pipe in pipes.items()}  # noqa: S301 - our own child
    failures = [f"{role}:\n{text}" for role, (ok, text) in outcomes.items() if not ok]
    assert not failures, "\n".join(failures)
    return {role: result for role, (_, result) in outcomes.items()}


@contextmanager
def start(
    part: Part, *arguments: Any, roles: tuple[str, ...], timeout_s: float = PATIENCE_S
) -> Iterator[tuple[dict[str, Connection], dict[str, Any]]]:
    """Starts the processes of `together`; gives a pipe and a process for each role, and ends them all."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    listeners = {role: Listener("127.0.0.1") for role in roles}
    addresses = {role: listener.address for role, listener in listeners.items()}
    session = secrets.token_hex(8)
    pipes: dict[str, Connection] = {}
    processes: dict[str, Any] = {}
    for role in roles:
        pipes[role], theirs = context.Pipe()
        process = context.Process(
            target=_run, args=(part, role, listeners[role].socket, addresses, session, theirs, arguments, timeout_s)
        )
        process.start()
        theirs.close()
        processes[role] = process
        listeners[role].close()
    try:
        yield pipes, processes
    finally:
        for process in processes.values():
            process.join(ENDING_S)
            process.kill()
            process.join()
        for pipe in pipes.values():
            pipe.close()


def _run(
    part: Part,
    role: str,
    sock: Any,
    addresses: Any,
    session: str,
    pipe: Connection,
    arguments: tuple[Any, ...],
    timeout_s: float,
) -> None:
    torch.set_num_threads(1)
    repeat_crypten(role)
    hasten_crypten()
    listener = Listener.__new__(Listener)
    listener.socket = sock
    meter = StageMeter()
    try:
        with connect(role, listener, addresses, session, meter, timeout_s) as mesh:
            pipe.send_bytes(pickle.dumps((True, part(role, mesh, meter, *arguments))))
    except BaseException:  # noqa: BLE001 - the parent shows it
        pipe.send_bytes(pickle.dumps((False, traceback.format_exc())))
    finally:
        listener.close()
        pipe.close()


def repeat_crypten(role: str) -> None:
    """Makes CrypTen in this process draw the same numbers at every run.

    Its local truncation is wrong with probability |x| / 2^32 for each product, which is one run of a whole model in
    some hundred: a finding about the baseline, which tests of the engine's results must not depend on.
    """
    chance = random.Random(role)
    for module in (randomness, crypten):
        vars(module)["os"] = SimpleNamespace(urandom=chance.randbytes)
    vars(randomness)["seed"] = lambda: chance.getrandbits(62)


def hasten_crypten() -> None:
    """Removes most of the cost of CrypTen's settings in this process, and changes nothing else.

    They are a parsed YAML file, in which CrypTen looks up at every access to an attribute of a tensor whether to
    validate, and for every new tensor its precision: most of a party's time on a tiny model.
    """
    sections: Any = OmegaConf.to_container(cfg.config)
    for section, values in sections.items():
        object.__setattr__(cfg, section, SimpleNamespace(**values))
    kind = type(cfg)
    if "__getattribute__" in vars(kind):
        del kind.__getattribute__
    kind.temp_override = _overridden


@contextmanager
def _overridden(settings: Any, changes: dict[str, Any]) -> Iterator[None]:
    """CrypTen's `temp_override` of settings that are plain objects."""
    places = [(getattr(settings, section), name) for section, _, name in (key.partition(".") for key in changes)]
    before = [getattr(section, name) for section, name in places]
    for (section, name), value in zip(places, changes.values(), strict=True):
        setattr(section, name, value)
    try:
        yield
    finally:
        for (section, name), value in zip(places, before, strict=True):
            setattr(section, name, value)
