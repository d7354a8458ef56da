"""The `crypten` engine: additive shares in Z_2^64, Beaver triples from a dealer, bitwise comparison."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from parties.decoding.program import Program, eager, staged
from parties.engines import STOCK_IS_INSECURE, Randomness
from parties.engines.base import Engine, Shapes
from parties.engines.crypten import compat  # noqa: F401 - must come before crypten
from parties.engines.crypten import functions as f
from parties.engines.crypten.bounds import BOUNDS, MASKED_SCORE
from parties.engines.crypten.communicator import LinkCommunicator
from parties.engines.crypten.provider import DealerClient
from parties.engines.crypten.randomness import seed_shares
from parties.engines.crypten.selection import OneHot, flagged_rows, top_rows, top_two_levels, tournament
from parties.metering.meter import StageMeter
from parties.randomness import uniform
from parties.transport.announcements import announced
from parties.transport.mesh import Mesh

from crypten.mpc import MPCTensor  # isort: skip

CLIENT, SERVER = 0, 1
SCALE: int = 2**f.FRACTION_BITS
_TRUNCATION = (
    "its local truncation is wrong, undetected, with probability |x| / 2^32 for each truncated product x (x * 2^32 in "
    "a ring of 2^64)"
)


class CrypTenEngine(Engine):
    """One of CrypTen's two parties.

    Args:
        role: `client` or `server`.
        mesh: Links to the other party and to the dealer.
        meter: The party's stage meter.
    """

    name = "crypten"
    trust_model = (
        "two parties and a dealer, semi-honest, at most one of the three corrupted, the dealer does not collude; "
        f"randomness from AES-256 in counter mode, in place of CrypTen's own generator; {_TRUNCATION}"
    )
    randomness: ClassVar[Randomness] = "private"
    devices = ("cpu",)
    tolerance = 0.5
    bounds = BOUNDS
    masked_score = MASKED_SCORE

    def __init__(self, role: str, mesh: Mesh, meter: StageMeter) -> None:
        super().__init__(meter)
        self.rank = CLIENT if role == "client" else SERVER
        f.configure()
        self.communicator = LinkCommunicator(self.rank, mesh["server" if role == "client" else "client"])
        self.communicator.activate()
        with meter.stage("setup.seeds"):
            seed_shares(self.randomness, self.communicator)
            self.dealer = DealerClient(mesh["dealer"], meter)
        self.dealer.activate()
        self._parameters: dict[str, MPCTensor] = {}

    def prefilled(self) -> None:
        """Notifies the dealer that decoding begins."""
        if self.rank == CLIENT:
            self.dealer.prefilled()

    def finish(self) -> None:
        """Ends the session with the dealer."""
        if self.rank == CLIENT:
            self.dealer.finish()

    # -- values in and out ---------------------------------------------------------------------------------------------

    @eager
    def install(self, shapes: Shapes, weights: Mapping[str, Tensor] | None) -> None:
        """Shares the weights; nothing is sent, since the client's share is pseudorandom."""
        self._parameters = {}
        for name, shape in shapes.items():
            self._parameters[name] = self._share(None if weights is None else weights[name], shape, SERVER)

    @staticmethod
    def _share(tensor: Tensor | None, shape: Sequence[int], owner: int, precision: int | None = None) -> MPCTensor:
        return MPCTensor(torch.zeros(*shape) if tensor is None else tensor, src=owner, precision=precision)

    def public(self, tensor: Tensor) -> Tensor:
        """The tensor itself: CrypTen encodes it."""
        return tensor

    def constant(self, tensor: Tensor) -> MPCTensor:
        """The client's share is the encoding, and the server's is zero."""
        encoded = (tensor.double() * SCALE).round().long()
        return MPCTensor.from_shares(encoded if self.rank == CLIENT else torch.zeros_like(encoded))

    def adopt(self, share: Tensor) -> MPCTensor:
        """A value from an int64 share."""
        return MPCTensor.from_shares(share)

    def export(self, value: MPCTensor) -> Tensor:
        """The int64 share."""
        share: Tensor = value.share
        return share

    @classmethod
    def split(cls, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """Additive shares of the fixed-point encoding, from a cryptographic generator."""
        mask = uniform(*tensor.shape)
        encoded: Tensor = (tensor.double() * SCALE).round().long()
        return mask, encoded - mask

    @classmethod
    def combine(cls, parts: tuple[Tensor, Tensor]) -> Tensor:
        """The sum of the shares, divided by the scale."""
        opened: Tensor = (parts[0] + parts[1]).double() / SCALE
        return opened

    @eager
    def embed(self, tokens: Sequence[int] | None, count: int) -> MPCTensor:
        """One-hot rows, shared by the client, times the shared embedding."""
        table = self._parameters["embed"]
        rows = None
        if tokens is not None:
            rows = torch.zeros(count, table.shape[0])
            rows[torch.arange(count), torch.tensor(tokens)] = 1
        hot = self._share(rows, (count, table.shape[0]), CLIENT, precision=0)
        return hot.matmul(table)  # exact: 0/1 integers, so nothing is truncated

    @eager
    def argmax(self, logits: MPCTensor) -> Tensor:
        """A tournament that carries the index."""
        return tournament(logits)

    def open_index(self, index: Tensor) -> list[int] | None:
        """The index, opened to the client alone."""
        opened = self.communicator.reduce(index, CLIENT)
        return None if opened is None else opened.tolist()

    @eager
    def reveal(self, value: MPCTensor) -> Tensor | None:
        """The opened value, at the client."""
        opened = self.communicator.reduce(value.share, CLIENT)
        return None if opened is None else opened.double() / SCALE

    def announce(self, number: int | None, most: int) -> int:
        """One message to the server."""
        return announced(self.communicator.peer, number, most)

    # -- products and functions ----------------------------------------------------------------------------------------

    @eager
    def linear(self, x: MPCTensor, name: str, columns: int | None = None) -> MPCTensor:
        """Beaver product with the shared matrix, which is opened under a fresh mask each time."""
        y = x.matmul(self._parameters[name][:, :columns])
        bias = self._parameters.get(f"{name}.bias")
        return y if bias is None else y + bias[:columns]

    def parameter(self, name: str) -> MPCTensor:
        """A shared parameter."""
        return self._parameters[name]

    @eager
    def mul(self, x: MPCTensor, y: MPCTensor) -> MPCTensor:
        """Beaver product."""
        return x * y

    @eager
    def matmul(self, x: MPCTensor, y: MPCTensor) -> MPCTensor:
        """Beaver product."""
        return x.matmul(y)

    def to_norm(self, x: MPCTensor, *, centre: bool) -> MPCTensor:
        """The rows, minus their mean if `centre`."""
        return x - x.sum(1, keepdim=True) * (1 / x.shape[1]) if centre else x

    @eager
    def normalise(self, rows: MPCTensor, eps: float) -> MPCTensor:
        """RMS norm over seven orders of magnitude; see `functions.normalise_rows`."""
        return f.normalise_rows(rows, eps)

    @eager
    def activation(self, x: MPCTensor, kind: str) -> MPCTensor:
        """SiLU, or the tanh form of GELU for both of its kinds."""
        return f.silu(x) if kind == "silu" else f.gelu(x)

    @eager
    def soft_cap(self, x: MPCTensor, cap: float) -> MPCTensor:
        """A tanh from CrypTen's sigmoid."""
        return f.soft_cap(x, cap)

    def softmax(self, scores: MPCTensor, mask: Tensor | None = None) -> Program[MPCTensor]:
        """Exponentials of the scores minus their maximum, divided by their sum."""
        weights, total = yield from self._exponentials(scores, mask)
        return (yield from self._divide(weights, total, scores.shape[-1]))

    def softmax_weigh(
        self, scores: MPCTensor, combine: Callable[[MPCTensor], Program[MPCTensor]], mask: Tensor | None = None
    ) -> Program[MPCTensor]:
        """Combines the exponentials and divides the result, which has fewer values than the scores."""
        weights, total = yield from staged(self.meter, "softmax", self._exponentials(scores, mask))
        mixed = yield from staged(self.meter, "attend", combine(weights))
        return (yield from staged(self.meter, "softmax", self._divide(mixed, total, scores.shape[-1])))

    @eager
    def _divide(self, x: MPCTensor, total: MPCTensor, largest: int) -> MPCTensor:
        rows = f.divide_rows(x.reshape(-1, x.shape[-1]), total.reshape(-1, 1), largest)
        return rows.reshape(*x.shape)

    def _exponentials(self, scores: MPCTensor, mask: Tensor | None) -> Program[tuple[MPCTensor, MPCTensor]]:
        if mask is not None:
            counts = mask.double()
            scores = scores * counts + (1 - counts) * MASKED_SCORE
        top = yield from self.largest(scores, dim=len(scores.shape) - 1)
        weights = f.exp(scores - top)
        return weights, weights.sum(-1)

    @eager
    def maximum(self, x: MPCTensor, y: MPCTensor) -> MPCTensor:
        """Computes x + [x < y] (y - x)."""
        return x + f.less_than_zero(x - y) * (y - x)

    @eager
    def negative(self, x: MPCTensor) -> MPCTensor:
        """CrypTen's sign bit in fixed point."""
        return MPCTensor.from_shares(f.less_than_zero(x).share * SCALE)

    @eager
    def inverse_root(self, x: MPCTensor) -> MPCTensor:
        """Range reduction by powers of four, then Newton steps; see `functions.inverse_root`."""
        return f.inverse_root(x.reshape(-1, 1)).reshape(*x.shape)

    def cat(self, values: Sequence[MPCTensor], dim: int) -> MPCTensor:
        """Concatenation of shares."""
        return MPCTensor.from_shares(torch.cat([value.share for value in values], dim))

    # -- selection -----------------------------------------------------------------------------------------------------

    @eager
    def keep_top(self, scores: MPCTensor, count: int) -> OneHot:
        """Compares all pairs and selects the ranks below `count`."""
        return top_rows(scores.reshape(-1, scores.shape[-1]), count)

    @eager
    def kept_from(self, flags: MPCTensor, count: int) -> OneHot:
        """Converts fixed-point flags to integers by one comparison each."""
        return flagged_rows(f.less_than_zero(-flags), count)

    @eager
    def flags(self, kept: OneHot, n: int) -> MPCTensor:  # noqa: ARG002 - the rows have that length
        """The sum of the one-hot rows."""
        return MPCTensor.from_shares(kept.rows.share.sum(1) * SCALE)

    @eager
    def compact(self, kept: OneHot, rows: Sequence[MPCTensor]) -> list[MPCTensor]:
        """One-hot product with every row."""
        return [kept.fetch(row) for row in rows]

    @eager
    def top_clusters(
        self,
        coarse: MPCTensor,
        fine: MPCTensor,
        parents: Sequence[int | None],
        k_coarse: int,
        k_fine: int,
        *,
        fraction_bits: int = 16,  # noqa: ARG002 - one way to rank
        spare_rounds: bool = False,  # noqa: ARG002 - one way to rank
    ) -> OneHot:
        """Selects coarse candidates, fetches their children, and selects among those and the orphans."""
        return top_two_levels(coarse, fine, parents, k_coarse, k_fine)

    @eager
    def pick(self, selected: OneHot, blocks: MPCTensor) -> MPCTensor:
        """One-hot product with the clusters of each head's group (MPCache's Pi_Gather)."""
        heads, k, candidates = selected.rows.shape
        grouped = OneHot(selected.rows.reshape(blocks.shape[0], heads // blocks.shape[0] * k, candidates))
        return grouped.fetch(blocks).reshape(heads, k, blocks.shape[2])


class StockCrypTenEngine(CrypTenEngine):
    """CrypTen with its own generator, for comparisons of time; it protects no secret."""

    trust_model = f"insecure (randomness: stock): {STOCK_IS_INSECURE}; {_TRUNCATION}"
    randomness = "stock"
