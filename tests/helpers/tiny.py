"""Small random models, and the plain engine on them."""

import torch

from parties.decoding.decoder import Decoder
from parties.decoding.program import run
from parties.engines.plain import PlainEngine
from parties.metering.meter import StageMeter
from parties.models.folding import fold, folded_shapes
from parties.models.spec import ModelSpec
from parties.policies.base import Policy

LLAMA = ModelSpec(
    family="llama", n_layers=4, hidden=48, n_heads=4, n_kv_heads=2, head_dim=12, intermediate=96, vocab=128,
    max_positions=512, norm_eps=1e-5, activation="silu", tied=True,
)  # fmt: skip
GPT2 = ModelSpec(
    family="gpt2", n_layers=3, hidden=48, n_heads=4, n_kv_heads=4, head_dim=12, intermediate=96, vocab=128,
    max_positions=512, norm_eps=1e-5, activation="gelu_tanh", tied=True,
)  # fmt: skip
GEMMA = ModelSpec(
    family="gemma3_text", n_layers=2, hidden=48, n_heads=4, n_kv_heads=2, head_dim=12, intermediate=96, vocab=128,
    max_positions=512, norm_eps=1e-5, activation="gelu_tanh", tied=True, windows=(6, 0), local_rope_theta=1000.0,
    score_cap=20.0,
)  # fmt: skip
SPECS = {"llama": LLAMA, "gpt2": GPT2}
FAMILIES = SPECS | {"gemma3_text": GEMMA}
"""With one whose windows most policies cannot apply."""


def random_weights(spec: ModelSpec, seed: int = 0) -> dict[str, torch.Tensor]:
    """Canonical weights with activations of order one and attention that is not flat."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in spec.shapes().items():
        noise = torch.randn(shape, generator=generator)
        if "norm" in name:
            weights[name] = 1 + 0.1 * noise if name.endswith("weight") else 0.1 * noise
        elif name in ("embed", "positions"):
            weights[name] = 0.5 * noise
        else:
            sharper = 3 if name.endswith("q.weight") else 1
            weights[name] = 0.1 * noise if name.endswith("bias") else sharper * noise * shape[0] ** -0.5
    return weights


def folded(spec: ModelSpec, seed: int = 0) -> dict[str, torch.Tensor]:
    """The folded parameters that the server installs."""
    return fold(spec, random_weights(spec, seed))


def plain_decoder(spec: ModelSpec, policy: Policy, seed: int = 0) -> Decoder:
    """The reference decoder on a random model."""
    engine = PlainEngine(StageMeter())
    run(engine.install(folded_shapes(spec), folded(spec, seed)))
    return Decoder(engine, spec, policy)


def random_tokens(spec: ModelSpec, count: int, seed: int = 0) -> list[int]:
    """A prompt."""
    drawn: list[int] = torch.randint(spec.vocab, (count,), generator=torch.Generator().manual_seed(seed)).tolist()
    return drawn
