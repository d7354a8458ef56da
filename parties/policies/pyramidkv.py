"""PyramidKV (arXiv 2406.02069): SnapKV with a budget that falls from layer to layer."""

from dataclasses import dataclass
from typing import ClassVar

from parties.policies.checks import number
from parties.policies.snapkv import SnapKV


@dataclass(frozen=True)
class PyramidKV(SnapKV):
    """SnapKV with more tokens in the lower layers and fewer in the upper ones, the same number in all.

    Attributes:
        compression_ratio: share of the prompt's tokens that is removed over all layers, in [0, 1); 0 keeps everything.
        mode: what becomes of evicted rows, `compact` or `mask`.
        window_size: last tokens of the prompt, whose queries rate the others and which always stay.
        kernel_size: tokens that are smoothed over, odd.
        pooling: `avg` is local; `max` takes kernel_size - 1 comparisons a token and head.
        beta: how steep: the highest layer's share of the mean budget is 1 / beta.
    """

    name: ClassVar[str] = "pyramidkv"
    keeps: ClassVar[str] = "as `snapkv`, with a public budget for each layer that falls linearly"
    source: ClassVar[str] = (
        "Cai et al., arXiv 2406.02069. Budgets of kvpress `PyramidKVPress`, which falls back to equal ones where the "
        "highest layer could not hold the window; the authors' code counts the window beside the budget"
    )

    beta: float = 20.0

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: names the parameter, its value and what is allowed.
        """
        super().__post_init__()
        number("beta", self.beta, 1.0, 1e6)

    def layer_budgets(self, prompt: int, n_layers: int) -> tuple[int, ...]:
        """From 2 b - b / beta tokens at the bottom to b / beta at the top around the mean b, within the prompt."""
        mean = prompt * (1 - self.compression_ratio)
        least = mean / self.beta
        most = 2 * mean - least
        if most >= prompt - self.window_size:
            most = prompt - self.window_size
            least = 2 * mean - most
        if n_layers == 1 or not self.compression_ratio or not prompt >= most >= least >= self.window_size:
            return (self.budget(prompt),) * n_layers
        return tuple(round(most - layer * (most - least) / (n_layers - 1)) for layer in range(n_layers))
