"""Nonlinear functions: each has its stated range, error, rounds and bytes."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from parties.decoding.cache import LayerCache
from parties.decoding.program import Program
from parties.engines.fss import bounds
from parties.engines.fss.arithmetic import gates, ring
from parties.engines.fss.arithmetic.matrices import ServerMatrix
from parties.engines.fss.arithmetic.values import Masked
from parties.engines.fss.computation import Computation
from parties.engines.fss.cost.simulation import Simulation, share, value_of
from parties.engines.fss.functions import ladders, softmax
from parties.engines.fss.functions.activation import activation, gated_activation, soft_cap
from parties.engines.fss.functions.norm import normalise, to_norm
from parties.engines.fss.functions.windowed import WindowedFunction
from parties.engines.fss.randomness.source import CLIENT, DEALER, SERVER, Source
from parties.engines.fss.topk import maximum
from parties.engines.operations import MatrixProduct
from parties.engines.plain import ACTIVATIONS
from parties.options import SoftmaxForm
from parties.policies.full import Full

Function = Callable[[Masked], Program[Any]]


def computed(
    function: Function, x: Tensor, limit: float, scale: int = 16, form: SoftmaxForm = "tables"
) -> tuple[Any, Any, Simulation]:
    """Both parties' results; truncation fails now and then, and then another seed is used."""
    for seed in range(20):
        simulation = Simulation(seed)

        def program(source: Source) -> Program[Any]:
            source.softmax = form
            return (yield from function((yield from gates.open_(share(source, x, limit, scale)))))

        try:
            return (*simulation.run(program), simulation)
        except gates.TruncationFailure:
            continue
    raise AssertionError("truncation failed twenty times in a row")


def costs(simulation: Simulation, inputs: int) -> tuple[int, int, tuple[int, int]]:
    """Rounds, online bytes and offline bytes without the opening of the input."""
    cost = simulation.cost
    return cost.rounds - 1, cost.online_bytes - 8 * inputs, cost.offline_bytes


@pytest.mark.parametrize("kind", ["silu", "gelu", "gelu_tanh"])
def test_activations(kind: str) -> None:
    x = torch.cat(
        [
            torch.linspace(bounds.ACTIVATION.low, bounds.ACTIVATION.high - 1e-3, 3000),
            torch.randn(3000) * 3,
            torch.tensor([0.0, 49.0, -49.0]),
        ]
    ).double()
    first, second, simulation = computed(lambda v: activation(v, kind), x, 64.0)
    error = value_of(first, second) - ACTIVATIONS[kind](x)
    assert error.abs().max() <= 4e-3
    assert error[3000:].square().mean().sqrt() <= 4e-4
    n = len(x)
    assert costs(simulation, n) == (2, 24 * n, (0, 312 * n))


@pytest.mark.parametrize("cap", [4.0, 50.0, 1000.0])
def test_soft_caps(cap: float) -> None:
    x = torch.linspace(bounds.CAPPED.low, bounds.CAPPED.high - 1e-3, 3000).double()
    first, second, simulation = computed(lambda v: soft_cap(v, cap), x, 256.0)
    error = value_of(first, second) - cap * torch.tanh(x / cap)
    assert error.abs().max() <= 0.025 / cap + 1e-3
    assert costs(simulation, len(x)) == (2, 24 * len(x), (0, 312 * len(x)))


def test_gated_activations() -> None:
    generator = torch.Generator().manual_seed(2)
    gates_ = torch.cat([torch.randn(3000, generator=generator) * 3, torch.tensor([49.0, -49.0, 0.0])]).double()
    x = torch.cat([torch.randn(3000, generator=generator) * 3, torch.tensor([20.0, 63.0, -63.0])]).double()
    both = torch.stack([gates_, x])
    first, second, simulation = computed(lambda v: gated_activation(v[0], v[1], "silu"), both, 64.0)
    error = value_of(first, second) - ACTIVATIONS["silu"](gates_) * x
    assert (error.abs() <= x.abs() * 4e-3 + ACTIVATIONS["silu"](gates_).abs() * 2.0**-12 + 2.0**-16).all()
    assert error[:3000].square().mean().sqrt() <= 1.2e-3
    n = len(x)
    assert costs(simulation, 2 * n) == (2, 24 * n, (0, 360 * n))


def rows(mean_square: float, d: int) -> Tensor:
    """A flat row, one with an outlier that holds nearly all of it, and a normal one."""
    drawn = torch.randn(3, d, generator=torch.Generator().manual_seed(int(mean_square * 1000) % 1000)).double()
    drawn[0], drawn[1, 5] = 1.0, 40 * math.sqrt(d)
    return drawn / drawn.square().mean(1, keepdim=True).sqrt() * math.sqrt(mean_square)


@pytest.mark.parametrize("d", [48, 576, 768, 2048])
@pytest.mark.parametrize("mean_square", [0.005, 0.5, 1300.0, bounds.MEAN_SQUARE.high])
def test_rms_norm_over_eight_orders_of_magnitude(d: int, mean_square: float) -> None:
    x = rows(mean_square, d)
    first, second, simulation = computed(lambda v: normalise(to_norm(v, centre=False), 1e-5), x, 2.0**16)
    expected = x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-5)
    error = (value_of(first, second) - expected).abs()
    assert (error <= 2e-4 + expected.abs() * 2.0**-11).all()
    rounds, online, _ = costs(simulation, x.numel())
    assert rounds == 3
    assert online == 16 * x.numel() + 3 * 16, "two parts per element; a sum and a root per row"


@pytest.mark.parametrize(("d", "mean_square", "largest"), [(48, 0.005, 8.0), (576, 1.0, 16.0), (2048, 1300.0, 60.0)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_norm_after_a_matrix_product(d: int, mean_square: float, largest: float, bias: bool) -> None:
    generator = torch.Generator().manual_seed(d)
    x, matrix = rows(mean_square, d), torch.randn(d, 12, generator=generator).double() / math.sqrt(d)
    matrix *= largest / (x @ matrix / math.sqrt(mean_square)).abs().max()
    x, shift = x + 3.0 * bias, torch.randn(12, generator=generator).double() * bias

    def program(v: Masked) -> Program[Any]:
        engine = Computation(v.source)
        noise = torch.randint(-(2**62), 2**62, (12, d), generator=torch.Generator().manual_seed(1))
        encoded = ring.encode(matrix.T.contiguous())
        parts = {SERVER: encoded, CLIENT: encoded - noise, DEALER: noise}
        engine.matrices = {"0.qkv": ServerMatrix(parts[v.source.rank])}
        engine.biases = {"0.qkv.bias": share(v.source, shift, 64.0)} if bias else {}
        product = MatrixProduct("0.qkv", "qkv")
        return (yield from engine.normalised_linear(engine.to_norm(v, centre=bias), 1e-5, product))[0]

    first, second, simulation = computed(program, x, 64.0 if mean_square < 1 else 2.0**16)
    centred = x - x.mean(1, keepdim=True) * bias
    scale = torch.rsqrt(centred.square().mean(1, keepdim=True) + 1e-5)
    error = (value_of(first, second) - (centred @ matrix * scale + shift)).abs()
    rounded = 2.0 ** -(15 if mean_square < 1 else 13) * scale * (1 + matrix.norm(dim=0) * 3)
    assert (error <= rounded + largest * 2.0**-12 + 2.0**-14).all()
    assert simulation.cost.rounds - 1 == 3


@pytest.mark.parametrize(("d", "mean_square"), [(48, 0.02), (576, 1.0), (576, 2000.0)])
def test_scores_of_a_query_before_its_norm(d: int, mean_square: float) -> None:
    """Two query heads share a key head of 8 numbers; 5 tokens are cached, and there is room for 3."""
    dice = torch.Generator().manual_seed(d)
    x = rows(mean_square, d)[2:]
    matrix = torch.randn(d, 32, generator=dice).double() * math.sqrt(4 / d)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=dice).double())[0]
    cached = torch.randn(1, 5, 8, generator=dice).double() * 3

    def program(v: Masked) -> Program[Any]:
        engine = Computation(v.source)
        noise = torch.randint(-(2**62), 2**62, (32, d), generator=torch.Generator().manual_seed(1))
        encoded = ring.encode(matrix.T.contiguous())
        parts = {SERVER: encoded, CLIENT: encoded - noise, DEALER: noise}
        engine.matrices = {"0.qkv": ServerMatrix(parts[v.source.rank])}
        opened = yield from gates.open_(share(v.source, cached, 64.0))
        layer, normal = LayerCache(opened, opened), engine.to_norm(v, centre=False)
        layer.make_room(engine, Full().begin_tokens)

        def turned(heads: Masked) -> Masked:
            return sum_of([heads[..., i : i + 1].expand(*heads.shape) * turn[i] for i in range(8)])

        return (yield from engine.scored_projection(normal, 1e-5, [MatrixProduct("0.qkv", "qkv")], turned, layer))[:3]

    first, second, simulation = computed(program, x, 64.0 if mean_square < 1 else 2.0**16)
    k, v, scores = (value_of(a, b) for a, b in zip(first, second, strict=True))
    expected = (x * torch.rsqrt(x.square().mean() + 1e-5) @ matrix).reshape(4, 8)
    q, own = expected[:2] @ turn, expected[2:3] @ turn
    assert (k[:, 0] - own).abs().max() < 2e-2
    assert (v[:, 0] - expected[3]).abs().max() < 2e-2
    wanted = q @ torch.cat([cached[0], own]).T
    assert (scores[:, 0, :6] - wanted).abs().max() < 0.05
    assert (scores[:, 0, 6:] == 0).all()
    assert simulation.cost.rounds - 2 == 3, "without the row's and the cache's opening"


def sum_of(values: list[Masked]) -> Masked:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


def test_all_of_thousands_of_rows_are_right() -> None:
    generator = torch.Generator().manual_seed(1)
    size = 10 ** (torch.rand(1500, 1, generator=generator) * 3.4 - 1)
    x = (torch.randn(1500, 8, generator=generator) * size).double()
    first, second, _ = computed(lambda v: normalise(to_norm(v, centre=False), 1e-5), x, 2.0**16)
    expected = x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-5)
    assert (value_of(first, second) - expected).abs().max() <= 5e-3


def test_layer_norm_and_rows_of_zeros() -> None:
    x = torch.cat([rows(9.0, 768)[1:] + 3.0, torch.zeros(1, 768)])
    first, second, _ = computed(lambda v: normalise(to_norm(v, centre=True), 1e-5), x, 2.0**10)
    centred = x - x.mean(1, keepdim=True)
    expected = centred * torch.rsqrt(centred.square().mean(1, keepdim=True) + 1e-5)
    assert (value_of(first, second) - expected).abs().max() <= 3e-3


NORMAL = torch.randn(9, 1024, generator=torch.Generator().manual_seed(4))
FORMS = get_args(SoftmaxForm)
SCORES = {
    "one": torch.zeros(9, 1),
    "flat": torch.zeros(9, 1024),
    "nearly flat": NORMAL[:, :1000] * 0.01,
    "usual": NORMAL[:, :300] * 6,
    "low": NORMAL - 38,
    "high": NORMAL[:, 300:600] * 5 + 20,
    "far below the peak": torch.cat([torch.full((9, 1), 20.0), torch.full((9, 30), -110.0), NORMAL[:, :60] - 87], 1),
    "ends of the range": torch.tensor([[bounds.SCORE.low], [0.0], [bounds.PEAK.high], [bounds.PEAK.low]])
    .repeat(1, 9)
    .T,
    "two peaks": torch.cat([torch.full((9, 2), 40.0), torch.full((9, 200), -60.0)], 1),
}


def exponentials(scores: Masked) -> Program[Any]:
    """Weights, their sums, and the inverse of these."""
    weights = yield from softmax.exponentials(scores)
    total = weights.sum(-1).bounded(bounds.TOTAL_LIMIT)
    return weights, total, (yield from softmax.reciprocal(total))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SCORES)
def test_softmax(name: str, form: SoftmaxForm) -> None:
    x = SCORES[name].double().clamp(bounds.SCORE.low, bounds.PEAK.high)
    first, second, simulation = computed(exponentials, x, bounds.SCORE_LIMIT, scale=32, form=form)
    weights, total, inverse = (value_of(a, b) for a, b in zip(first, second, strict=True))
    assert 0.03 < total.min() <= total.max() < 3.7
    expected = x.softmax(1) * total.unsqueeze(1)
    assert ((weights - expected).abs() <= 2.0**-7 * expected + 2.0**-15).all()
    assert ((total * inverse - 1).abs() <= (2.0**-11 / total) ** 2 + 2.0**-13).all()
    is_counted, n = form == "dpf", x.numel()
    assert simulation.cost.rounds - 1 == 5 - is_counted + 2
    per_row = simulation.cost.online_bytes - 8 * n - (24 if is_counted else 48) * n
    assert 0 < per_row <= 9 * 240


LENGTHS = [1024, 1025, 2048, 2049, 4096, 4097, 8192]


@pytest.mark.parametrize("spread", [0.0, 0.5, 8.0], ids=["flat", "nearly flat", "usual"])
@pytest.mark.parametrize(
    ("n", "form"),
    [*((n, "tables") for n in [*LENGTHS, 32_768, 131_072]), *((n, "dpf") for n in [40, *LENGTHS, 16_384])],
)
@pytest.mark.slow
def test_softmax_of_long_rows_wherever_their_peak_is(n: int, form: SoftmaxForm, spread: float) -> None:
    peaks = torch.linspace(-44, 44, max(4, min(400, 80_000 // n))).double().unsqueeze(1)
    noise = torch.randn(len(peaks), n, generator=torch.Generator().manual_seed(n)).double() * spread
    x = (noise - noise.logsumexp(1, keepdim=True) + peaks).clamp(-63, 63)
    first, second, simulation = computed(exponentials, x.unsqueeze(1), 64.0, scale=32, form=form)
    weights, total, inverse = (value_of(a, b).squeeze(1) for a, b in zip(first, second, strict=True))
    assert simulation.cost.rounds - 1 == (6 if form == "dpf" else 7)
    assert 0.04 < total.min() <= total.max() < bounds.TOTAL_LIMIT
    assert weights.max() < bounds.WEIGHT_LIMIT
    assert ((total * inverse - 1).abs() <= (2.0**-11 / total) ** 2 + 2.0**-13).all()
    expected = x.softmax(1)
    relative, absolute = (2.0**-7, 2.0**-15) if n <= 1024 else (0.01 if n <= 32_768 else 0.02, 2.0**-17)
    scaled = expected * total.unsqueeze(1)
    assert ((weights - scaled).abs() <= relative * scaled + absolute).all()
    off = weights * inverse.unsqueeze(1) - expected
    assert (off.unsqueeze(1) @ cells_of(x)).abs().max() < 0.03, "no neighbourhood of scores weighs too much"


def cells_of(x: Tensor) -> Tensor:
    """One-hot integer parts of the scores: [rows, n, 128]."""
    return torch.nn.functional.one_hot(x.floor().long() + 64, 128).double()


def test_a_softmax_by_counts_saves_a_round_and_costs_what_it_says() -> None:
    n, heads, key = 1000, 8, 20 * (29 - 2) + 16  # 17 scales with 8 powers
    found = [
        costs(computed(softmax.exponentials, torch.zeros(heads, 1, n), 64.0, form=form)[2], heads * n) for form in FORMS
    ]
    assert [rounds for rounds, _, _ in found] == [5, 4]
    assert found[1][1:] == (
        heads * (24 * n + 8 * 17 + 8),
        (heads * (96 * n + 17 * key), heads * (216 * n + 17 * (key + 8))),
    )
    assert found[0][1] == heads * (48 * n + 8 * 3 + 8)
    many = [computed(softmax.exponentials, torch.zeros(1, 17, 20), 64.0, form=form)[2].cost for form in FORMS]
    assert many[0] == many[1], "of many queries the scores are looked up"


def test_a_row_that_is_too_long_is_refused_and_so_is_a_ladder_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="a row of 131,073 attention scores: fss takes at most 131,072 tokens"):
        ladders.ladder_of(131_073)
    with pytest.raises(ValueError, match="rows of 2048: 11 coarse bits are too many"):
        replace(ladders.LADDERS[0], longest=2048)  # sums would leave the ring
    with pytest.raises(ValueError, match="rows of 32768: 13 coarse bits are too many or too few"):
        replace(ladders.LADDERS[3], coarse_bits=13)  # many small scores would round to nothing
    with pytest.raises(ValueError, match="rows of 1024: 2 scales end below 47"):
        replace(ladders.LADDERS[0], floors=2)
    with pytest.raises(ValueError, match="rows of 16385 scores to be counted; at most 16384"):
        ladders.LADDERS[3].counted(16_385)


@pytest.mark.parametrize("form", FORMS)
def test_masked_scores_weigh_nothing(form: SoftmaxForm) -> None:
    x, mask = torch.randn(3, 20).double() * 5, torch.arange(20) < torch.tensor([[1], [5], [20]])
    first, second, _ = computed(lambda v: softmax.exponentials(v, mask), x, 64.0, scale=32, form=form)
    weights = value_of(first, second)
    assert (weights[~mask] == 0).all()
    shares = weights / weights.sum(1, keepdim=True)
    assert (shares - x.masked_fill(~mask, -torch.inf).softmax(1)).abs().max() < 5e-3


def test_division_over_the_range_of_sums() -> None:
    generator = torch.Generator().manual_seed(3)
    total = torch.logspace(-6, math.log2(7.9), 300, base=2.0).double()
    mean = (torch.rand(300, 8, generator=generator) * 2 - 1).double() * 31
    both = torch.cat([mean * total.unsqueeze(1), total.unsqueeze(1)], 1)

    def function(v: Masked) -> Program[Any]:
        opened = yield from softmax.inverse(v[:, 8])
        return (yield from softmax.divide(gates.truncate(v[:, :8]), opened, bounds.MIXED.limit))

    first, second, simulation = computed(function, both, 256.0, scale=18)
    error = (value_of(first, second) - mean).abs()
    relative, numerator = (2.0**-11 / total) ** 2 + 2.0**-13, 2.0**-16 / total
    assert (error <= (mean.abs() * relative.unsqueeze(1) + numerator.unsqueeze(1)) + 2.0**-16).all()
    assert simulation.cost.rounds - 1 == 2


def test_reciprocal_over_its_range() -> None:
    reciprocal = WindowedFunction(lambda x: 1 / x, 24, 34, 29, 28, 64.0)
    x = torch.logspace(-5, 4.9, 400, base=2.0).double()

    def function(v: Masked) -> Program[Any]:
        return (yield from gates.open_((yield from reciprocal.apply(v))))

    first, second, simulation = computed(function, x, 32.0, scale=29)
    assert (value_of(first, second) * x - 1).abs().max() < 2.0**-15
    assert simulation.cost.rounds - 1 == 2


def test_a_range_that_does_not_fit_the_ring_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2\^40 to 2\^63"):
        WindowedFunction(lambda x: x, 40, 63, 16, 16, 1.0)


def test_maximum_is_exact_also_of_equals() -> None:
    x = torch.tensor([[1.0, -2.0, 3.0, 0.0], [1.0, 5.0, -3.0, 0.0]]).double()
    first, second, simulation = computed(lambda v: maximum.elementwise_maximum(v[0], v[1]), x, 8.0)
    assert torch.equal(value_of(first, second), torch.tensor([1.0, 5.0, 3.0, 0.0]).double())
    assert costs(simulation, 8)[:2] == (2, 8 * 4 + 1)


@pytest.mark.parametrize("n", [1, 2, 3, 17, 49_152])
def test_argmax_is_the_lowest_index_of_the_largest(n: int) -> None:
    x = torch.randint(-30, 31, (n,), generator=torch.Generator().manual_seed(n)).double()
    first, second, simulation = computed(maximum.argmax, x, 64.0)
    assert int(value_of(first, second)) == int((x == x.max()).nonzero()[0])
    assert costs(simulation, n)[:2] == (math.ceil(math.log2(n)), 16 * (n - 1))
