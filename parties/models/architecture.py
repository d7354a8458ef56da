"""The facts that all models of a family share; what differs between its models is in `ModelSpec`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A family of decoder-only transformers.

    Attributes:
        norm: `rms` (RMSNorm, arXiv 1910.07467) or `layer` (layer norm, with a bias).
        gated: Whether the MLP is down(f(gate(x)) * up(x)) (arXiv 2002.05202), rather than down(f(up(x))).
        learned_positions: Whether positions are rows of a table that are added to the embedding, rather than rotary.
        query_key_norm: Whether the queries and keys of each head are normalised before they are rotated.
        post_norms: Whether the outputs of attention and MLP are normalised before they are added to the residual.
        biased: Whether every matrix of a layer has a bias; in other families `ModelSpec` says which ones do.
    """

    norm: Literal["rms", "layer"] = "rms"
    gated: bool = True
    learned_positions: bool = False
    query_key_norm: bool = False
    post_norms: bool = False
    biased: bool = False


ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(),
    "mistral": Architecture(),
    "qwen2": Architecture(),
    "qwen3": Architecture(query_key_norm=True),
    "phi3": Architecture(),
    "smollm3": Architecture(),
    "gemma2": Architecture(post_norms=True),
    "gemma3_text": Architecture(post_norms=True, query_key_norm=True),
    "gpt2": Architecture(norm="layer", gated=False, learned_positions=True, biased=True),
    "gpt_neox": Architecture(norm="layer", gated=False),
}
"""By the `model_type` of a transformers configuration."""
