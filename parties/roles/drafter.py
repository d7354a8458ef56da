"""The client's source of drafts, as its job asks for it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.drafts import Drafter, LookUp, vocabulary_problem
from parties.decoding.program import run
from parties.engines.plain import PlainEngine
from parties.errors import Unsupported
from parties.metering.meter import StageMeter
from parties.models import load_spec, load_weights
from parties.models.folding import Folded, folded_shapes
from parties.options import DraftOptions
from parties.policies import Full


@dataclass
class ModelDrafter(Drafter):
    """Greedy decoding with a model of the client's own, in the clear.

    Args:
        decoder: The model on the engine `plain`, with the full cache.
    """

    decoder: Decoder

    def __post_init__(self) -> None:
        self._cache, self._held = Cache.empty(self.decoder.spec.n_layers), list[int]()

    @classmethod
    def load(cls, model: str, vocab: int) -> "ModelDrafter":
        """The model from its files.

        Args:
            model: A model as experiments name it.
            vocab: Tokens of the model that verifies.

        Raises:
            ModelError: The model cannot be loaded.
            Unsupported: It has another vocabulary.
        """
        spec = load_spec(model)
        if problem := vocabulary_problem(model, spec.vocab, vocab):
            raise Unsupported(f"draft: {problem}")
        engine = PlainEngine(StageMeter(), dtype=torch.float32)
        run(engine.install(folded_shapes(spec), Folded(spec, load_weights(model))))
        return cls(Decoder(engine, spec, Full()))

    def draft(self, text: Sequence[int], count: int) -> list[int]:
        """See `Drafter`."""
        decoder, cache = self.decoder, self._cache
        same = (place for place, (old, new) in enumerate(zip(self._held, text, strict=False)) if old != new)
        known = min(next(same, len(self._held)), len(text) - 1)
        if not self._held:
            run(decoder.prefill(run(decoder.embed(text[:-1], len(text) - 1, 0)), cache))
            known = len(text) - 1
        for layer in cache.layers:
            layer.restore(layer, known)
        cache.position = known
        found, new = list(text), list(text[known:])
        for _ in range(count):
            logits = run(decoder.follow(run(decoder.embed(new, len(new), cache.position)), cache))
            new = [int(logits[-1].argmax())]
            found += new
        self._held = found[:-1]
        return found[len(text) :]


def make_drafter(options: DraftOptions, vocab: int) -> Drafter:
    """The source of drafts that a cell asks for, at the client; see `ModelDrafter.load` for what it raises."""
    return LookUp() if options.model is None else ModelDrafter.load(options.model, vocab)
