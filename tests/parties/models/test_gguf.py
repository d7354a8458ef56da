"""GGUF files: what they hold, and every way in which they can be broken."""

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import GPT2LMHeadModel

from parties.errors import ModelError, NotEnoughMemory
from parties.models import load_spec, load_tokenizer, load_weights
from parties.models.gguf_file import read_header
from tests.parties.models.naive import forward
from tests.parties.models.saved import TOKENS, logits, save, tiny_gpt2, write_gguf

SHAPES = {
    "llama": "random:llama?layers=2&hidden=32&heads=4&kv_heads=2&intermediate=40&vocab=20&positions=64&tied=false",
    "gpt2": "random:tiny-gpt2?layers=2&hidden=32&heads=4&intermediate=40&vocab=20&positions=64",
}


def written(family: str, path: Path, **facts: int | float | str) -> Path:
    return write_gguf(path, load_spec(SHAPES[family]), load_weights(SHAPES[family]), **facts)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written("llama", tmp_path_factory.mktemp("gguf") / "llama.gguf")


@pytest.mark.parametrize("family", SHAPES)
def test_gives_back_what_was_written(family: str, tmp_path: Path) -> None:
    path = str(written(family, tmp_path / "model.gguf"))
    expected, spec = load_spec(SHAPES[family]), load_spec(path)
    facts = expected.to_json() | {"eos_ids": [2]}
    for name in ("norm_eps", "rope_theta"):  # stored as float32
        assert getattr(spec, name) == pytest.approx(facts[name])
        facts[name] = getattr(spec, name)
    assert spec.to_json() == facts
    weights, original = load_weights(path), load_weights(SHAPES[family])
    assert weights.keys() == original.keys()
    assert all(torch.equal(weights[name], original[name]) for name in weights)


def test_gpt2_agrees_with_how_transformers_reads_the_same_file(tmp_path: Path) -> None:
    model = tiny_gpt2()
    folder = save(model, tmp_path / "folder")
    write_gguf(tmp_path / "model.gguf", load_spec(str(folder)), load_weights(str(folder)))
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path, gguf_file="model.gguf", config=model.config)
    source = str(tmp_path / "model.gguf")
    ours = forward(load_spec(source), load_weights(source), TOKENS)
    assert float((ours - logits(theirs.eval(), TOKENS)).abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("rope__scaling__type", "linear"),
        ("rope__scale_linear", 2.0),
        ("expert_count", 8),
        ("attention__sliding_window", 4096),
        ("rope__dimension_count", 4),
        ("attention__value_length", 16),
    ],
)
def test_refuses_other_kinds_by_the_name_of_the_fact(tmp_path: Path, fact: str, value: int | float | str) -> None:
    path = written("llama", tmp_path / "model.gguf", **{fact: value})
    with pytest.raises(ModelError, match=f"llama.{fact.replace('__', '.')} is .*supported"):
        load_spec(str(path))


@pytest.mark.parametrize("name", ["rope_freqs.weight", "blk.0.attn_output.bias"])
def test_refuses_tensors_that_it_would_have_to_ignore(tmp_path: Path, name: str) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tensor(name, torch.ones(8).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match=name):
        load_spec(str(tmp_path / "model.gguf"))


def test_refuses_another_architecture(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelError, match=r"general\.architecture is 'mamba'; supported: llama, gpt2"):
        load_spec(str(tmp_path / "model.gguf"))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_truncated_anywhere(llama: Path, tmp_path: Path, data: st.DataObject) -> None:
    whole = llama.read_bytes()
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 33))])  # up to 32 bytes are padding
    with pytest.raises(ModelError, match=r"torn\.gguf"):
        load_spec(str(torn))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_corrupt_byte_is_harmless_or_named(llama: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(llama.read_bytes())
    content[data.draw(st.integers(0, 2500))] = data.draw(st.integers(0, 255))  # the header ends near there
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(content)
    try:
        spec, weights = load_spec(str(torn)), load_weights(str(torn))
    except (ModelError, NotEnoughMemory) as error:  # the byte may have made a size enormous
        assert "torn.gguf" in str(error)  # noqa: PT017  both outcomes are right
    else:
        assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == spec.shapes()


@pytest.mark.parametrize(
    ("kind", "error"), [("F32", 0.0), ("F16", 1e-3), ("BF16", 1e-2), ("Q8_0", 0.02), ("Q4_0", 0.4)]
)
def test_unpacks_what_llama_cpp_packs(tmp_path: Path, kind: str, error: float) -> None:
    numbers = torch.randn(6, 64, generator=torch.Generator().manual_seed(1))
    quantised = gguf.GGMLQuantizationType[kind]
    write_tensor(tmp_path / "model.gguf", gguf.quantize(numbers.numpy(), quantised), quantised)
    unpacked = read_header(tmp_path / "model.gguf").read("numbers")
    assert unpacked.dtype == torch.float32
    assert float((unpacked - numbers).abs().max()) <= error


def test_a_file_that_vanishes_or_shrinks_after_its_header_was_read(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_tensor(path, torch.ones(6, 64).numpy(), gguf.GGMLQuantizationType.F32)
    file = read_header(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="numbers"):
        file.read("numbers")
    path.unlink()
    with pytest.raises(ModelError, match="numbers"):
        file.read("numbers")


def write_tensor(path: Path, packed: Any, kind: gguf.GGMLQuantizationType, alignment: int | None = None) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    if alignment is not None:
        writer.add_uint32("general.alignment", alignment)
    writer.add_tensor("numbers", packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_impossible_alignment(tmp_path: Path) -> None:
    write_tensor(tmp_path / "model.gguf", torch.ones(6, 64).numpy(), gguf.GGMLQuantizationType.F32, alignment=0)
    with pytest.raises(ModelError, match=r"general\.alignment is 0"):
        load_spec(str(tmp_path / "model.gguf"))


@pytest.mark.parametrize("head_dim", [2, 6, 128])
def test_heads_of_another_width_than_the_matrices(llama: Path, tmp_path: Path, head_dim: int) -> None:
    content, key = bytearray(llama.read_bytes()), b"llama.attention.key_length"
    content[content.index(key) + len(key) + 4] = head_dim
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=r"blk\.0\.attn_q\.weight gives"):
        load_weights(str(tmp_path / "model.gguf"))


@pytest.mark.parametrize("content", [b"", b"GGUF", b"PK\x03\x04" * 99, b"GGUF" + (9).to_bytes(4, "little") + bytes(99)])
def test_not_a_gguf(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(ModelError, match="as GGUF"):
        load_spec(str(tmp_path / "model.gguf"))


def test_without_a_tokenizer_says_where_to_get_one(llama: Path) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.ggml\.model is None.*tokenizer\.json"):
        load_tokenizer(str(llama))
