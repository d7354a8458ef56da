"""Analytic costs of CrypTen's protocols: bytes, rounds and dealer bytes per decoded token, from public shapes.

Every number is opened as 8 bytes each way. A Beaver product opens both operands in one round and takes the product's
correction from the dealer (`crypten/mpc/primitives/beaver.py`); a comparison is an addition circuit of seven levels on
64-bit words (`circuit.py`) and one conversion of a bit. Weights are an operand like any other, so a matrix is opened
again for every token: that, not the cache, is most of a short prompt's bytes.
"""

from dataclasses import dataclass, fields, replace
from functools import partial

from parties.decoding.clusters import Clustering
from parties.models.spec import ModelSpec
from parties.policies.base import Policy
from parties.policies.mpcache import MPCache

WORD = 8


@dataclass(frozen=True)
class Cost:
    """The cost of protocols that run one after another.

    Attributes:
        sent: Numbers that each of client and server sends, online.
        dealt: Numbers that the dealer sends, offline.
        rounds: Online rounds.
    """

    sent: float = 0
    dealt: float = 0
    rounds: float = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def __mul__(self, times: float) -> "Cost":
        return Cost(*(getattr(self, field.name) * times for field in fields(self)))

    def of_each(self, batch: int, *, folded: bool) -> "Cost":
        """The cost for each sequence of a batch: in the same rounds if `folded`, else one after the other."""
        return replace(self * batch, rounds=self.rounds) if folded else self * batch


def product(x: float, y: float, out: float) -> Cost:
    """Beaver product of operands with x and y numbers that gives `out` numbers."""
    return Cost(sent=x + y, dealt=out, rounds=1)


def square(n: float) -> Cost:
    """Squares: one operand to open."""
    return Cost(sent=n, dealt=n, rounds=1)


def compare(n: float) -> Cost:
    """[x < 0]: one AND, six levels of the carry tree with one operand of n and one of 2n words, one bit conversion."""
    return Cost(sent=2 * n + 6 * 3 * n + n, dealt=n + 6 * 2 * n + n, rounds=8)


def equal(n: float) -> Cost:
    """[x = 0]: six ANDs and one bit conversion."""
    return Cost(sent=6 * 2 * n + n, dealt=6 * n + n, rounds=7)


def maximum(n: float) -> Cost:
    """Larger of two: a comparison and a product."""
    return compare(n) + product(n, n, n)


def largest(rows: int, n: int) -> Cost:
    """Tournament over n columns: n - 1 maxima a row in log2 n levels."""
    levels = max(0, (n - 1).bit_length())
    width = rows * max(0, n - 1)
    return Cost(maximum(width).sent, maximum(width).dealt, levels * maximum(1).rounds)


def one_of_powers(rows: int, powers: int) -> Cost:
    """Finds the leading power by comparing with all, and scales by it."""
    return compare(rows * (powers - 1)) + product(rows * powers, rows * powers, rows * powers)


def divide(rows: int, width: int, bound: int) -> Cost:
    """Rows over their totals: leading power of two, three Newton steps, two scalings."""
    scalings = product(rows * width, rows, rows * width) * 2
    return one_of_powers(rows, bound.bit_length()) + product(rows, rows, rows) * 6 + scalings


def normalise(width: int, rows: int = 1) -> Cost:
    """Rows over their root mean square: leading power of four of 19, four Newton steps, two scalings."""
    newton = (square(rows) + product(rows, rows, rows) * 2) * 4
    scalings = product(rows * width, rows, rows * width) * 2
    return square(rows * width) + one_of_powers(rows, 19) + newton + scalings


def with_gain(width: int, rows: int = 1) -> Cost:
    """A norm whose gain is not folded into a matrix."""
    return normalise(width, rows) + product(rows * width, rows * width, rows * width)


def activation(n: int) -> Cost:
    """SiLU by CrypTen's sigmoid: sign, exponential (8 squares), reciprocal (3 steps), two sides, product with x."""
    return compare(n) + product(n, n, n) * 4 + square(n) * 8 + (square(n) + product(n, n, n)) * 3


def attention(spec: ModelSpec, tokens: int) -> Cost:
    """One query against `tokens` keys and values: scores, exponentials, weighted sum, division."""
    h, g, d = spec.n_heads, spec.n_kv_heads, spec.head_dim
    scores = product(h * d, g * tokens * d, h * tokens)
    if spec.score_cap:
        scores += activation(h * tokens)
    softmax = largest(h, tokens) + square(h * tokens) * 8
    return scores + softmax + product(h * tokens, g * tokens * d, h * d) + divide(h, d, tokens)


def ranking(rows: int, n: int, k: int) -> Cost:
    """All pairs compared, and a one-hot row for each of the top k."""
    return compare(rows * n * (n - 1) / 2) + equal(rows * k * n)


def selection(spec: ModelSpec, policy: MPCache, tokens: int) -> Cost:
    """MPCache's choice of clusters in a layer that decides: boxes, similarities, two rankings."""
    h, g, d = spec.n_heads, spec.n_kv_heads, spec.head_dim
    clusters = Clustering(tokens, policy.fine_size, policy.coarse_size)
    k_coarse, k_fine = clusters.top_k(policy.coarse, policy.select)
    boxes = maximum(4 * g * d)
    if not k_fine:
        return boxes
    coarse, fine = len(clusters.coarse_candidates), len(clusters.fine_candidates)
    candidates = clusters.parents.count(None) + k_coarse * (policy.coarse_size // policy.fine_size)
    similarity = product(h * 2 * d, g * (coarse + fine) * 2 * d, h * (coarse + fine))
    fetch = product(h * candidates * fine, h * fine, h * candidates)
    compose = product(h * k_fine * candidates, h * candidates * fine, h * k_fine * fine)
    chosen = ranking(h, coarse, k_coarse) if k_coarse else Cost()
    return boxes + similarity + chosen + fetch + ranking(h, candidates, k_fine) + compose


def gather(spec: ModelSpec, policy: MPCache, tokens: int) -> Cost:
    """MPCache's fetching of the chosen rows of keys and values."""
    clusters = Clustering(tokens, policy.fine_size, policy.coarse_size)
    _, k_fine = clusters.top_k(policy.coarse, policy.select)
    candidates, block = len(clusters.fine_candidates), policy.fine_size * 2 * spec.head_dim
    if not k_fine:
        return Cost()
    h = spec.n_heads
    return product(h * k_fine * candidates, spec.n_kv_heads * candidates * block, h * k_fine * block)


def layers(spec: ModelSpec, policy: Policy, tokens: int, batch: int = 1) -> Cost:
    """All layers, with the attention of each sequence of a batch over a cache of `tokens`."""
    hidden, inner = spec.hidden, spec.intermediate
    heads = (spec.n_heads + 2 * spec.n_kv_heads) * spec.head_dim
    kind = spec.architecture
    first = 2 * inner if kind.gated else inner
    each = partial(Cost.of_each, batch=batch, folded=policy.folds)
    cost = normalise(hidden, batch) * 2 + activation(batch * inner)
    if kind.gated:
        cost += product(batch * inner, batch * inner, batch * inner)
    if kind.query_key_norm:
        cost += each(with_gain(spec.head_dim, spec.n_heads + spec.n_kv_heads))
    if kind.post_norms:
        cost += with_gain(hidden, batch) * 2
    for width, out in ((hidden, heads), (spec.n_heads * spec.head_dim, hidden), (hidden, first), (inner, hidden)):
        cost += product(batch * width, width * out, batch * out)
    chosen = each(attention(spec, policy.attended(tokens)))
    if not isinstance(policy, MPCache):
        return (cost + chosen) * spec.n_layers
    deciding = [layer for layer in range(spec.n_layers) if policy.chooses(layer)]
    dense = sum(not policy.chooses(policy.source_layer(layer)) for layer in range(spec.n_layers))
    queries = spec.n_heads * spec.head_dim
    guess = product(batch * hidden, hidden * queries, batch * queries) if policy.ahead else Cost()
    return (
        cost * spec.n_layers
        + each(attention(spec, tokens)) * dense
        + (chosen + each(gather(spec, policy, tokens))) * (spec.n_layers - dense)
        + (each(selection(spec, policy, tokens)) + guess) * len(deciding)
    )


def crypten_token(spec: ModelSpec, policy: Policy, tokens: int, *, batch: int = 1, private_argmax: bool) -> Cost:
    """One decoded token of each sequence, from its embedding to the choice of the next.

    Args:
        spec: The model.
        policy: The cache policy.
        tokens: Cached tokens of a sequence, the new one included.
        batch: Sequences that decode side by side.
        private_argmax: Whether the choice is made on shares, by a tournament over the vocabulary.
    """
    table = spec.vocab * spec.hidden
    ends = product(batch * spec.vocab, table, batch * spec.hidden) + normalise(spec.hidden, batch)
    ends += product(batch * spec.hidden, table, batch * spec.vocab)
    choice = Cost()
    if private_argmax:
        n = spec.vocab - 1
        pairs = compare(batch * n) + product(batch * n, 2 * batch * n, 2 * batch * n)
        choice = Cost(pairs.sent, pairs.dealt, n.bit_length() * pairs.rounds)
    return layers(spec, policy, tokens, batch) + ends + choice
