"""Shares of values as they enter and leave SPU, made by their owners and sent over the parties' own links.

Both forms are sums in Z_2^64. With two parties, x = x_0 + x_1, and party i holds x_i. With three (ABY3), x = x_0 + x_1
+ x_2, and party i holds x_i and x_(i+1). Each pair of parties has a seed; a part that only the two may know, or that
one of them draws for the other, comes from its keystream and is not sent.
"""

import math
import os
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from parties.engines.keystream import SEED_BYTES, Keystream
from parties.transport.mesh import Mesh

CLIENT, SERVER, THIRD = "client", "server", "dealer"

_PART_NUMBERS = 1 << 22
"""Numbers that enter at once."""


class Sharing:
    """One party's side.

    Args:
        role: This party's role.
        roles: The computing parties in the order of their ranks.
        mesh: Links to the others.
        fraction_bits: Fraction bits of fixed point.
    """

    def __init__(self, role: str, roles: Sequence[str], mesh: Mesh, fraction_bits: int) -> None:
        self._role, self._mesh = role, mesh
        self._scale = float(2**fraction_bits)
        self.replicated = len(roles) == len((CLIENT, SERVER, THIRD))
        self._streams: dict[str, Keystream] = {}
        for peer in roles:
            if peer != role:
                self._streams[peer] = Keystream(self._agree(peer, leads=roles.index(role) < roles.index(peer)))

    def _agree(self, peer: str, *, leads: bool) -> bytes:
        if not leads:
            return bytes(self._mesh[peer].receive(at_most=SEED_BYTES))
        drawn = os.urandom(SEED_BYTES)
        self._mesh[peer].send(drawn)
        return drawn

    def encode(self, values: Tensor) -> Tensor:
        """Fixed point, int64."""
        return (values.double() * self._scale).round().long()

    def decode(self, words: Tensor) -> Tensor:
        """The inverse of `encode`, float64."""
        return words.double() / self._scale

    def enter_in_parts(self, owner: str, values: Tensor | None, shape: Sequence[int]) -> Iterator[Tensor]:
        """This party's share of a value that one party owns, some rows after the other, so that it is never whole here.

        Args:
            owner: `client` or `server`.
            values: The value, at the owner; None elsewhere.
            shape: Its public shape.
        """
        rows, *rest = shape
        step = max(1, _PART_NUMBERS // math.prod(rest))
        for start in range(0, rows, step):
            words = None if values is None else self.encode(values[start : start + step])
            yield self._enter(owner, words, (min(step, rows - start), *rest))

    def _enter(self, owner: str, words: Tensor | None, shape: Sequence[int]) -> Tensor:
        if not self.replicated:
            drawn = self._streams[SERVER if self._role == CLIENT else CLIENT].words(shape)
            return drawn if words is None else words - drawn
        outer = {CLIENT: 0, SERVER: 2}[owner]  # the part that the owner shares with the third party
        parts = [torch.zeros(*shape, dtype=torch.int64) for _ in range(3)]
        if self._role == owner:
            assert words is not None  # noqa: S101 - the owner has it
            parts[outer] = self._streams[THIRD].words(shape)
            parts[1] = words - parts[outer]
            self._mesh[SERVER if owner == CLIENT else CLIENT].send_tensor(parts[1])
        elif self._role == THIRD:
            parts[outer] = self._streams[owner].words(shape)
        else:
            parts[1] = self._mesh[owner].receive_tensor(shape, torch.int64)
        return self._held(parts)

    def adopt(self, words: Tensor) -> Tensor:
        """This party's share of a sum of which client and server have a summand each, and a third party zero."""
        if not self.replicated:
            return words
        parts = [torch.zeros_like(words) for _ in range(3)]
        if self._role == THIRD:
            parts[0], parts[2] = (self._streams[peer].words(words.shape) for peer in (CLIENT, SERVER))
            return self._held(parts)
        own, peer = (0, SERVER) if self._role == CLIENT else (2, CLIENT)
        parts[own] = self._streams[THIRD].words(words.shape)
        masked = words - parts[own]
        parts[1] = masked + self._mesh[peer].exchange_tensor(masked)
        return self._held(parts)

    def _held(self, parts: Sequence[Tensor]) -> Tensor:
        rank = (CLIENT, SERVER, THIRD).index(self._role)
        return torch.stack([parts[rank], parts[(rank + 1) % 3]], dim=-1)

    def export(self, share: Tensor) -> Tensor:
        """The summand of client or server in a sum of two; what a third party holds is not needed."""
        if not self.replicated:
            return share
        return share[..., 0] if self._role == CLIENT else share.sum(-1)

    def open_to_client(self, share: Tensor) -> Tensor | None:
        """The words of a value, at the client; None elsewhere."""
        summand = self.export(share)
        if self._role == CLIENT:
            return summand + self._mesh[SERVER].receive_tensor(summand.shape, torch.int64)
        if self._role == SERVER:
            self._mesh[CLIENT].send_tensor(summand)
        return None
