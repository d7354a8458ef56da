"""Prompts that the referee keeps from cell to cell, so that it computes their attention once for all policies."""

from collections.abc import Sequence

import torch

from parties.metering.cgroup import memory
from parties.models import ModelSpec
from parties.policies.base import Policy

SHARE = 4
"""Kept rows take at most the free memory divided by this: other parties may run on the same machine."""


class KeptPrompts:
    """Rows that enter each layer of a model, float64, [n, hidden], by the prompt's tokens.

    They belong to a session with one model and are released with it. When memory does not suffice, the prompts that
    were used longest ago are released first.
    """

    def __init__(self) -> None:
        self._inputs: dict[tuple[int, ...], list[torch.Tensor]] = {}

    def inputs(self, tokens: Sequence[int], spec: ModelSpec, policy: Policy) -> list[torch.Tensor] | None:
        """What `Decoder.prefill` takes as its `inputs`: a list that it completes.

        Args:
            tokens: The prompt.
            spec: The session's model.
            policy: The cell's policy.

        Returns:
            None if the policy changes what later tokens of the prompt attend to, or if there is too little memory.
        """
        if policy.chunk is not None:
            return None
        row = spec.n_layers * spec.hidden * torch.float64.itemsize
        allowed = (memory().available + row * self._kept) // SHARE
        inputs = self._inputs.pop(tuple(tokens), [])
        while self._inputs and row * (self._kept + len(tokens)) > allowed:
            del self._inputs[next(iter(self._inputs))]
        if row * len(tokens) > allowed:
            return None
        self._inputs[tuple(tokens)] = inputs
        return inputs

    @property
    def _kept(self) -> int:
        """Number of rows of all prompts, per layer."""
        return sum(map(len, self._inputs))
