"""Where CrypTen's random numbers come from: our keystream (`private`), or its own generator (`stock`).

CrypTen draws every share of zero, mask and share of a triple through two functions of `crypten.common.rng`, from
`torch.Generator`: on a CPU a Mersenne Twister, of whose seed 32 bits count and whose state can be solved for from 312
of its numbers of 64 bits. Both parties hold both seeds of the shares of zero, so what one sends to open a value shows
the other its mask: numbers of the generator that it shares with the dealer, and with them all that it draws later.

With `private` AES-256 in counter mode stands behind the same two functions, and seeds have 256 bits of the system's
generator. They travel as CrypTen's do: those of the shares of zero between the parties, one a party from the dealer.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from parties.engines import Randomness
from parties.engines.crypten import compat  # noqa: F401 - must come before crypten
from parties.engines.keystream import SEED_BYTES, Keystream
from parties.randomness import seed

import crypten  # isort: skip
from crypten.common import rng  # isort: skip
from crypten.communicator import Communicator  # isort: skip

_CPU = torch.device("cpu")


class Stream(Keystream):
    """A keystream in the place of a `torch.Generator`; whatever of torch is given one raises `TypeError`."""

    device = _CPU


Generator = Stream | torch.Generator
"""What CrypTen holds and passes on as its generator."""


def fresh_seed() -> bytes:
    """32 bytes from the system."""
    return os.urandom(SEED_BYTES)


def dealt_seed(randomness: Randomness) -> str | int:
    """A fresh seed that a party shares with the dealer, as it stands in the dealer's message."""
    return fresh_seed().hex() if randomness == "private" else seed()


def generator_of(told: str | int) -> Generator:
    """The generator of a seed from `dealt_seed`, at its first number."""
    return Stream(bytes.fromhex(told)) if isinstance(told, str) else torch.Generator().manual_seed(told)


def seed_shares(randomness: Randomness, communicator: Communicator) -> None:
    """Seeds the generators that this party has alone and with the other one; two seeds are exchanged, one is told.

    CrypTen keeps them by name in `crypten.generators`: `next` is the other party's `prev`, so that what one of the two
    adds to a share of zero the other takes off; `local` is the party's own, and `global` is everybody's.
    """
    if randomness == "stock":
        crypten._setup_prng()  # noqa: SLF001 - what crypten.init does after it has made its own communicator
        return
    other, mine, theirs = 1 - communicator.get_rank(), fresh_seed(), torch.empty(SEED_BYTES // 8, dtype=torch.int64)
    communicator.isend(_tensor(mine), other)
    communicator.irecv(theirs, other)
    everyones = communicator.broadcast(_tensor(fresh_seed()), 0)
    seeds = {"next": mine, "prev": _octets(theirs), "local": fresh_seed(), "global": _octets(everyones)}
    for name, octets in seeds.items():
        crypten.generators[name][_CPU] = Stream(octets)


def _tensor(octets: bytes) -> Tensor:
    return torch.frombuffer(bytearray(octets), dtype=torch.int64)


def _octets(tensor: Tensor) -> bytes:
    return tensor.numpy().tobytes()


# -- behind CrypTen's two functions ------------------------------------------------------------------------------------

_stock_ring_element, _stock_kbit = rng.generate_random_ring_element, rng.generate_kbit_random_tensor


def _ring_element(size: Sequence[int], *, generator: Generator | None = None, device: Any = None) -> Tensor:
    """Uniform elements of Z_2^64; of the ring but its largest element if stock."""
    stream = _chosen(generator)
    if isinstance(stream, Stream):
        return stream.words(size)
    drawn: Tensor = _stock_ring_element(size, generator=stream, device=device)
    return drawn


def _kbit(
    size: Sequence[int], bitlength: int | None = None, *, generator: Generator | None = None, device: Any = None
) -> Tensor:
    """Uniform integers of `bitlength` bits, 64 if none is given."""
    stream = _chosen(generator)
    if isinstance(stream, Stream):
        words = stream.words(size)
        return words if bitlength in (None, 64) else words & ((1 << bitlength) - 1)
    drawn: Tensor = _stock_kbit(size, bitlength, generator=stream, device=device)
    return drawn


def _chosen(generator: Generator | None) -> Generator:
    """The generator, or the party's own."""
    own: Generator = crypten.generators["local"][_CPU] if generator is None else generator
    return own


def _stand_in() -> None:
    """Puts our functions wherever a module of CrypTen has imported its own; one imported later finds ours in `rng`."""
    ours = {_stock_ring_element: _ring_element, _stock_kbit: _kbit}
    for module in [module for name, module in sys.modules.items() if name.partition(".")[0] == "crypten"]:
        for name, value in list(vars(module).items()):
            if callable(value) and value in ours:
                setattr(module, name, ours[value])


_stand_in()
