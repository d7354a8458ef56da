"""A check of the headers finds the errors of loading the weights, and reads none of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from parties.errors import ModelError
from parties.models import check_weights, load_spec, load_weights
from parties.models.sources import open_source
from tests.helpers.saved_models import save, tiny_gpt2, tiny_llama, write_gguf

MODEL = "random:llama?layers=2"


@pytest.mark.parametrize("make", [lambda: tiny_llama(tied=True), lambda: tiny_llama(tied=False), tiny_gpt2])
def test_saved_models_pass_whole_and_in_parts(make: Callable[[], PreTrainedModel], tmp_path: Path) -> None:
    check_weights(str(save(make(), tmp_path / "whole")))
    check_weights(str(save(make(), tmp_path / "parts", max_shard_size="40KB")))
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1


def test_a_gguf_file_passes_and_one_of_another_model_does_not(tmp_path: Path) -> None:
    spec, weights = load_spec(MODEL), load_weights(MODEL)
    check_weights(str(write_gguf(tmp_path / "good.gguf", spec, weights)))
    del weights["layers.1.up.weight"]
    bad = write_gguf(tmp_path / "bad.gguf", spec, weights)
    with pytest.raises(ModelError, match=r"blk\.1\.ffn_up\.weight is missing"):
        check_weights(str(bad))


@pytest.mark.parametrize("source", ["random:gpt2", "random:llama-7b"])
def test_random_weights_are_never_missing(source: str) -> None:
    check_weights(source)
    assert open_source(source).spec().parameters > 10**8
