"""The programs of the `fss` engine: publicly masked values, correlated randomness from a dealer, few rounds."""

from parties.engines.fss import bounds
from parties.engines.fss.functions import softmax
from parties.engines.fss.programs.attention import Attention
from parties.engines.fss.programs.functions import Functions
from parties.engines.fss.programs.products import Products
from parties.engines.fss.programs.selection import Selections
from parties.engines.fss.programs.values import Values


class Computation(Values, Products, Functions, Attention, Selections):
    """The engine's programs, the same at client, server and dealer.

    Args:
        source: This party's correlated randomness.
    """

    name = "fss"
    trust_model = (
        "two parties and a dealer, semi-honest, at most one of the three corrupted, the dealer does not collude; "
        "randomness from AES-256 in counter mode; nothing opened depends on a secret but shuffled comparisons; "
        "the dealer learns which segments are run again, which distinguishes x from x' with probability "
        "|x - x'| / 2^63 for each truncated number"
    )
    devices = ("cpu", "cuda")
    tolerance = 0.5
    bounds = bounds.BOUNDS
    block = 16
    scores_early = True
    masked_score = softmax.MASKED_SCORE
