"""PyramidKV (arXiv 2406.02069): SnapKV with a budget that falls from layer to layer."""

from dataclasses import dataclass
from typing import ClassVar

from parties.policies.checks import number
from parties.policies.snapkv import SnapKV


@dataclass(frozen=True)
class PyramidKV(SnapKV):
    """SnapKV with more tokens in the lower layers and fewer in the upper ones, the same number in total.

    Attributes:
        compression_ratio: Share of the prompt's tokens that is removed over all layers, in [0, 1); 0 keeps everything.
        mode: What happens to evicted rows, `compact` or `mask`.
        window_size: Number of last prompt tokens, whose queries rate the others and which are always kept.
        kernel_size: Number of tokens over which scores are smoothed, odd.
        pooling: `avg` is local; `max` takes kernel_size - 1 comparisons per token and head.
        beta: Steepness: the highest layer's share of the mean budget is 1 / beta.
    """

    name: ClassVar[str] = "pyramidkv"
    keeps: ClassVar[str] = "as `snapkv`, with a public budget for each layer that falls linearly"
    source: ClassVar[str] = (
        "Cai et al., arXiv 2406.02069. Budgets of kvpress `PyramidKVPress`, which falls back to equal ones if the "
        "highest layer cannot hold the window; the authors' code does not count the window towards the budget"
    )

    beta: float = 20.0

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A parameter is outside its range; the message names it, its value and the allowed values.
        """
        super().__post_init__()
        number("beta", self.beta, 1.0, 1e6)

    def layer_budgets(self, prompt: int, n_layers: int) -> tuple[int, ...]:
        """Falls from 2 b - b / beta tokens in the lowest layer to b / beta in the highest, for a mean of b tokens."""
        mean = prompt * (1 - self.compression_ratio)
        least = mean / self.beta
        most = 2 * mean - least
        if most >= prompt - self.window_size:
            most = prompt - self.window_size
            least = 2 * mean - most
        if n_layers == 1 or not self.compression_ratio or not prompt >= most >= least >= self.window_size:
            return (self.budget(prompt),) * n_layers
        return tuple(round(most - layer * (most - least) / (n_layers - 1)) for layer in range(n_layers))
