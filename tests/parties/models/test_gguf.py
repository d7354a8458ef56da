"""GGUF files: their content, and every way in which they can be damaged."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import GPT2LMHeadModel

from parties.errors import ModelError, NotEnoughMemory
from parties.models import load_spec, load_tokenizer, load_weights
from parties.models.gguf_file import read_header
from tests.helpers.naive_decoder import forward
from tests.helpers.saved_models import TOKENS, logits, save, tiny_gpt2, write_gguf

SHAPES = {
    "llama": "random:llama?layers=2&hidden=32&heads=4&kv_heads=2&intermediate=40&vocab=20&positions=64&tied=false",
    "gpt2": "random:tiny-gpt2?layers=2&hidden=32&heads=4&intermediate=40&vocab=20&positions=64",
}


def written(family: str, path: Path, **facts: Any) -> Path:
    return write_gguf(path, load_spec(SHAPES[family]), load_weights(SHAPES[family]), **facts)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written("llama", tmp_path_factory.mktemp("gguf") / "llama.gguf")


@pytest.mark.parametrize("family", SHAPES)
def test_a_written_file_is_read_back_unchanged(family: str, tmp_path: Path) -> None:
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
        ("rope__scaling__type", "yarn"),
        ("rope__scaling__attn_factor", 1.5),
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


@pytest.mark.parametrize(
    ("fact", "value"),
    [("final_logit_softcapping", 30.0), ("attention__scale", 0.1), ("rope__scaling__yarn_beta_fast", 1.0), ("new", 1)],
)
def test_refuses_facts_that_it_does_not_know(tmp_path: Path, fact: str, value: float) -> None:
    path = written("llama", tmp_path / "model.gguf", **{fact: value})
    with pytest.raises(ModelError, match=f"llama.{fact.replace('__', '.')} is .*does not support"):
        load_spec(str(path))


@pytest.mark.parametrize("name", ["blk.0.attn_output.bias", "blk.2.attn_q.weight", "blk.0.attn_q_norm.weight"])
def test_refuses_tensors_that_it_would_have_to_ignore(tmp_path: Path, name: str) -> None:
    spec, weights = load_spec(SHAPES["llama"]), load_weights(SHAPES["llama"])
    write_gguf(tmp_path / "model.gguf", spec, weights, extra={name: torch.ones(8)})
    with pytest.raises(ModelError, match=f"tensor {name}, which the decoder does not support"):
        load_spec(str(tmp_path / "model.gguf"))


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """The model of `llama` in three parts; the first one has no tensors, as `llama-gguf-split` may write it."""
    whole = gguf.GGUFReader(written("llama", tmp_path / "whole.gguf"))
    thirds = [[], whole.tensors[::2], whole.tensors[1::2]]
    return [write_part(tmp_path, whole, index, tensors) for index, tensors in enumerate(thirds)]


def write_part(folder: Path, whole: gguf.GGUFReader, index: int, tensors: list[Any]) -> Path:
    path = folder / f"model-{index + 1:05}-of-00003.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for field in whole.fields.values() if index == 0 else ():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            writer.add_key_value(field.name, field.contents(), field.types[0])
    writer.add_uint16("split.no", index)
    writer.add_uint16("split.count", 3)
    writer.add_int32("split.tensors.count", len(whole.tensors))
    for tensor in tensors:
        writer.add_tensor(tensor.name, tensor.data)
    written_out(writer)
    return path


def test_a_split_model_is_read_from_its_first_part(parts: list[Path], tmp_path: Path) -> None:
    assert load_spec(str(parts[0])) == load_spec(str(tmp_path / "whole.gguf"))
    weights, expected = load_weights(str(parts[0])), load_weights(str(tmp_path / "whole.gguf"))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_split_model_that_is_not_whole_is_named(parts: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is part 2 of 3 of a split model; name its first part"):
        load_spec(str(parts[1]))
    renamed = parts[0].rename(tmp_path / "first.gguf")
    with pytest.raises(ModelError, match=r"rename the parts to first-00001-of-00003\.gguf"):
        load_spec(str(renamed))
    renamed.rename(parts[0])
    content = parts[2].read_bytes()
    parts[2].write_bytes(parts[1].read_bytes())
    with pytest.raises(ModelError, match=r"model-00003-of-00003\.gguf is not part 3 of 3"):
        load_spec(str(parts[0]))
    parts[2].write_bytes(content[:-40])
    with pytest.raises(ModelError, match=r"model-00003-of-00003\.gguf as GGUF: .* truncated"):
        load_spec(str(parts[0]))
    parts[2].unlink()
    with pytest.raises(ModelError, match=r"model-00003-of-00003\.gguf is missing, part 3 of 3"):
        load_spec(str(parts[0]))


def test_a_git_lfs_pointer_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 99\n")
    with pytest.raises(ModelError, match=r"model\.gguf: it is a Git LFS pointer.*git lfs pull"):
        load_spec(str(tmp_path / "model.gguf"))


@pytest.mark.parametrize(("code", "named"), [(31, "31"), (24, r"24 \(I8\)")])
def test_an_unknown_quantisation_is_named_with_its_tensor(llama: Path, tmp_path: Path, code: int, named: str) -> None:
    content, name = bytearray(llama.read_bytes()), b"blk.0.ffn_up.weight"
    kind = content.index(name) + len(name) + 4 + 2 * 8  # behind two dimensions
    content[kind : kind + 4] = code.to_bytes(4, "little")
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(
        ModelError, match=rf"tensor blk\.0\.ffn_up\.weight has quantisation kind {named}, .*such as Q8_0"
    ):
        load_spec(str(tmp_path / "model.gguf"))


def test_refuses_another_architecture(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(
        ModelError, match=r"general\.architecture is 'mamba'; supported: llama, gpt2, qwen2, qwen3, phi3"
    ):
        load_spec(str(tmp_path / "model.gguf"))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_truncated_anywhere(llama: Path, tmp_path: Path, data: st.DataObject) -> None:
    whole = llama.read_bytes()
    truncated = tmp_path / "damaged.gguf"
    truncated.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 33))])  # up to 32 bytes are padding
    with pytest.raises(ModelError, match=r"damaged\.gguf"):
        load_spec(str(truncated))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_corrupt_byte_is_harmless_or_named(llama: Path, tmp_path: Path, data: st.DataObject) -> None:
    # The header ends near byte 2500.
    check_corrupt(llama, tmp_path, data.draw(st.integers(0, 2500)), data.draw(st.integers(0, 255)))


def test_a_dimension_of_nothing_is_named(llama: Path, tmp_path: Path) -> None:
    content, name = llama.read_bytes(), b"blk.0.attn_q.weight"
    for dimension in (0, 1):
        check_corrupt(llama, tmp_path, content.index(name) + len(name) + 4 + 8 * dimension, 0)
    check_corrupt(llama, tmp_path, 1150, 0)


def check_corrupt(whole: Path, folder: Path, at: int, value: int) -> None:
    content = bytearray(whole.read_bytes())
    content[at] = value
    damaged = folder / "damaged.gguf"
    damaged.write_bytes(content)
    try:
        spec, weights = load_spec(str(damaged)), load_weights(str(damaged))
    except (ModelError, NotEnoughMemory) as error:  # the byte may have made a size enormous
        assert "damaged.gguf" in str(error)  # noqa: PT017  both outcomes are right
    else:
        assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == spec.shapes()


@pytest.mark.parametrize(
    ("kind", "error"), [("F32", 0.0), ("F16", 1e-3), ("BF16", 1e-2), ("Q8_0", 0.02), ("Q4_0", 0.4)]
)
def test_unpacks_the_quantisations_of_llama_cpp(tmp_path: Path, kind: str, error: float) -> None:
    numbers = torch.randn(6, 64, generator=torch.Generator().manual_seed(1))
    quantised = gguf.GGMLQuantizationType[kind]
    write_tensor(tmp_path / "model.gguf", gguf.quantize(numbers.numpy(), quantised), quantised)
    unpacked = read_header(tmp_path / "model.gguf").read("numbers")
    assert unpacked.dtype == torch.float32
    assert float((unpacked - numbers).abs().max()) <= error


def unpackable() -> list[gguf.GGMLQuantizationType]:
    """Every quantisation that the package `gguf` can unpack."""

    def unpacks(kind: gguf.GGMLQuantizationType) -> bool:
        _, size = gguf.GGML_QUANT_SIZES[kind]
        try:
            gguf.dequantize(np.zeros((1, size), dtype=np.uint8), kind)
        except NotImplementedError:
            return False
        return True

    return [kind for kind in gguf.GGMLQuantizationType if unpacks(kind)]


@pytest.mark.parametrize("kind", unpackable(), ids=lambda kind: kind.name)
def test_unpacks_what_the_package_gguf_unpacks(tmp_path: Path, kind: gguf.GGMLQuantizationType) -> None:
    numbers, size = gguf.GGML_QUANT_SIZES[kind]
    random = np.random.default_rng(1).integers(0, 60, (6, 2 * size), dtype=np.uint8)  # small bytes: no NaN in any float
    packed = random.view({"F32": np.float32, "F16": np.float16}.get(kind.name, np.uint8))
    write_tensor(tmp_path / "model.gguf", packed, kind)
    unpacked = read_header(tmp_path / "model.gguf").read("numbers")
    expected = gguf.dequantize(random, kind).astype(np.float32)
    assert unpacked.shape == (6, 2 * numbers)
    assert unpacked.unique().numel() > 1
    assert torch.equal(unpacked, torch.from_numpy(expected))


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


def written_out(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_tensor(path: Path, packed: Any, kind: gguf.GGMLQuantizationType, alignment: int | None = None) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    if alignment is not None:
        writer.add_uint32("general.alignment", alignment)
    writer.add_tensor("numbers", packed, raw_dtype=kind)
    written_out(writer)


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


def test_a_missing_tokenizer_is_reported_with_the_fix(llama: Path) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.ggml\.model is None.*tokenizer\.json"):
        load_tokenizer(str(llama))
