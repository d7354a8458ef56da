"""Set-up of a model with `fss`: seconds of loading it, and of masking and sending the server's matrices.

    python benchmarks/fss_set_up.py [random:smollm2-135m] [--threads 1]
    python benchmarks/fss_set_up.py "random:llama-2-7b?layers=16" --gpus 0 0 0 --threads 8

Client, server and dealer are processes that are connected over loopback. Kernels are compiled before the clock starts,
but for the products, which the first time on a machine take some ten seconds.
"""

import argparse
import multiprocessing
import os
import secrets
import time
from multiprocessing.connection import Connection
from typing import Any

import torch

from parties.decoding.program import run
from parties.engines.fss.dealing.dealer import Dealer
from parties.engines.fss.engine import FssEngine
from parties.metering.meter import StageMeter
from parties.metering.process import peak_resident_bytes
from parties.models import load_spec, load_weights
from parties.models.folding import Folded, folded_shapes
from parties.transport.mesh import Listener, Mesh, connect

ROLES = ("client", "server", "dealer")


def main() -> None:
    given = parse()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["parties.engines.fss.engine", "parties.engines.fss.dealing.dealer"])  # imports once
    listeners = {role: Listener("127.0.0.1", 0) for role in ROLES}
    addresses, session = {role: listener.address for role, listener in listeners.items()}, secrets.token_hex(8)
    pipes: dict[str, Connection] = {}
    processes = []
    for role in ROLES:
        pipes[role], theirs = context.Pipe()
        arguments = (role, listeners[role].socket, addresses, session, theirs, given)
        processes.append(context.Process(target=party, args=arguments))
        processes[-1].start()
        listeners[role].close()
        theirs.close()
    print("| role | s of loading | s of masking and sending | GB to the client | GB resident at most |")
    print("|---|---|---|---|---|")
    for role in ROLES:
        loading, sending, size, resident = pipes[role].recv()
        print(f"| {role} | {loading:.1f} | {sending:.1f} | {size / 1e9:.2f} | {resident / 1e9:.1f} |", flush=True)
    for process in processes:
        process.join()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Seconds of a model's set-up.")
    parser.add_argument("model", nargs="?", default="random:smollm2-135m")
    parser.add_argument("--gpus", nargs=3, metavar=("CLIENT", "SERVER", "DEALER"), help="numbers of GPUs; else CPUs")
    parser.add_argument("--threads", type=int, default=1, help="of each party")
    return parser.parse_args()


def party(role: str, sock: Any, addresses: Any, session: str, pipe: Connection, given: argparse.Namespace) -> None:
    """Sends seconds of loading and of the rest, the bytes of the matrices, and the most memory that was used."""
    if given.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = given.gpus[ROLES.index(role)]
    torch.set_num_threads(given.threads)
    listener, meter = Listener.__new__(Listener), StageMeter()
    listener.socket = sock
    device = "cuda" if given.gpus else "cpu"
    with connect(role, listener, addresses, session, meter, 600.0) as mesh:
        if role == "dealer":
            dealer = Dealer(mesh["client"], mesh["server"], meter, device)
            start = time.perf_counter()
            dealer.serve()
            found = (0.0, time.perf_counter() - start, 0)
        else:
            found = installed(role, mesh, meter, device, given.model)
    pipe.send((*found, peak_resident_bytes()))


def installed(role: str, mesh: Mesh, meter: StageMeter, device: str, model: str) -> tuple[float, float, int]:
    """Installs the model; the client waits while the server loads it, which is not counted."""
    engine, spec = FssEngine(role, mesh, meter, device), load_spec(model)
    start = time.perf_counter()
    weights = Folded(spec, load_weights(model)) if role == "server" else None
    engine.peer.exchange(b"")
    loaded = time.perf_counter()
    run(engine.install(folded_shapes(spec), weights), engine.exchange)
    if device == "cuda":
        torch.cuda.synchronize()
    end = time.perf_counter()
    engine.finish()
    engine.dealer.receive(at_most=0)
    size = sum(matrix.transposed.nbytes for matrix in engine.matrices.values())
    return loaded - start, end - loaded, size


if __name__ == "__main__":
    main()
