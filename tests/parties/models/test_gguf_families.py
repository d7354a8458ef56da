"""GGUF files of every architecture: the logits of the model of transformers that was converted."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import run
from parties.engines.plain import PlainEngine
from parties.errors import ModelError
from parties.metering.meter import StageMeter
from parties.models import load_spec, load_weights
from parties.models.folding import fold, folded_shapes
from parties.models.gguf_families import GGUF_FAMILIES
from parties.models.sources import open_source
from parties.policies import make
from tests.helpers.families import FAMILIES, GROUPED, LOCAL, WIDE, WINDOW, made
from tests.helpers.gguf_conversion import ARCHITECTURES, convert
from tests.helpers.saved_models import TOKENS, logits, save

GEMMA = {**WIDE, "query_pre_attn_scalar": WIDE["head_dim"], "sliding_window": WINDOW}  # llama.cpp's scale of scores
MODELS = {
    "qwen2": made(Qwen2ForCausalLM, Qwen2Config, **GROUPED, use_sliding_window=False),
    "gemma2": made(Gemma2ForCausalLM, Gemma2Config, **GEMMA, attn_logit_softcapping=20.0, final_logit_softcapping=8.0),
    "gemma3_text": made(
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        **GEMMA,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters=LOCAL,
    ),
    **{name: FAMILIES[name] for name in ("qwen3", "phi3", "gpt_neox", "gpt_neox-sequential")},
}
FACTS: dict[str, dict[str, Any]] = {
    "qwen2": {"rope__freq_base": 10_000.0},
    "qwen3": {"rope__freq_base": 10_000.0},
    "phi3": {
        "rope__dimension_count": 6, "rope__freq_base": 10_000.0, "rope__scaling__original_context_length": 14,
        "rope_factors_short": torch.tensor([1.0, 1.5, 2.0]), "rope_factors_long": torch.tensor([1.5, 4.0, 9.0]),
    },
    "gemma2": {
        "attention__sliding_window": WINDOW, "attn_logit_softcapping": 20.0, "final_logit_softcapping": 8.0,
    },
    "gemma3_text": {
        "attention__sliding_window": WINDOW, "attention__sliding_window_pattern": 2, "rope__freq_base": 1e6,
        "rope__scaling__type": "linear", "rope__scaling__factor": 4.0,
    },
    "gpt_neox": {"rope__dimension_count": 2},
    "gpt_neox-sequential": {"rope__dimension_count": 2},
}  # fmt: skip
LONGER = [*TOKENS, *TOKENS[:6]]  # beyond the windows, and beyond the original context of phi3


def built(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return MODELS[name]()


def converted(name: str, folder: Path, **more: Any) -> str:
    model = built(name)
    facts = dict(FACTS[name])
    if name == "phi3":  # as the converter computes it
        facts["rope__scaling__attn_factor"] = load_spec(str(save(model, folder / "saved"))).rope_scale
    return convert(model, folder / "model.gguf", **facts | more)


def decoded(source: str) -> Tensor:
    """Logits at every position."""
    spec, engine = load_spec(source), PlainEngine(StageMeter())
    run(engine.install(folded_shapes(spec), fold(spec, load_weights(source))))
    decoder = Decoder(engine, spec, make("full"))
    found = run(decoder.follow(run(decoder.embed(LONGER, len(LONGER), 0)), Cache.empty(spec.n_layers)))
    return spec.capped(found)


@pytest.mark.parametrize("name", MODELS)
def test_a_converted_model_has_the_logits_of_transformers(name: str, tmp_path: Path) -> None:
    source = converted(name, tmp_path)
    open_source(source).check()
    assert (decoded(source) - logits(built(name), LONGER)).abs().max() < 1e-4


def test_every_architecture_is_tested() -> None:
    known = {ARCHITECTURES.get(name, name) for name in (*MODELS, "llama", "gpt2")}
    assert set(GGUF_FAMILIES) == known - {"gpt_neox-sequential"}


@pytest.mark.parametrize(
    ("name", "fact", "value"),
    [("qwen2", "attention__sliding_window", 4), ("gemma2", "rope__freq_base_swa", 1e4), ("qwen3", "expert_count", 4)],
)
def test_a_fact_of_another_architecture_is_refused(name: str, fact: str, value: float, tmp_path: Path) -> None:
    source = converted(name, tmp_path, **{fact: value})
    with pytest.raises(ModelError, match=rf"{name}\.{fact.replace('__', '.')} is {value:g}"):
        load_spec(source)


def test_a_scale_of_attention_without_factors_is_refused(tmp_path: Path) -> None:
    facts = {"attention__sliding_window": 4, "rope__dimension_count": 6, "rope__scaling__attn_factor": 1.5}
    source = convert(built("phi3"), tmp_path / "model.gguf", **facts)
    with pytest.raises(ModelError, match=r"phi3\.rope\.scaling\.attn_factor is 1.5; supported: 1.0 without"):
        load_spec(source)
