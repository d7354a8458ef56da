"""The server's matrices on their way to the client: W - b, one matrix sent while the next one is encoded and masked.

On a GPU the masks are expanded and subtracted there, and what crosses to the host does so through pinned memory that is
used again and again: two matrices at the server, of which one is sent, and one at the client.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from parties.engines.base import Shapes
from parties.engines.fss.arithmetic.matrices import encoded, is_matrix, matrices_in
from parties.engines.fss.randomness.streams import Stream
from parties.metering.meter import StageMeter
from parties.transport.link import Link

T = TypeVar("T")
_CHUNK = 1 << 22  # elements that are masked at once on a GPU, which can be almost full


def sent(
    link: Link, shapes: Shapes, meter: StageMeter, weights: Mapping[str, Tensor], masks: Stream, device: torch.device
) -> Iterator[tuple[str, Tensor]]:
    """Sends all matrices, masked, one in each message; yields their names and W: [out, in], int64, on the device.

    Args:
        link: Link to the client.
        shapes: Names and shapes of all parameters.
        meter: Shows the share that is sent.
        weights: The parameters; each matrix is read once, in the order of `shapes`, in a thread.
        masks: Where the masks come from.
        device: Where W stays.
    """
    names = [name for name, shape in shapes.items() if is_matrix(name, shape)]
    rooms = _rooms(shapes, device, 2)

    def made(index: int) -> tuple[Tensor, Tensor]:
        plain = encoded(weights[names[index]], device)
        return plain, masked(plain, masks, rooms[index % 2] if rooms else None)

    for (name, _), (plain, hidden) in zip(matrices_in(shapes, meter), ahead(made, len(names)), strict=True):
        link.send_tensor(hidden)
        yield name, plain
    _free(rooms)


def received(link: Link, shapes: Shapes, meter: StageMeter, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """Receives all matrices; yields their names and W - b: [out, in], int64, on the device. See `sent`."""
    rooms = _rooms(shapes, device, 1)
    for name, (inner, outer) in matrices_in(shapes, meter):
        link.await_peer()
        if not rooms:
            yield name, link.receive_tensor((outer, inner), torch.int64)
            continue
        room = rooms[0][: outer * inner].view(outer, inner)
        link.receive_into(room)
        yield name, room.to(device)
    _free(rooms)


def masked(plain: Tensor, masks: Stream, room: Tensor | None) -> Tensor:
    """Returns W - b on the host.

    Args:
        plain: W.
        masks: Where b comes from, on the device of W.
        room: Pinned memory for the result, if W is on a GPU.
    """
    if room is None:
        return masks.words(plain.shape).neg_().add_(plain)
    there = room[: plain.numel()]
    for part, place in zip(torch.split(plain.view(-1), _CHUNK), torch.split(there, _CHUNK), strict=True):
        place.copy_(masks.words(part.shape).neg_().add_(part), non_blocking=True)
    if plain.is_cuda:
        torch.cuda.current_stream().synchronize()
    return there.view(plain.shape)


def ahead(make: Callable[[int], T], count: int) -> Iterator[T]:
    """Yields make(0) to make(count - 1). While one is in use, the next one is made in a thread."""
    threads = torch.get_num_threads()  # OpenMP keeps this per thread
    with ThreadPoolExecutor(1, "ahead", torch.set_num_threads, (threads,)) as worker:
        upcoming = worker.submit(make, 0) if count else None
        for index in range(1, count + 1):
            assert upcoming is not None  # noqa: S101 - there are matrices
            made = upcoming.result()
            upcoming = worker.submit(make, index) if index < count else None
            yield made


def _rooms(shapes: Shapes, device: torch.device, count: int) -> list[Tensor]:
    """Returns pinned memory for the largest matrix, so many times; nothing where a CPU computes."""
    sizes = [math.prod(shape) for name, shape in shapes.items() if is_matrix(name, shape)]
    if device.type == "cpu" or not sizes:
        return []
    return [torch.empty(max(sizes), dtype=torch.int64, pin_memory=True) for _ in range(count)]


def _free(rooms: list[Tensor]) -> None:
    """Returns pinned memory to the host, which torch would keep."""
    if rooms:
        rooms.clear()
        if hasattr(torch.accelerator, "empty_host_cache"):  # since torch 2.12; before, the memory stays pinned
            torch.accelerator.empty_host_cache()
