"""Uniform ring elements."""

import torch

from parties.randomness import seed, uniform


def test_every_bit_is_fair_and_no_two_draws_agree() -> None:
    drawn = uniform(50_000, 2)
    bits = (drawn.reshape(-1, 1) >> torch.arange(64)) & 1
    assert (bits.double().mean(0) - 0.5).abs().max() * 2 * drawn.numel() ** 0.5 < 6
    assert drawn.unique().numel() == drawn.numel()
    assert not torch.equal(drawn, uniform(50_000, 2))


def test_shapes_without_elements() -> None:
    assert uniform(0, 3).shape == (0, 3)
    assert uniform().shape == ()


def test_seeds_differ_and_fit_in_64_bits() -> None:
    drawn = {seed() for _ in range(100)}
    assert len(drawn) == 100
    assert all(-(2**63) <= value < 2**63 for value in drawn)
