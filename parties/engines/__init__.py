"""The secure computation behind one small interface; see `parties.engines.base`."""

from typing import Literal

ENGINES: dict[str, str] = {
    "plain": "float tensors in one process, no security: the reference that private runs are checked against",
    "crypten": "CrypTen 0.4.1, stock two-party protocols with a trusted third party as the dealer, our randomness",
    "fss": "publicly masked values, function secret sharing, a dealer that streams correlated randomness",
    "spu": "SecretFlow-SPU 0.9.5 with its own protocols (ABY3, SEMI2K or CHEETAH) and links, in a worker process",
}
"""Name of each engine and what it is, in one line."""

OWN_LINKS = frozenset({"spu"})
"""Engines that open links of their own beside the parties', so that these cannot be replaced under a loaded model."""

Randomness = Literal["private", "stock"]
"""Generator of `crypten`: our keystream, or CrypTen's own; see `parties.engines.crypten.randomness`."""

STOCK_IS_INSECURE = (
    "private against nobody who looks: its generator's state can be read from one message; figures measure its "
    "protocols, not its privacy"
)
"""The trust model of `crypten` with the randomness `stock`."""
