"""Gates: exact arithmetic, truncation failures, and all misuses of correlated randomness."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from parties.decoding.program import Program, parallel, run
from parties.engines.fss.arithmetic import gates, ring
from parties.engines.fss.arithmetic.multiplication import multiply, sum_of_products
from parties.engines.fss.arithmetic.opening import Opener, Pad
from parties.engines.fss.arithmetic.values import Masked
from parties.engines.fss.cost.simulation import BeyondBound, Simulation, share, value_of
from parties.engines.fss.randomness.constants import Constants
from parties.engines.fss.randomness.frames import FrameReader, RandomnessOutOfStep, RandomnessReused
from parties.engines.fss.randomness.source import Source
from parties.engines.keystream import Keystream
from parties.errors import OutOfStep
from parties.metering.meter import StageMeter
from parties.transport.mesh import Mesh
from tests.helpers.together import together


def masked(source: Source, numbers: Tensor, limit: float = 2.0**10) -> Program[Masked]:
    return gates.open_(share(source, numbers, limit))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(0, 2**16), st.booleans())
def test_products_of_integers_are_exact(count: int, seed: int, broadcast: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    numbers = [
        torch.randint(-(2**12), 2**12, (3, 1 if broadcast and i else 4), generator=generator) for i in range(count)
    ]

    def program(source: Source) -> Program[Any]:
        factors = yield from parallel(*(masked(source, n / 2**16) for n in numbers))
        return multiply(factors, limit=2.0**40)

    first, second = Simulation(seed).run(program)
    expected = numbers[0].expand(3, 4).clone()
    for other in numbers[1:]:
        expected = expected * other
    assert torch.equal(first.share + second.share, expected if count > 1 or not broadcast else numbers[0])


def test_a_sum_of_products_deals_a_set_of_factors_once() -> None:
    x, y, z = (torch.randint(-(2**12), 2**12, (3, 4)) for _ in range(3))

    def run(*terms: str) -> tuple[Tensor, int]:
        def program(source: Source) -> Program[Any]:
            named = dict(
                zip("xyz", (yield from parallel(*(masked(source, n / 2**16) for n in (x, y, z)))), strict=True)
            )
            return sum_of_products([[named[name] for name in term] for term in terms], limit=2.0**40)

        simulation = Simulation()
        first, second = simulation.run(program)
        return first.share + second.share, simulation.cost.offline_bytes[1]

    result, dealt = run("xy", "zy", "xy")
    assert torch.equal(result, 2 * x * y + z * y)
    assert dealt == run("xy", "zy")[1]


def test_products_of_different_scales_are_not_summed() -> None:
    def program(source: Source) -> Program[Any]:
        x = yield from masked(source, torch.ones(3))
        return sum_of_products([[x], [x, x]])

    with pytest.raises(
        ValueError, match=r"products of \[16, 32\] fraction bits cannot be summed; rescale their factors"
    ):
        Simulation().run(program)


def test_matrix_product_with_public_work_around_it() -> None:
    x, y, c = torch.randn(2, 3, 30), torch.randn(2, 30, 4), torch.randn(3, 1)

    def program(source: Source) -> Program[Any]:
        a, b = yield from parallel(masked(source, x, 8.0), masked(source, y, 8.0))
        product = yield from gates.open_(gates.matmul(a, b))
        return gates.truncate(gates.truncate(product) * c - (a[:, :, :4] + a[:, :, 4:8]))

    simulation = Simulation()
    result = value_of(*simulation.run(program))
    expected = (x.double() @ y.double()) * c - (x[:, :, :4] + x[:, :, 4:8])
    assert (result - expected).abs().max() < 2e-3
    assert simulation.cost.rounds == 2
    assert simulation.cost.online_bytes == 8 * (x.numel() + y.numel() + 24)
    # 24 outputs, truncated twice
    assert simulation.cost.offline_bytes == (0, 8 * 3 * 24)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**16))
def test_truncation_is_within_one_unit_and_unbiased(drop: int, seed: int) -> None:
    integers = torch.randint(-(2**34), 2**34, (2000,), generator=torch.Generator().manual_seed(seed))

    def program(source: Source) -> Program[Any]:
        x = yield from gates.open_(share(source, integers.double() / 2.0**32, 8.0, scale=32))
        return gates.truncate(x, 32 - drop)

    first, second = Simulation(seed).run(program)
    error = (first.additive().share + second.additive().share).double() - integers.double() / 2**drop
    assert error.abs().max() <= 1
    assert abs(float(error.mean())) < 0.1


def test_a_truncation_failure_is_detected_by_both_and_nothing_is_truncated_wrongly() -> None:
    integers = torch.full((4000,), 2**55)
    outcomes = []

    def program(source: Source) -> Program[Any]:
        x = yield from gates.open_(share(source, integers.double() / 2.0**16, 2.0**40))
        try:
            return gates.truncate(x, 0)
        except gates.TruncationFailure:
            outcomes.append(source.rank)
            raise

    with pytest.raises(gates.TruncationFailure):
        Simulation().run(program)
    assert len(outcomes) == 1  # the client stops first; the server sees the same public number

    def one(source: Source) -> Program[Any]:
        x = yield from gates.open_(share(source, integers[:1].double() / 2.0**16, 2.0**40))
        return gates.truncate(x, 0)

    survived = 0
    for seed in range(60):
        try:
            first, second = Simulation(seed).run(one)
        except gates.TruncationFailure:
            continue
        survived += 1
        assert abs(int(first.additive().share + second.additive().share) - 2**39) <= 1
    assert survived > 30


def test_a_value_beyond_its_declared_bound_raises() -> None:
    with pytest.raises(BeyondBound, match="declared to stay below 2\\^19"):
        Simulation().run(lambda source: masked(source, torch.tensor([9.0]), limit=8.0))


def test_a_mask_hides_one_value_only() -> None:
    pad = Pad(Simulation().client, (3,))
    pad.hide(torch.zeros(3, dtype=torch.int64))
    with pytest.raises(RandomnessReused, match="second value"):
        pad.hide(torch.ones(3, dtype=torch.int64))


def test_an_epochs_randomness_is_used_once() -> None:
    simulation = Simulation()
    simulation.run(lambda source: masked(source, torch.zeros(2)))
    for source in (simulation.client, simulation.server):
        with pytest.raises(RandomnessReused, match="epoch 1"):
            source.begin(1)


def test_epochs_of_one_seed_share_no_block() -> None:
    stream = Keystream(bytes(32))
    drawn = []
    for epoch in (1, 2, 1 << 32 | 1):
        stream.begin(epoch)
        drawn.append(stream.words((4096,)))
    assert len(torch.cat(drawn).unique()) == 3 * 4096


def test_a_reader_skips_abandoned_epochs_and_refuses_frames_that_come_too_early() -> None:
    frames = [bytes([epoch]) + bytes(7) + bytes([epoch] * 4) for epoch in (1, 2, 3)]
    reader = FrameReader(lambda: frames.pop(0))
    reader.begin(2)
    assert reader.take((4,), np.uint8).tolist() == [2] * 4
    with pytest.raises(RandomnessOutOfStep, match="epoch 2 is used up"):
        reader.take((1,), np.uint8)


def test_a_dealer_that_runs_another_program_is_detected() -> None:
    def program(source: Source) -> Program[Any]:
        x = yield from masked(source, torch.zeros(3 if source.rank == 2 else 4, 5))
        return multiply([x, x])

    with pytest.raises(RandomnessOutOfStep):
        Simulation().run(program)


def test_openings_look_uniform_for_all_values() -> None:
    def program(source: Source) -> Program[Any]:
        x = yield from masked(source, torch.full((50_000,), 3.25))
        return (yield from gates.open_(multiply([x, x])))

    simulation = Simulation(3)
    simulation.run(program)
    for (opened,) in simulation.opened:
        octets = torch.from_numpy(opened.numpy().view(np.uint8).reshape(-1, 8).copy()).long()
        for place in range(8):
            counts = torch.bincount(octets[:, place], minlength=256).double()
            chi_square = float(((counts - counts.mean()) ** 2 / counts.mean()).sum())
            assert chi_square < 255 + 6 * math.sqrt(2 * 255)


def differ(role: str, mesh: Mesh, meter: StageMeter, same_length: bool) -> str:
    peer = mesh["server" if role == "client" else "client"]
    source = Simulation().client if role == "client" else Simulation().server
    shape = (6,) if role == "client" else ((2, 3) if same_length else (5,))
    try:
        run(gates.open_(share(source, torch.zeros(shape), 1.0)), Opener(peer, meter, Constants()))
    except OutOfStep as error:
        return str(error)
    return "nothing noticed"


@pytest.mark.parametrize("same_length", [True, False])
@pytest.mark.slow
def test_parties_at_different_places_of_a_program_detect_it(same_length: bool) -> None:
    for text in together(differ, same_length, roles=("client", "server")).values():
        assert "out of step" in text


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0.5, (1, 1)), (-0.75, (-3, 2)), (3.0, (3, 0)), (128.0, (128, 0)), (0.0, (0, 0)), (0.6, (39_322 // 2, 15))],
)
def test_a_public_factor_has_as_few_fraction_bits_as_hold_it(number: float, expected: tuple[int, int]) -> None:
    integer, bits = ring.shortest(number)
    assert (integer, bits) == expected
    assert integer * 2.0**-bits == float(ring.decode(ring.encode(torch.tensor(number))))
