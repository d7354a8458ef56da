"""Values on their way into the computation, through it unchanged, and out of it."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from parties.decoding.batch import Caches
from parties.decoding.program import Program
from parties.engines.fss import bounds
from parties.engines.fss.arithmetic import embedding, gates, ring
from parties.engines.fss.arithmetic.values import Additive, Masked, cat
from parties.engines.fss.functions import masked_cache
from parties.engines.fss.programs.base import Programs
from parties.engines.fss.randomness.constants import Known
from parties.engines.fss.topk import maximum
from parties.randomness import uniform

_LOGIT_BITS = 12  # fraction bits of compared logits; fewer bits leave room for their range


class Values(Programs):
    """Public numbers, shares, tokens; the rows of a cache; and what is opened to the client."""

    def public(self, tensor: Tensor) -> Tensor:
        """The tensor itself: values encode their public factors."""
        return tensor

    def varying(self, numbers: Callable[[int], Tensor], limit: float) -> Known:
        """See `Engine.varying`."""
        return self.source.varying(lambda later: ring.encode(numbers(later)), ring.FRACTION_BITS, limit)

    def constant(self, tensor: Tensor) -> Masked:
        """A masked value whose mask is zero."""
        zeros = torch.zeros(tensor.shape, dtype=torch.int64, device=self.source.device)
        least = 2.0**-ring.FRACTION_BITS
        return Masked(self.source, zeros, zeros, ring.FRACTION_BITS, least, Masked.CONSTANT).plus(tensor)

    def bounded(self, value: Masked, limit: float) -> Masked:
        """Declares a bound, on which comparisons and truncations rely."""
        return value.bounded(limit)

    def adopt(self, share: Tensor) -> Additive:
        """Additive shares of a value; `mask_cache` turns a whole cache into masked values."""
        return Additive(self.source, share, ring.FRACTION_BITS, self._limit("qkv"))

    def mask_cache(self, caches: Caches) -> list[Callable[[], Program[None]]]:
        """Segments that open adopted caches under masks that stay. 1 round per 2^23 elements; see `masked_cache`."""
        return masked_cache.segments(caches)

    def export(self, value: Masked) -> Tensor:
        """An additive share, with 16 fraction bits."""
        return gates.truncate(value).additive().share

    @classmethod
    def split(cls, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """Additive shares of the fixed-point encoding, from a cryptographic generator."""
        mask = uniform(*tensor.shape)
        return mask, ring.encode(tensor) - mask

    @classmethod
    def combine(cls, parts: tuple[Tensor, Tensor]) -> Tensor:
        """The sum of the shares, divided by the scale."""
        return ring.decode(parts[0] + parts[1])

    def embed(self, tokens: Sequence[int] | None, count: int) -> Program[Masked]:
        """Rows of the server's embedding at the client's tokens. 3 rounds."""
        return embedding.rows(self.source, self.matrices["embed"], tokens, count, bounds.PARAMETER_LIMIT)

    def argmax(self, logits: Masked) -> Program[Additive]:
        """A tournament in each row."""
        return maximum.argmax(gates.truncate(logits, _LOGIT_BITS).bounded(self._limit("compared logit")))

    def open_index(self, index: Additive) -> list[int] | None:
        """The indices, opened to the client alone."""
        opened = self.open_to_client(index)
        return None if opened is None else (opened >> index.scale).tolist()

    def reveal(self, value: Masked) -> Program[Tensor | None]:
        """The value, at the client."""
        opened = self.open_to_client(gates.truncate(value).additive())
        return None if opened is None else ring.decode(opened)
        yield

    def open_to_client(self, value: Additive) -> Tensor | None:  # noqa: ARG002 - the dealer has no link to open it on
        """Opens integers to the client; None elsewhere."""
        return None

    def to_cache(self, value: Masked) -> Masked:
        """Truncates to 16 fraction bits, once for all products of a cached value."""
        return gates.truncate(value).bounded(min(value.limit, self._limit("qkv")))

    def cat(self, values: Sequence[Masked], dim: int) -> Masked:
        """Concatenation; parts with more fraction bits than the first are truncated to those of the first."""
        scale = values[0].scale
        return cat([gates.truncate(v, scale) if v.scale > scale else v for v in values], dim)  # type: ignore[no-any-return]

    def written(self, rows: Masked, new: Masked, place: int) -> Masked:
        """See `Operations.written`."""
        public = self.source.write(rows.public, new.public, place)
        return Masked(
            self.source,
            public,
            self.source.write(rows.mask, new.mask, place),
            rows.scale,
            max(rows.limit, new.limit),
            min(rows.epoch, new.epoch),
        )

    def rows_from(self, rows: Masked, first: int, count: int) -> Masked:
        """See `Operations.rows_from`."""
        return rows.map(lambda t: self.source.read(t, first, count), rows.scale, rows.limit)
