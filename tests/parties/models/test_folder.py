"""Models saved by transformers give transformers' logits, or an error that names the fault."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from parties.errors import ModelError
from parties.models import check_weights, load_spec, load_tokenizer, load_weights
from tests.helpers.naive_decoder import forward
from tests.helpers.saved_models import TOKENS, logits, save, tiny_gpt2, tiny_llama

MODELS = {
    "llama-tied": lambda: tiny_llama(tied=True),
    "llama-untied": lambda: tiny_llama(tied=False),
    "gpt2": tiny_gpt2,
    "gpt2-exact-gelu": lambda: tiny_gpt2("gelu"),
}


def difference(model: PreTrainedModel, source: str) -> float:
    ours = forward(load_spec(source), load_weights(source), TOKENS)
    return float((ours - logits(model, TOKENS)).abs().max())


@pytest.mark.parametrize("name", MODELS)
def test_canonical_weights_give_the_logits_of_transformers(name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    assert difference(model, str(save(model, tmp_path))) < 1e-4


def test_a_model_in_several_files(tmp_path: Path) -> None:
    model = tiny_llama(tied=False)
    save(model, tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert difference(model, str(tmp_path)) < 1e-4


@pytest.mark.parametrize("name", ["llama-tied", "gpt2"])
def test_a_model_saved_without_its_head(name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    save(model, tmp_path)
    tensors = {key.split(".", 1)[1]: tensor for key, tensor in load_file(tmp_path / "model.safetensors").items()}
    save_file(tensors, tmp_path / "model.safetensors")
    assert difference(model, str(tmp_path)) < 1e-4


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_other_floats_load_as_float32(kind: torch.dtype, tmp_path: Path) -> None:
    model = tiny_llama(tied=True).to(kind)
    save(model, tmp_path)
    weights = load_weights(str(tmp_path))
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert torch.equal(weights["embed"], model.get_input_embeddings().weight.float())


@pytest.mark.parametrize("name", MODELS)
def test_weights_match_the_spec(name: str, tmp_path: Path) -> None:
    source = str(save(MODELS[name](), tmp_path))
    weights = load_weights(source)
    assert {key: tuple(tensor.shape) for key, tensor in weights.items()} == load_spec(source).shapes()
    assert all(tensor.is_contiguous() for tensor in weights.values())


def test_end_tokens_come_from_both_configurations_and_the_vocabulary_bounds_them(tmp_path: Path) -> None:
    save(tiny_llama(tied=True), tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 9}')
    assert load_spec(str(tmp_path)).eos_ids == (2, 5, 9)
    save(tiny_gpt2(), tmp_path / "gpt2")  # inherits token 50256 in a vocabulary of 96
    assert load_spec(str(tmp_path / "gpt2")).eos_ids == ()


def test_older_configurations_keep_rope_theta_at_the_top(tmp_path: Path) -> None:
    save(tiny_llama(tied=True), tmp_path)
    edit(tmp_path, rope_parameters=..., rope_theta=123.0, rope_scaling=None)
    assert load_spec(str(tmp_path)).rope_theta == 123.0


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {"llama": save(tiny_llama(tied=True), root / "llama"), "gpt2": save(tiny_gpt2(), root / "gpt2")}


@pytest.fixture
def llama(saved: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved["llama"], tmp_path / "llama"))


def edit(folder: Path, **changes: Any) -> None:
    """Changes fields of config.json; `...` removes one."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not ...}))


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [
        ("llama", "model_type", "mixtral"),
        ("llama", "model_type", ["llama"]),
        ("llama", "rope_parameters", {"rope_type": "proportional", "rope_theta": 1e4}),
        ("llama", "rope_interleaved", True),
        ("llama", "layer_types", ["full_attention", "sliding_attention"]),
        ("llama", "attention_multiplier", 0.5),
        ("llama", "residual_multiplier", 0.2),
        ("gpt2", "position_embedding_type", "rotary"),
        ("llama", "sliding_window", 4096),
        ("llama", "num_local_experts", 8),
        ("llama", "hidden_act", "relu"),
        ("llama", "quantization_config", {"quant_method": "gptq"}),
        ("gpt2", "scale_attn_by_inverse_layer_idx", True),
        ("gpt2", "scale_attn_weights", False),
        ("gpt2", "add_cross_attention", True),
        ("gpt2", "activation_function", "relu"),
    ],
)
def test_refuses_other_kinds_by_the_name_of_the_field(
    saved: dict[str, Path], tmp_path: Path, family: str, field: str, value: object
) -> None:
    folder = Path(shutil.copytree(saved[family], tmp_path / family))
    edit(folder, **{field: value})
    with pytest.raises(ModelError, match=f"{field}.* is .*supported"):
        load_spec(str(folder))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layer_types", 3),
        ("rms_norm_eps", 10**400),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),  # in addition to other rope_parameters
        ("hidden_size", ...),
        ("num_hidden_layers", 0),
        ("num_attention_heads", 0),
        ("num_attention_heads", "six"),
        ("vocab_size", None),
        ("rms_norm_eps", "small"),
        ("rope_parameters", "yes"),
    ],
)
def test_damaged_configuration(llama: Path, field: str, value: object) -> None:
    edit(llama, **{field: value})
    with pytest.raises(ModelError, match=r"config\.json"):
        load_spec(str(llama))


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_git_lfs_pointer_is_seen_before_anything_is_loaded(llama: Path, file: str) -> None:
    (llama / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 99\n")
    with pytest.raises(ModelError, match=rf"{file}: it is a Git LFS pointer.*git lfs pull"):
        load_spec(str(llama))
    with pytest.raises(ModelError, match=rf"{file}: it is a Git LFS pointer.*git lfs pull"):
        {"tokenizer.json": load_tokenizer}.get(file, load_weights)(str(llama))


def test_a_byte_order_mark_before_configuration_and_index(tmp_path: Path) -> None:
    model = tiny_llama(tied=True)
    save(model, tmp_path, max_shard_size="50KB")
    for name in ("config.json", "model.safetensors.index.json"):
        path = tmp_path / name
        path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert difference(model, str(tmp_path)) < 1e-4


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00", "[" * 100_000])
def test_configuration_that_is_not_a_json_object(llama: Path, content: str) -> None:
    (llama / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        load_spec(str(llama))


@pytest.mark.parametrize("kept", [0, 5, 100, 5000, -1])
def test_truncated_safetensors(llama: Path, kept: int) -> None:
    path = llama / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"model\.safetensors is truncated: it has [\d,]+ of .*fetch it again"):
        load_weights(str(llama))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><title>Log in</title>", "is a web page"),
        (b"\x10\0\0\0\0\0\0\0[1]             ", "cannot be read as safetensors .* corrupt"),
        (b"PK\x03\x04" + b"\xff" * 99, "cannot be read as safetensors .* corrupt"),
    ],
)
def test_something_else_in_place_of_safetensors(llama: Path, content: bytes, message: str) -> None:
    (llama / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=rf"model\.safetensors {message}.*fetch it again"):
        check_weights(str(llama))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pytorch_model.bin", "pytorch_model.bin, which is a pickle.*save_pretrained"),
        ("model.fp16.safetensors", "model.fp16.safetensors; rename it"),
    ],
)
def test_weights_under_another_name(llama: Path, name: str, message: str) -> None:
    (llama / "model.safetensors").rename(llama / name)
    with pytest.raises(ModelError, match=rf"has neither model\.safetensors nor .*, but {message}"):
        check_weights(str(llama))


def test_a_link_to_nothing_as_in_a_hub_cache_that_was_cut_short(llama: Path) -> None:
    (llama / "model.safetensors").unlink()
    (llama / "model.safetensors").symlink_to("../../blobs/absent")
    with pytest.raises(ModelError, match=r"model\.safetensors is a link to a file that is not there; .*not complete"):
        check_weights(str(llama))


def test_one_of_several_files_is_missing_or_truncated(tmp_path: Path) -> None:
    save(tiny_llama(tied=True), tmp_path, max_shard_size="50KB")
    victim = sorted(tmp_path.glob("*.safetensors"))[-1]
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(ModelError, match=victim.name):
        load_weights(str(tmp_path))
    victim.unlink()
    with pytest.raises(ModelError, match=victim.name):
        load_weights(str(tmp_path))


def test_an_index_cannot_lead_out_of_the_folder(tmp_path: Path, llama: Path) -> None:
    (llama / "model.safetensors").rename(tmp_path / "outside.safetensors")
    names = load_file(tmp_path / "outside.safetensors")
    index = {"weight_map": dict.fromkeys(names, "../outside.safetensors")}
    (llama / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"outside\.safetensors"):
        load_weights(str(llama))


def test_weights_of_another_model(llama: Path) -> None:
    edit(llama, intermediate_size=81)
    with pytest.raises(ModelError, match=r"mlp\.gate_proj.*\(48, 80\).*\(48, 81\)"):
        load_weights(str(llama))


def test_more_layers_than_weights(llama: Path) -> None:
    edit(llama, num_hidden_layers=4)
    with pytest.raises(ModelError, match=r"model\.layers\.3\..* is missing"):
        load_weights(str(llama))


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.q_norm.weight", "model.layers.3.mlp.up_proj.weight"])
def test_weights_that_would_be_left_out(llama: Path, name: str) -> None:
    path = llama / "model.safetensors"
    save_file(load_file(path) | {name: torch.ones(10)}, path)
    with pytest.raises(ModelError, match=f"tensor {name} has no place in the model"):
        load_weights(str(llama))


def test_tables_that_follow_from_the_configuration_may_be_there(llama: Path) -> None:
    path, before = llama / "model.safetensors", load_weights(str(llama))
    tables = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(5), "lm_head.weight": torch.ones(96, 48)}
    save_file(load_file(path) | tables, path)
    after = load_weights(str(llama))
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers(llama: Path, bad: float) -> None:
    tensors = load_file(llama / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = bad
    save_file(tensors, llama / "model.safetensors")
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj.*NaN or infinity"):
        load_weights(str(llama))


def test_a_number_where_a_matrix_belongs(saved: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved["gpt2"], tmp_path / "gpt2"))
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.h.0.attn.c_attn.weight"] = torch.tensor(1.0)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"attn\.c_attn\.weight gives layers\.0\.q\.weight the shape \(\)"):
        load_weights(str(folder))


def test_integer_weights(llama: Path) -> None:
    tensors = load_file(llama / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(48, dtype=torch.int8)
    save_file(tensors, llama / "model.safetensors")
    with pytest.raises(ModelError, match=r"model\.norm\.weight is I8"):
        load_weights(str(llama))


@pytest.mark.parametrize(
    ("file", "load"),
    [("config.json", load_spec), ("model.safetensors", load_weights), ("tokenizer.json", load_tokenizer)],
)
def test_missing_file(llama: Path, file: str, load: Any) -> None:
    (llama / file).unlink()
    with pytest.raises(ModelError, match=file):
        load(str(llama))
