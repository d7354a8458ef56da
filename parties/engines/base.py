"""The contract between a secure computation and what is computed on it.

The decoder and every policy are written once against `Engine`. What it computes with is in
`parties.engines.operations`, and attention, which is composed of that, in `parties.engines.attention`; here is how it
lives through a run, and how values come in and go out.

All parties of a run execute the same programs in the same order. Control flow depends on public numbers alone.
"""

from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch

from parties.decoding.batch import AnyCaches, Caches
from parties.decoding.program import Openings, Program, run
from parties.decoding.workload import Workload
from parties.engines.attention import Attention
from parties.engines.bounds import Bound
from parties.metering.meter import StageMeter
from parties.options import RunOptions

T = TypeVar("T")
Shapes = Mapping[str, tuple[int, ...]]


class Engine(Attention):
    """One party's side of a secure computation.

    Attributes:
        name: Key in `parties.engines.ENGINES`.
        trust_model: Who must not collude with whom, for the record and the report.
        devices: Devices that it supports, `cpu` and maybe `cuda`.
        tolerance: Largest absolute error of a logit, against the `plain` engine, that still counts as correct.
        bounds: Ranges of the numbers that it supports, by the keys of `parties.engines.watched`; empty if it takes any.
        verifies: Whether it computes several tokens in one pass, as a draft needs it.
        number_bytes: Memory that a function of one number takes while it is computed; bounds the chunks of a prompt. 0
            on shapes alone.
        exchange: Opens what programs yield; None if they never do.
    """

    name: ClassVar[str]
    trust_model: ClassVar[str]
    devices: ClassVar[tuple[str, ...]]
    tolerance: ClassVar[float]
    bounds: ClassVar[Mapping[str, Bound]] = {}
    verifies: ClassVar[bool] = True
    number_bytes: ClassVar[int] = 512

    def __init__(self, meter: StageMeter) -> None:
        self.meter = meter
        self.exchange: Callable[[Openings], Openings] | None = None

    @classmethod
    def require(cls) -> None:
        """Called before a cell's model is loaded, where the party runs.

        Raises:
            Unsupported: This host lacks a part of the engine.
        """

    @classmethod
    def declared(cls, options: RunOptions) -> Mapping[str, Bound]:  # noqa: ARG003 - for engines whose bounds may change
        """The bounds that hold in a cell with these options."""
        return cls.bounds

    def prepare(self, workload: Workload, caches: AnyCaches) -> AnyCaches:  # noqa: ARG002
        """Called before a cell's first program: the adopted caches in the form that the engine decodes from.

        Args:
            workload: The programs that will be run, by their public values, and how.
            caches: The prefilled caches, of adopted values; empty if prompts are run.

        Raises:
            Unsupported: The engine does not take a sequence so long, or a model so wide.
        """
        return caches

    def run_segment(self, program: Callable[[], Program[T]], caches: Caches, name: Hashable = None) -> T:  # noqa: ARG002
        """Runs a segment of a cell; an engine may run it again, with the caches as they were before.

        Args:
            program: The segment.
            caches: What it reads and changes.
            name: Segments of the same name do the same on values of the same shapes; None if nothing is known.
        """
        return run(program(), self.exchange)

    def rehearse(self, segments: Sequence[Callable[[], Program[Any]]], caches: Caches) -> None:
        """Called before the first token: does what the tokens' segments need only once.

        Args:
            segments: Those of the first token, in order; see `run_segment`.
            caches: What they will read and change; they stay as they are.
        """

    def prefilled(self) -> None:
        """Called between the last segment of a prompt and the first token, which the dealer accounts for separately.

        This party has accounted for the prompt before: from here on, the dealer may send what belongs to the tokens.
        """

    @property
    def replayed_segments(self) -> int:
        """Segments of this cell's tokens that were replayed from a recording."""
        return 0

    @property
    def interpreted_segments(self) -> Mapping[str, int]:
        """The other segments of an engine that records, by the reason."""
        return {}

    def finish(self) -> None:
        """Called once a run needs no more correlated randomness."""

    # -- values in and out ---------------------------------------------------------------------------------------------

    @abstractmethod
    def install(self, shapes: Shapes, weights: Mapping[str, torch.Tensor] | None) -> Program[None]:
        """Takes in the model: `shapes` is public, `weights` (float32, same names) is the server's, None elsewhere."""

    @abstractmethod
    def public(self, tensor: torch.Tensor) -> torch.Tensor:
        """A public tensor on the device and in the format of the factors of the engine's values."""

    def varying(self, numbers: Callable[[int], torch.Tensor], limit: float) -> Any:  # noqa: ARG002
        """Public factors that change from token to token and keep their shape.

        Args:
            numbers: The factors of the token so many steps after the current one, 0 for the current one, float64.
            limit: All |factors| are at most so large, at every token.
        """
        return self.public(numbers(0))

    @abstractmethod
    def adopt(self, share: torch.Tensor) -> Any:
        """A value from this party's part of what `split` made."""

    @abstractmethod
    def export(self, value: Any) -> torch.Tensor:
        """This party's part of a value, for `combine`."""

    @classmethod
    @abstractmethod
    def split(cls, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cuts a float tensor into a part for the client and one for the server; each alone is uniformly random."""

    @classmethod
    @abstractmethod
    def combine(cls, parts: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """The inverse of `split`, as float64."""

    @abstractmethod
    def embed(self, tokens: Sequence[int] | None, count: int) -> Program[Any]:
        """Rows of the parameter `embed`, [count, hidden].

        Args:
            tokens: The client's tokens; None elsewhere. A recorded step reads the sequence again at each token.
            count: Their number, public.
        """

    @abstractmethod
    def argmax(self, logits: Any) -> Program[Any]:
        """Index of the largest of each row of `logits` [n, vocab], for `open_index`."""

    def open_index(self, index: Any) -> list[int] | None:
        """Opens the result of `argmax` to the client; None elsewhere. By default, as in the clear, it is open."""
        return index  # type: ignore[no-any-return]

    @abstractmethod
    def reveal(self, value: Any) -> Program[torch.Tensor | None]:
        """The value as a float tensor, for the client; None at the server."""

    def announce(self, number: int | None, most: int) -> int:
        """Sends a public number from the client, which alone passes it, to all parties. Half a round.

        Args:
            number: The number, 1 to `most`.
            most: The largest number that the others accept.

        Raises:
            PartyError: The number that arrives is another one.
        """
        raise NotImplementedError(f"engine {self.name} announces nothing")
