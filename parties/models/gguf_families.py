"""The architectures of GGUF files: what each one stores and how, as llama.cpp's converter writes it.

Some facts are in no key, because llama.cpp derives them from the architecture: the activation, the scale of Gemma's
embeddings and scores, and which of its layers have a window.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from parties.errors import ModelError
from parties.models.gguf_file import GgufFile
from parties.models.layout import Layout
from parties.models.rope import linear

FREQUENCIES = "rope_freqs.weight"
"""Name of the tensor with one divisor per rotary frequency, which scales Llama 3.1."""
_SHORT, _LONG = "rope_factors_short.weight", "rope_factors_long.weight"

_SHARED = {
    "embed": "token_embd",
    "attn_norm": "attn_norm",
    "o": "attn_output",
    "mlp_norm": "ffn_norm",
    "up": "ffn_up",
    "down": "ffn_down",
    "final_norm": "output_norm",
    "lm_head": "output",
}
_SPLIT = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "gate": "ffn_gate"}
_JOINED = dict.fromkeys("qkv", "attn_qkv")
_HEAD_NORMS = {"q_norm": "attn_q_norm", "k_norm": "attn_k_norm"}
_POST_NORMS = {"attn_post_norm": "post_attention_norm", "mlp_post_norm": "post_ffw_norm"}


@dataclass(frozen=True)
class Facts:
    """The metadata of a file by the names of keys without the architecture, and what every family needs of it.

    Attributes:
        file: The header of the file.
    """

    file: GgufFile

    def __getitem__(self, name: str) -> Any:
        return self.file.facts[self.key(name)]

    def get(self, name: str, default: Any) -> Any:
        """The value of a key, or `default` if there is none."""
        return self.file.facts.get(self.key(name), default)

    def key(self, name: str) -> str:
        """The whole name of a key."""
        return f"{self.file.facts['general.architecture']}.{name}"

    def has(self, tensor: str) -> bool:
        """Whether the file has a tensor."""
        return tensor in self.file.tensors

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        width: int = self.get("attention.key_length", self["embedding_length"] // self["attention.head_count"])
        return width

    def numbers(self, tensor: str) -> tuple[float, ...]:
        """The numbers of a tensor."""
        return tuple(float(number) for number in self.file.read(tensor).flatten())


@dataclass(frozen=True, kw_only=True)
class GgufFamily:
    """How GGUF files store a family of models.

    Attributes:
        family: Name of the family in `ModelSpec`.
        layout: Names of the tensors.
        read: Returns the fields of `ModelSpec` beyond those that all families have.
        understood: Keys that `read` reads, and that other families must not have.
        tensors: Tensors that `read` reads.
        interleaved: Whether the two halves of each query and key head are interleaved.
        partly_rotated: Whether `rope.dimension_count` may be less than the width of a head.
    """

    family: str
    layout: Layout
    read: Callable[[Facts], dict[str, Any]]
    understood: frozenset[str] = frozenset()
    tensors: frozenset[str] = field(default=frozenset())
    interleaved: bool = False
    partly_rotated: bool = False


def _layout(*modules: Mapping[str, str]) -> Layout:
    names = dict(_SHARED)
    for more in modules:
        names |= more
    return Layout(block="blk.{}", modules=names, transposed=True)


def _gpt2(facts: Facts) -> dict[str, Any]:
    return {"norm_eps": float(facts["attention.layer_norm_epsilon"]), "activation": "gelu_tanh"}


def _gpt_neox(facts: Facts) -> dict[str, Any]:
    return {
        "norm_eps": float(facts["attention.layer_norm_epsilon"]),
        "activation": "gelu",
        "qkv_bias": facts.has("blk.0.attn_qkv.bias"),
        "o_bias": facts.has("blk.0.attn_output.bias"),
        "mlp_bias": facts.has("blk.0.ffn_up.bias"),
        "parallel": bool(facts["use_parallel_residual"]),
        "rope_dims": _rope_dims(facts),
    }


def _rms(facts: Facts) -> dict[str, Any]:
    """The families that follow Llama: RMSNorm, SwiGLU, rotary positions."""
    return {
        "norm_eps": float(facts["attention.layer_norm_rms_epsilon"]),
        "activation": "silu",
        "qkv_bias": facts.has("blk.0.attn_q.bias"),
        "rope_divisors": _divisors(facts),
    }


def _phi3(facts: Facts) -> dict[str, Any]:
    """A window in every layer, and LongRoPE: one list of divisors up to the original context, another one beyond."""
    window = facts.get("attention.sliding_window", 0)
    found = _rms(facts) | {"rope_dims": _rope_dims(facts)}
    found["windows"] = (window,) * facts["block_count"] if window else ()
    scale = float(facts.get("rope.scaling.attn_factor", 1.0))
    if facts.has(_LONG):
        original = facts["rope.scaling.original_context_length"]
        found |= {"rope_divisors": facts.numbers(_SHORT), "rope_long_divisors": facts.numbers(_LONG)}
        found |= {"rope_original": original, "rope_scale": scale}
    elif scale != 1:
        raise ModelError(f"{facts.key('rope.scaling.attn_factor')} is {scale:g}; supported: 1.0 without {_LONG}")
    return found


def _gemma(facts: Facts, *, pattern: int, largest: int, caps: tuple[float, float]) -> dict[str, Any]:
    """Gemma 2 and 3: GeGLU, scaled embeddings, capped scores and logits, windows in most layers.

    Args:
        facts: The metadata.
        pattern: Every so many layers one has no window, unless the file says otherwise.
        largest: Layers of the largest model, the only one whose scores are not divided by the root of the head's width.
        caps: Caps of scores and of logits, unless the file says otherwise.
    """
    hidden, n_layers = facts["embedding_length"], facts["block_count"]
    window, given = facts["attention.sliding_window"], facts.get("attention.sliding_window_pattern", pattern)
    windowed = given if isinstance(given, list) else [(layer + 1) % given != 0 for layer in range(n_layers)]
    return _rms(facts) | {
        "activation": "gelu_tanh",
        "embed_scale": float(hidden) ** 0.5,
        "query_width": float(hidden / facts["attention.head_count"] if n_layers == largest else facts.head_dim),
        "score_cap": float(facts.get("attn_logit_softcapping", caps[0])),
        "logit_cap": float(facts.get("final_logit_softcapping", caps[1])),
        "windows": tuple(window if has else 0 for has in windowed),
    }


def _gemma2(facts: Facts) -> dict[str, Any]:
    return _gemma(facts, pattern=2, largest=46, caps=(50.0, 30.0))


def _gemma3(facts: Facts) -> dict[str, Any]:
    local = {"local_rope_theta": float(facts.get("rope.freq_base_swa", 10_000.0))}
    return _gemma(facts, pattern=6, largest=62, caps=(0.0, 0.0)) | local


def _rope_dims(facts: Facts) -> int:
    dims: int = facts.get("rope.dimension_count", facts.head_dim)
    return 0 if dims == facts.head_dim else dims


def _divisors(facts: Facts) -> tuple[float, ...]:
    """The divisor of each rotary frequency, as in llama.cpp: a factor without a type scales linearly."""
    factor = facts.get("rope.scaling.factor", facts.get("rope.scale_linear", 1.0))
    if factor == 0 or facts.get("rope.scaling.type", "linear") == "none":
        factor = 1.0
    uniform = linear(facts.key("rope.scaling"), factor, facts.get("rope.dimension_count", facts.head_dim))
    return tuple(factor * divisor for divisor in facts.numbers(FREQUENCIES)) if facts.has(FREQUENCIES) else uniform


_CAPS = frozenset({"attn_logit_softcapping", "final_logit_softcapping"})
_WINDOWS = frozenset({"attention.sliding_window", "attention.sliding_window_pattern"})
GGUF_FAMILIES: Mapping[str, GgufFamily] = {
    "llama": GgufFamily(
        family="llama", layout=_layout(_SPLIT), read=_rms, tensors=frozenset({FREQUENCIES}), interleaved=True
    ),
    "gpt2": GgufFamily(family="gpt2", layout=_layout(_JOINED, {"positions": "position_embd"}), read=_gpt2),
    "qwen2": GgufFamily(family="qwen2", layout=_layout(_SPLIT), read=_rms),
    "qwen3": GgufFamily(family="qwen3", layout=_layout(_SPLIT, _HEAD_NORMS), read=_rms),
    "phi3": GgufFamily(
        family="phi3",
        layout=_layout(_JOINED, {"gate": "ffn_up"}),
        read=_phi3,
        understood=frozenset({"attention.sliding_window", "rope.scaling.attn_factor"}),
        tensors=frozenset({_SHORT, _LONG}),
        partly_rotated=True,
    ),
    "gemma2": GgufFamily(
        family="gemma2", layout=_layout(_SPLIT, _POST_NORMS), read=_gemma2, understood=_WINDOWS | _CAPS
    ),
    "gemma3": GgufFamily(
        family="gemma3_text",
        layout=_layout(_SPLIT, _POST_NORMS, _HEAD_NORMS),
        read=_gemma3,
        understood=_WINDOWS | _CAPS | {"rope.freq_base_swa"},
    ),
    "gptneox": GgufFamily(
        family="gpt_neox",
        layout=_layout(_JOINED),
        read=_gpt_neox,
        understood=frozenset({"use_parallel_residual"}),
        partly_rotated=True,
    ),
}
"""By the architecture that a file names."""
