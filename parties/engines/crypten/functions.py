"""Functions whose CrypTen approximations do not cover the range of a real model.

Built from CrypTen's stock primitives (comparison, Beaver product, local truncation). CrypTen's inverse square root
starts from an exponential guess that converges for about 10^-4 to 10^2; a transformer's mean squares span 0.005 to
10^6. Its reciprocal evaluates exp(1 - 2x), which is wrong for x above 256, and a softmax over 512 tokens sums to that.
Both are replaced in the same way: range reduction by comparing with all powers of a base at once, then a few Newton
steps from a linear guess.
"""

import math

import torch

from parties.engines.crypten import compat  # noqa: F401 - must come before crypten

from crypten.config import cfg  # isort: skip
from crypten.mpc import MPCTensor  # isort: skip

FRACTION_BITS = 16
_RMS_POWERS = 19  # of four: mean squares from 2^-16 to 2^22
_SHIFT = 8  # of the root, as mean squares are scaled by 2^16
_ROOT_SHIFT, _ROOT_POWERS = 10, 13  # `inverse_root`: 2^-10 to 2^14 as powers of four from one


def integers(x: MPCTensor) -> MPCTensor:
    """Reads the same shares as integers: products with them are not truncated."""
    return MPCTensor.from_shares(x.share, precision=0)


def fixed(x: MPCTensor) -> MPCTensor:
    """Reads the same shares as fixed point."""
    return MPCTensor.from_shares(x.share)


def less_than_zero(x: MPCTensor) -> MPCTensor:
    """Computes [x < 0] as integer shares of 0 or 1."""
    return x._ltz()  # noqa: SLF001 - CrypTen's name for its only comparison


def _reduce_range(x: MPCTensor, base: int, count: int) -> tuple[MPCTensor, MPCTensor]:
    """Scales x >= 0 by a power of the base into [1, base), or [0, base) for the lowest power.

    Args:
        x: Fixed point, [n, 1].
        base: A power of two.
        count: Number of powers, base^0 to base^(count - 1).

    Returns:
        x / base^j in fixed point, [n, 1], and the one-hot vector of j, integer shares, [n, count].
    """
    powers = torch.tensor([base**j for j in range(count)], dtype=torch.int64)
    below = less_than_zero(x - powers[1:].double())
    one = integers(below[:, :1] * 0) + 1
    steps = torch.cat([torch.zeros_like(one.share), below.share, one.share], dim=1)
    hot = MPCTensor.from_shares(steps.diff(dim=1), precision=0)
    scaled = MPCTensor.from_shares(x.share.div(powers, rounding_mode="trunc"))
    return fixed((integers(scaled) * hot).sum(1, keepdim=True)), hot


def _pick_power(hot: MPCTensor, exponents: list[int]) -> MPCTensor:
    """Computes the sum of hot_j * 2^exponents_j, a power of two in fixed point. Local."""
    weights = torch.tensor([1 << (exponent + FRACTION_BITS) for exponent in exponents], dtype=torch.int64)
    return MPCTensor.from_shares((hot.share * weights).sum(1, keepdim=True))


def normalise_rows(x: MPCTensor, eps: float) -> MPCTensor:
    """Divides each row of [n, d] by its root mean square, sqrt(mean(x^2) + eps).

    The squares of x / 2^k, with 2^k close to sqrt(d), are summed without truncation, and the sum is read as fixed
    point, which makes it the mean square times 2^16 d / 4^k: no bit of a small row is lost and no share can wrap.
    """
    d = x.shape[1]
    k = round(math.log2(d) / 2)
    ratio = d / 4**k
    squares = integers(x.div(2**k)).square().sum(1, keepdim=True)
    u, hot = _reduce_range(fixed(squares) + eps * ratio * 2.0**16, 4, _RMS_POWERS)
    scaled = x * _pick_power(hot, [_SHIFT - j for j in range(_RMS_POWERS)])
    return scaled * (_root(u) * ratio**0.5)


def inverse_root(x: MPCTensor) -> MPCTensor:
    """Computes 1 / sqrt(x) for x of [n, 1] from 2^-10 to 2^14."""
    u, hot = _reduce_range(MPCTensor.from_shares(x.share << _ROOT_SHIFT), 4, _ROOT_POWERS)
    return _root(u) * _pick_power(hot, [_ROOT_SHIFT // 2 - j for j in range(_ROOT_POWERS)])


def _root(u: MPCTensor) -> MPCTensor:
    """Computes 1 / sqrt(u) for u from 0.65 to 4, by Newton steps from a line within 17 %."""
    root = u * -0.178 + 1.165
    for _ in range(4):
        root = (root * (3 - u * root.square())).div(2)
    return root


def divide_rows(x: MPCTensor, total: MPCTensor, largest: int) -> MPCTensor:
    """Computes x / total for rows of [n, d] and totals [n, 1] between 1 and `largest`."""
    count = max(2, largest.bit_length())
    u, hot = _reduce_range(total, 2, count)
    scaled = x * _pick_power(hot, [-j for j in range(count)])
    reciprocal = u * (-8 / 17) + 24 / 17  # within 6 % of 1/u on [1, 2]
    for _ in range(3):
        reciprocal = reciprocal * (2 - u * reciprocal)
    return scaled * reciprocal


def silu(x: MPCTensor) -> MPCTensor:
    """Computes x * sigmoid(x), with CrypTen's sigmoid."""
    return x * x.sigmoid()


def gelu(x: MPCTensor, clip: float = 8.0) -> MPCTensor:
    """Computes x * sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)), GELU's tanh form (arXiv 1606.08415).

    It is within 5e-4 of the exact one. The cubic is evaluated on x clipped to [-clip, clip], beyond which the sigmoid
    is 0 or 1 to 16 bits: CrypTen's exponential is wrong far outside.
    """
    over = less_than_zero(_stack([x + clip, clip - x]))
    bounded = x + (over * _stack([-x - clip, clip - x])).sum(0)
    inner = (bounded.square() * 0.044715 + 1.0) * bounded * 1.5957691216057308
    return x * inner.sigmoid()


def soft_cap(x: MPCTensor, cap: float) -> MPCTensor:
    """Computes cap * tanh(x / cap) = cap * (2 sigmoid(2 x / cap) - 1), within 0.5 % of the cap.

    The error is that of CrypTen's exponential, whose eight squares are truncated.
    """
    return (x * (2 / cap)).sigmoid() * (2 * cap) - cap


def _stack(parts: list[MPCTensor]) -> MPCTensor:
    return MPCTensor.from_shares(torch.stack([part.share for part in parts]))


def ranks(x: MPCTensor) -> MPCTensor:
    """Computes the rank of each element of [rows, n] in its row, 0 for the largest, as integer shares.

    The lower index comes first among equals. All pairs in one comparison: n (n - 1) / 2 per row.
    """
    n = x.shape[1]
    first, second = torch.triu_indices(n, n, offset=1)
    loses = less_than_zero(x[:, first] - x[:, second]).share
    rank = torch.zeros(x.shape, dtype=torch.int64)
    rank.index_add_(1, first, loses)
    rank.index_add_(1, second, -loses)
    # the second of a pair ranks behind the first unless the first is smaller; element i is the second of i pairs
    behind = MPCTensor.from_shares(rank, precision=0)
    return behind + torch.arange(n)


def one_hot(x: MPCTensor, count: int) -> MPCTensor:
    """Computes one-hot rows [rows, count, n] of x [rows, n], 1 where x is 0, 1, ..., count - 1; integer shares."""
    expanded = MPCTensor.from_shares(x.share.unsqueeze(1).expand(-1, count, -1).contiguous(), precision=0)
    # read as fixed point, since CrypTen scales the resulting bits wrongly when it compares integers for equality
    return fixed(expanded - torch.arange(count).reshape(1, count, 1))._eqz_2PC()  # noqa: SLF001 - its only equality


def exp(x: MPCTensor) -> MPCTensor:
    """Computes CrypTen's exponential, (1 + x / 2^8)^(2^8), for -512 < x <= 0."""
    return x.exp()


def configure() -> None:
    """Sets the CrypTen options that the engine relies on."""
    cfg.encoder.precision_bits = FRACTION_BITS
    cfg.mpc.provider = "TTP"
    cfg.mpc.protocol = "beaver"
