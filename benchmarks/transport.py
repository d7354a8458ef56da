"""CrypTen's transport, gloo, beside ours: seconds to open tensors of several sizes between two processes on loopback.

    python benchmarks/transport.py [--rounds 200]

The two are timed in turns in the same pair of processes; the ratio is what to quote.
"""

import argparse
import multiprocessing
import statistics
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from parties.mesh import Listener, connect
from parties.meter import StageMeter

SIZES = (1, 1_000, 100_000, 3_000_000)  # elements of 8 bytes


def party(rank: int, listener: Any, addresses: dict[str, tuple[str, int]], rounds: int) -> None:
    """Opens each size in turns over both transports; rank 0 prints."""
    torch.set_num_threads(1)
    role = ("client", "server")[rank]
    mesh = connect(role, listener, addresses, "transport", StageMeter(), 30.0)
    link = mesh["server" if rank == 0 else "client"]
    store = "tcp://{}:{}".format(addresses["server"][0], addresses["server"][1] + 1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=timedelta(seconds=30))
    for size in SIZES:
        tensor = torch.arange(size)
        seconds: dict[str, list[float]] = {"link": [], "gloo": []}
        for _ in range(max(5, min(rounds, 20_000_000 // size))):
            start = time.perf_counter()
            link.exchange_tensor(tensor).add_(tensor)
            middle = time.perf_counter()
            dist.all_reduce(tensor.clone())
            seconds["link"].append(middle - start)
            seconds["gloo"].append(time.perf_counter() - middle)
        if rank == 0:
            ours, theirs = (statistics.median(seconds[name]) for name in ("link", "gloo"))
            both = f"link {ours * 1e6:9.1f} us, gloo {theirs * 1e6:9.1f} us"
            print(f"{size:>9} elements: {both}, ratio {ours / theirs:.2f}")
    dist.destroy_process_group()
    mesh.close()


def main() -> None:
    """Starts both processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    context = multiprocessing.get_context("fork")
    listeners = [Listener("127.0.0.1") for _ in range(2)]
    addresses = dict(zip(("client", "server"), (listener.address for listener in listeners), strict=True))
    processes = [context.Process(target=party, args=(rank, listeners[rank], addresses, rounds)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
