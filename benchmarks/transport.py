"""CrypTen's transport gloo against ours, plain and with TLS: time to open tensors of several sizes on loopback.

    python benchmarks/transport.py [--rounds 200]

All are timed alternately in the same pair of processes; quote the ratios.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from parties.metering.meter import StageMeter
from parties.transport.mesh import Listener, connect
from parties.transport.tls import Authority, Identity

ROLES = ("client", "server")
SIZES = (1, 1_000, 100_000, 3_000_000)  # elements of 8 bytes


def party(rank: int, listener: Any, addresses: dict[str, tuple[str, int]], rounds: int, identity: Identity) -> None:
    """Opens tensors of each size alternately over all transports; rank 0 prints."""
    torch.set_num_threads(1)
    role, peer = ROLES[rank], ROLES[1 - rank]
    plain = connect(role, listener, addresses, "transport", StageMeter(), 30.0)
    plain[peer].exchange(b"")
    start = time.perf_counter()
    secured = connect(role, listener, addresses, "secured", StageMeter(), 30.0, identity)
    if rank == 0:
        print(f"rendezvous with TLS: {(time.perf_counter() - start) * 1e3:.1f} ms")
    store = "tcp://{}:{}".format(addresses["server"][0], addresses["server"][1] + 1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=timedelta(seconds=30))
    for size in SIZES:
        tensor = torch.arange(size)
        opened: dict[str, Callable[[], Any]] = {
            "link": lambda tensor=tensor: plain[peer].exchange_tensor(tensor).add_(tensor),
            "tls": lambda tensor=tensor: secured[peer].exchange_tensor(tensor).add_(tensor),
            "gloo": lambda tensor=tensor: dist.all_reduce(tensor.clone()),
        }
        seconds: dict[str, list[float]] = {name: [] for name in opened}
        for _ in range(max(5, min(rounds, 20_000_000 // size))):
            for name, work in opened.items():
                start = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - start)
        if rank == 0:
            took = {name: statistics.median(times) for name, times in seconds.items()}
            each = ", ".join(f"{name} {value * 1e6:9.1f} us" for name, value in took.items())
            ratios = f"link / gloo {took['link'] / took['gloo']:.2f}, tls / link {took['tls'] / took['link']:.2f}"
            print(f"{size:>9} elements: {each}; {ratios}")
    dist.destroy_process_group()
    secured.close()
    plain.close()


def main() -> None:
    """Starts both processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    context = multiprocessing.get_context("fork")
    listeners = [Listener("127.0.0.1") for _ in range(2)]
    addresses = dict(zip(ROLES, (listener.address for listener in listeners), strict=True))
    authority, identities = Authority(), [Identity() for _ in ROLES]
    for role, identity in zip(ROLES, identities, strict=True):
        identity.certify(authority.sign(role, identity.request()), authority.certificate)
    processes = [
        context.Process(target=party, args=(rank, listeners[rank], addresses, rounds, identities[rank]))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
