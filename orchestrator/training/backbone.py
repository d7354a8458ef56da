"""The frozen model for which heads are trained, on the plain engine, with access to the tensors of each layer."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from orchestrator.training.gated import GatedEngine
from orchestrator.training.settings import TrainingError
from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import Program, run
from parties.heads.folding import fold_head
from parties.heads.format import Head, fingerprint
from parties.metering.meter import StageMeter
from parties.models import load_spec, load_tokenizer, load_weights
from parties.models.folding import fold, query_factor
from parties.policies.base import Policy

if TYPE_CHECKING:
    from parties.engines.base import Engine


@dataclass(frozen=True)
class Seen:
    """The tensors that one layer computes for a text of n tokens.

    Attributes:
        normal: Its normalised input with the norm's gain and bias, [n, hidden].
        qkv: Queries, keys and values, concatenated, before positions, unscaled, [n, (heads + 2 kv_heads) head_dim].
        q: Queries with position, scaled by 1/sqrt(head_dim), [heads, n, head_dim].
        k: Keys with position, [kv_heads, n, head_dim].
        v: Values, [kv_heads, n, head_dim].
    """

    normal: Tensor
    qkv: Tensor
    q: Tensor
    k: Tensor
    v: Tensor


@dataclass(frozen=True)
class _Recorder(Policy):
    """Keeps every token, and records the tensors of each layer."""

    name: ClassVar[str] = "recorder"
    keeps: ClassVar[str] = "every token"
    source: ClassVar[str] = "-"
    in_order: ClassVar[bool] = True

    inputs: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    queries: list[Tensor] = field(default_factory=list)

    def on_projection(self, engine: "Engine", cache: Cache, layer: int, normal: Any, qkv: Any) -> Program[None]:  # noqa: ARG002
        """Records the layer's normalised input and its projection."""
        self.inputs.append((normal, qkv))
        return
        yield

    def after_prefill(self, engine: "Engine", cache: Cache, layer: int, q: Any) -> Program[None]:  # noqa: ARG002
        """Records the queries."""
        self.queries.append(q)
        return
        yield


class Backbone:
    """A frozen model.

    Attributes:
        model: The model source, as it was given.
        spec: The specification of the model.
        fingerprint: Its fingerprint, as in a file of heads.
        tokenizer: The tokenizer of the model.
        engine: The engine with the model installed, float32.
    """

    def __init__(self, model: str, device: str = "cpu") -> None:
        """Loads the model.

        Args:
            model: A model source.
            device: `cpu` or `cuda`.

        Raises:
            ModelError: The model does not exist or cannot be read.
            TrainingError: The device does not exist.
        """
        if device not in GatedEngine.devices or (device == "cuda" and not torch.cuda.is_available()):
            raise TrainingError(f"device: {device!r} is not available; use cpu, or cuda on a machine with a GPU")
        self.model, self.device, self.spec = model, device, load_spec(model)
        self.tokenizer, weights = load_tokenizer(model), load_weights(model)
        self.fingerprint = fingerprint(self.spec, weights)
        self.engine = GatedEngine(StageMeter(), torch.float32, device)
        self._folded = fold(self.spec, weights)
        self._norms = {name: tensor for name, tensor in weights.items() if ".attn_norm." in name}
        run(self.engine.install({}, self._folded))

    def install(self, head: Head) -> None:
        """Installs heads next to the model, for the policy that uses them."""
        run(self.engine.install({}, self._folded | fold_head(head, self.spec, self._norms)))

    def watch(self, tokens: list[int]) -> list[Seen]:
        """The tensors that each layer computes for a text, without gradients."""
        recorder, cache = _Recorder(), Cache.empty(self.spec.n_layers)
        with torch.no_grad():
            decoder = Decoder(self.engine, self.spec, recorder)
            run(decoder.prefill(run(decoder.embed(tokens, len(tokens), 0)), cache))
            return [
                Seen(*self._unfolded(layer, *recorder.inputs[layer]), recorder.queries[layer], here.k, here.v)
                for layer, here in enumerate(cache.layers)
            ]

    def gain(self, layer: int) -> float:
        """Root mean square of a layer's normalised input, from its norm's gain."""
        return float(self._norms[f"layers.{layer}.attn_norm.weight"].square().mean().sqrt())

    def _unfolded(self, layer: int, normal: Tensor, qkv: Tensor) -> tuple[Tensor, Tensor]:
        """Reverts `parties.models.folding`, since heads are stored for the model as published."""
        gain = self._norms[f"layers.{layer}.attn_norm.weight"].to(normal.device)
        shift = self._norms.get(f"layers.{layer}.attn_norm.bias")
        moved = normal * gain if shift is None else normal * gain + shift.to(normal.device)
        queries = self.spec.n_heads * self.spec.head_dim
        scaled = torch.cat([qkv[:, :queries] / query_factor(self.spec), qkv[:, queries:]], dim=1)
        return moved, scaled
