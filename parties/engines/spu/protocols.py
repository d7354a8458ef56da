"""The protocols of SPU that the engine runs: their parties, and whom one has to trust."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """A protocol.

    Attributes:
        roles: The computing parties, in the order of their ranks.
        trust_model: Whom one has to trust, in words.
    """

    roles: tuple[str, ...]
    trust_model: str


PROTOCOLS: Mapping[str, Protocol] = {
    "aby3": Protocol(
        ("client", "server", "dealer"),
        "three parties (client, server and the dealer's host, which computes), replicated shares in Z_2^64, "
        "semi-honest, at most one of the three corrupted, so no two collude; links without TLS",
    ),
    "semi2k": Protocol(
        ("client", "server"),
        "insecure against the client: two parties, additive shares in Z_2^64, and SPU's default source of "
        "multiplication triples, its trusted first party, which is the client; it knows every mask. The figures "
        "measure its online protocol, not its privacy, and leave out the cost of triples; links without TLS",
    ),
    "cheetah": Protocol(
        ("client", "server"),
        "two parties, semi-honest, at most one corrupted, no dealer: homomorphic encryption for products, oblivious "
        "transfer for comparisons; additive shares in Z_2^64; links without TLS",
    ),
}
"""By the values of the option `spu.protocol`."""
