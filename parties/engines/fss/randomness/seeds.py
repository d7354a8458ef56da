"""A seed that a party and the dealer draw together, so that neither can choose it: a coin toss with a commitment.

The dealer commits to its half, the party sends its own, the dealer opens; the seed is a hash of both (Blum, "Coin
flipping by telephone", 1981; the commitment and the hash are BLAKE2b, domain-separated, taken as a random oracle). With
the last message comes a public key, the same for both parties: that of the permutation in the session's comparisons.
"""

import hashlib
import os

import torch

from parties.engines.fss.randomness.dcf import PERMUTATION_KEY_BYTES
from parties.engines.keystream import SEED_BYTES
from parties.errors import PartyError
from parties.transport.link import Link

_COMMITMENT, _SEED = b"mpcbench commit", b"mpcbench seed"


class CommitmentBroken(PartyError):  # noqa: N818 - named for what happened
    """The dealer opened another half of a seed than it had committed to."""

    def __str__(self) -> str:
        return (
            "the dealer opened another half of the seed than it had committed to: it may have chosen the seed after it "
            "had seen this party's half; start all parties again, and do not trust this dealer if it recurs"
        )


class DealersToss:
    """The dealer's side of one party's seed.

    Args:
        link: to the party.
    """

    def __init__(self, link: Link) -> None:
        self._link, self._half = link, os.urandom(SEED_BYTES)
        link.send(_commitment(link.peer, self._half))

    def seed(self, permutation_key: bytes) -> bytes:
        """The seed, 32 bytes; waits for the party, and tells it the session's permutation key.

        Raises:
            PartyError: the link's own errors.
        """
        self._link.await_peer()
        theirs = _octets(self._link, SEED_BYTES)
        self._link.send(self._half + permutation_key)
        return _seed(self._link.peer, self._half, theirs)


def drawn_seed(link: Link, role: str) -> tuple[bytes, bytes]:
    """A party's side: the seed, 32 bytes, and the session's permutation key.

    Args:
        link: to the dealer.
        role: `client` or `server`.

    Raises:
        CommitmentBroken: the dealer does not stand by its half.
        PartyError: the link's own errors.
    """
    link.await_peer()
    commitment, half = _octets(link, SEED_BYTES), os.urandom(SEED_BYTES)
    link.send(half)
    link.await_peer()
    opened = _octets(link, SEED_BYTES + PERMUTATION_KEY_BYTES)
    theirs, permutation_key = opened[:SEED_BYTES], opened[SEED_BYTES:]
    if _commitment(role, theirs) != commitment:
        link.close()
        raise CommitmentBroken
    return _seed(role, theirs, half), permutation_key


def _commitment(role: str, half: bytes) -> bytes:
    return hashlib.blake2b(role.encode() + half, digest_size=SEED_BYTES, person=_COMMITMENT).digest()


def _seed(role: str, dealers: bytes, partys: bytes) -> bytes:
    return hashlib.blake2b(role.encode() + dealers + partys, digest_size=SEED_BYTES, person=_SEED).digest()


def _octets(link: Link, count: int) -> bytes:
    return link.receive_tensor((count,), torch.uint8).numpy().tobytes()
