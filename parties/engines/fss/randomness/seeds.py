"""The seed that a party shares with the dealer, drawn by a coin toss with a commitment so that neither can choose it.

The dealer commits to its half, the party sends its own, the dealer opens; the seed is a hash of both (Blum, "Coin
flipping by telephone", 1981; the commitment and the hash are BLAKE2b, domain-separated, modelled as a random oracle).
The last message also carries the public key of the session's comparison permutation, the same for both parties.
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
    """The dealer opened a half of the seed that does not match its commitment."""

    def __str__(self) -> str:
        return (
            "the dealer opened another half of the seed than it had committed to: it may have chosen the seed after it "
            "had seen this party's half; start all parties again, and do not trust this dealer if it recurs"
        )


class DealerCoinToss:
    """The dealer's side of one party's seed; sends the commitment at once.

    Args:
        link: Link to the party.
    """

    def __init__(self, link: Link) -> None:
        self._link, self._half = link, os.urandom(SEED_BYTES)
        link.send(_commitment(link.peer, self._half))

    def seed(self, permutation_key: bytes) -> bytes:
        """Waits for the party's half, sends it the session's permutation key, and returns the seed, 32 bytes.

        Raises:
            PartyError: The link failed.
        """
        self._link.await_peer()
        theirs = _octets(self._link, SEED_BYTES)
        self._link.send(self._half + permutation_key)
        return _seed(self._link.peer, self._half, theirs)


def drawn_seed(link: Link, role: str) -> tuple[bytes, bytes]:
    """Draws the seed at a party: returns the seed, 32 bytes, and the session's permutation key, 16 bytes.

    Args:
        link: Link to the dealer.
        role: `client` or `server`.

    Raises:
        CommitmentBroken: The dealer's half does not match its commitment.
        PartyError: The link failed.
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
