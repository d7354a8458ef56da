"""The source of CrypTen's random numbers: our keystream (`private`) or CrypTen's own generator (`stock`).

CrypTen draws all shares of zero, masks and shares of triples through two functions of `crypten.common.rng`, from
`torch.Generator`: on a CPU a Mersenne Twister, which uses 32 bits of its seed and whose state follows from 312 of its
64-bit outputs. Both parties hold both seeds of the shares of zero, so a message that opens a value shows the peer the
sender's mask: outputs of the generator that the sender shares with the dealer, and so all of its later outputs.

With `private`, AES-256 in counter mode replaces the generator behind the same two functions, and seeds are 256 bits of
the system's generator. They are exchanged like CrypTen's: those of the shares of zero between the parties, and one per
party from the dealer.
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
    """A keystream in the place of a `torch.Generator`; a torch function that is passed one raises `TypeError`."""

    device = _CPU


Generator = Stream | torch.Generator
"""The object that CrypTen holds and passes on as its generator."""


def fresh_seed() -> bytes:
    """Returns 32 bytes from the system's generator."""
    return os.urandom(SEED_BYTES)


def dealt_seed(randomness: Randomness) -> str | int:
    """Returns a fresh seed that a party shares with the dealer, as in the dealer's message."""
    return fresh_seed().hex() if randomness == "private" else seed()


def generator_of(dealt: str | int) -> Generator:
    """Returns the generator of a seed of `dealt_seed`, at its first number."""
    return Stream(bytes.fromhex(dealt)) if isinstance(dealt, str) else torch.Generator().manual_seed(dealt)


def seed_shares(randomness: Randomness, communicator: Communicator) -> None:
    """Seeds this party's own generator and those it shares with the peer; two seeds are exchanged, one is broadcast.

    CrypTen keeps them by name in `crypten.generators`: `next` is the peer's `prev`, so that the two shares of zero
    cancel; `local` is the party's own, and `global` is common to both.
    """
    if randomness == "stock":
        crypten._setup_prng()  # noqa: SLF001 - what crypten.init does after it has made its own communicator
        return
    other, mine, theirs = 1 - communicator.get_rank(), fresh_seed(), torch.empty(SEED_BYTES // 8, dtype=torch.int64)
    communicator.isend(_tensor(mine), other)
    communicator.irecv(theirs, other)
    common = communicator.broadcast(_tensor(fresh_seed()), 0)
    seeds = {"next": mine, "prev": _octets(theirs), "local": fresh_seed(), "global": _octets(common)}
    for name, octets in seeds.items():
        crypten.generators[name][_CPU] = Stream(octets)


def _tensor(octets: bytes) -> Tensor:
    return torch.frombuffer(bytearray(octets), dtype=torch.int64)


def _octets(tensor: Tensor) -> bytes:
    return tensor.numpy().tobytes()


# -- replacements of CrypTen's two functions ---------------------------------------------------------------------------

_stock_ring_element, _stock_kbit = rng.generate_random_ring_element, rng.generate_kbit_random_tensor


def _ring_element(size: Sequence[int], *, generator: Generator | None = None, device: Any = None) -> Tensor:
    """Draws uniform elements of Z_2^64; the stock generator never returns the largest element."""
    stream = _chosen(generator)
    if isinstance(stream, Stream):
        return stream.words(size)
    drawn: Tensor = _stock_ring_element(size, generator=stream, device=device)
    return drawn


def _kbit(
    size: Sequence[int], bitlength: int | None = None, *, generator: Generator | None = None, device: Any = None
) -> Tensor:
    """Draws uniform integers of `bitlength` bits, 64 by default."""
    stream = _chosen(generator)
    if isinstance(stream, Stream):
        words = stream.words(size)
        return words if bitlength in (None, 64) else words & ((1 << bitlength) - 1)
    drawn: Tensor = _stock_kbit(size, bitlength, generator=stream, device=device)
    return drawn


def _chosen(generator: Generator | None) -> Generator:
    """Returns the generator, by default the party's own."""
    own: Generator = crypten.generators["local"][_CPU] if generator is None else generator
    return own


def _replace_functions() -> None:
    """Replaces the two functions in every imported module of CrypTen; later imports find ours in `rng`."""
    ours = {_stock_ring_element: _ring_element, _stock_kbit: _kbit}
    for module in [module for name, module in sys.modules.items() if name.partition(".")[0] == "crypten"]:
        for name, value in list(vars(module).items()):
            if callable(value) and value in ours:
                setattr(module, name, ours[value])


_replace_functions()
