"""Files of trained heads: a written file is read back, and any other content is refused with the reason."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import run
from parties.engines.plain import PlainEngine
from parties.heads import Head, HeadError, fingerprint, load_head, save_head
from parties.heads.folding import fold_head, head_of, shapes_of
from parties.heads.untrained import random_head
from parties.metering.meter import StageMeter
from parties.models.folding import fold
from parties.policies import make
from tests.helpers.naive_decoder import norm
from tests.helpers.tiny import GPT2, LLAMA, random_tokens, random_weights

SPEC = replace(LLAMA, n_layers=2)
WEIGHTS = random_weights(SPEC)
MODEL = fingerprint(SPEC, WEIGHTS)
KINDS: Any = ("locret", "attention_gate")


def saved(tmp_path: Path, kind: Any = "locret", **changes: Any) -> str:
    path = tmp_path / "heads.safetensors"
    save_head(replace(random_head(kind, SPEC, WEIGHTS), **changes), path)
    return str(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_written_file_is_read_back(kind: Any, tmp_path: Path) -> None:
    head = random_head(kind, SPEC, WEIGHTS, width=5, seed=4)
    save_head(head, tmp_path / "heads.safetensors")
    read = load_head(str(tmp_path / "heads.safetensors"), kind, SPEC, MODEL)
    assert (read.kind, read.model, read.fingerprint, read.width) == (kind, "random", MODEL, 5)
    assert all(torch.equal(read.tensors[name], tensor) for name, tensor in head.tensors.items())


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    head = random_head("locret", SPEC, WEIGHTS)
    path = saved(tmp_path, tensors={name: tensor.bfloat16() for name, tensor in head.tensors.items()})
    assert {t.dtype for t in load_head(path, "locret", SPEC, MODEL).tensors.values()} == {torch.float32}


def refusal(path: str, kind: Any = "locret", spec: Any = SPEC, model: str = MODEL) -> str:
    with pytest.raises(HeadError) as caught:
        load_head(path, kind, spec, model)
    assert caught.value.status == "config_error"
    assert str(caught.value).startswith("head: ")
    return str(caught.value)


def test_no_path_and_no_file(tmp_path: Path) -> None:
    assert "give the path of a .safetensors file" in refusal("")
    assert "nowhere.safetensors" in refusal(str(tmp_path / "nowhere.safetensors"))
    assert str(tmp_path) in refusal(str(tmp_path)), "a folder is no file"


@pytest.mark.parametrize("kept", [0, 4, 8, 100, -1])
def test_a_truncated_file_is_refused(kept: int, tmp_path: Path) -> None:
    path = Path(saved(tmp_path))
    path.write_bytes(path.read_bytes()[:kept])
    assert "cannot be read" in refusal(str(path))


def test_a_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "heads.safetensors"
    path.write_bytes(b"\xff" * 4096)
    assert "cannot be read" in refusal(str(path))
    save_file({"x": torch.zeros(2)}, path)
    assert "format None" in refusal(str(path))


def test_heads_of_another_kind_or_model_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert "'locret', the policy needs 'attention_gate'" in refusal(path, "attention_gate")
    other = fingerprint(SPEC, random_weights(SPEC, seed=1))
    assert other != MODEL
    message = refusal(path, model=other)
    assert MODEL in message
    assert other in message
    assert fingerprint(replace(SPEC, n_layers=3), WEIGHTS) != MODEL, "the same weights in another shape"


CHANGES: dict[str, tuple[str, Any]] = {
    "width": ("width '0'", {"width": 0}),
    "lacks": ("lacks tensor 'layers.1.out'", None),
    "shape": ("(3, 2), this model needs (8, 2)", torch.zeros(3, 2)),
    "finite": ("not finite", torch.full((8, 2), float("nan"))),
}


@pytest.mark.parametrize("name", CHANGES)
def test_damaged_heads_are_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    expected, change = CHANGES[name]
    head = random_head("locret", SPEC, WEIGHTS)
    if isinstance(change, dict):
        path = saved(tmp_path, **change)
    else:
        tensors = {key: tensor for key, tensor in head.tensors.items() if key != "layers.1.out"}
        path = saved(tmp_path, tensors=tensors if change is None else tensors | {"layers.1.out": change})
    assert expected in refusal(path)


def test_an_unknown_tensor_is_refused(tmp_path: Path) -> None:
    head = random_head("locret", SPEC, WEIGHTS)
    path = saved(tmp_path, tensors={**head.tensors, "extra": torch.zeros(1)})
    assert "unknown tensor 'extra'" in refusal(path)


@pytest.mark.parametrize(("key", "value"), [("version", "2"), ("format", "x"), ("kind", "oracle"), ("width", "many")])
def test_metadata_that_is_not_known_is_refused(key: str, value: str, tmp_path: Path) -> None:
    path = saved(tmp_path)
    metadata = {"format": "mpcache-bench.head", "version": "1", "kind": "locret", "fingerprint": MODEL, "width": "8"}
    save_file(load_file(path), path, metadata=metadata | {key: value})
    assert repr(value) in refusal(path)


def scores(kind: Any, spec: Any, weights: Any, prompt: list[int]) -> list[Any]:
    """Returns the ratings of the prompt's tokens by the folded heads of each layer, on the plain engine."""
    head, engine, found = random_head(kind, spec, weights, seed=3), PlainEngine(StageMeter()), []
    folded = fold_head(head, spec, weights)
    assert shapes_of(folded) == {name: tuple(tensor.shape) for name, tensor in folded.items()}
    run(engine.install({}, fold(spec, weights) | folded))
    policy = make(kind, compression_ratio=0.5, mode="mask")

    def observed(engine: Any, here: Any, rated: Any, *rest: Any) -> Any:
        found.append(rated)
        return
        yield

    object.__setattr__(policy, "evict", observed)
    decoder, cache = Decoder(engine, spec, policy), Cache.empty(spec.n_layers)
    run(decoder.prefill(run(decoder.embed(prompt, len(prompt), 0)), cache))
    return found


@pytest.mark.parametrize("spec", [SPEC, replace(GPT2, n_layers=1)], ids=["llama", "gpt2"])
def test_a_locret_head_rates_as_in_the_paper(spec: Any) -> None:
    spec = replace(spec, n_layers=1)
    weights, prompt = random_weights(spec), random_tokens(spec, 12)
    head = random_head("locret", spec, weights, seed=3)
    (found,) = scores("locret", spec, weights, prompt)
    w = {name: tensor.double() for name, tensor in weights.items()}
    x = w["embed"][prompt] + (w["positions"][: len(prompt)] if spec.family == "gpt2" else 0)
    normal = norm(spec, w, "layers.0.attn_norm", x)
    parts = [normal @ w[f"layers.0.{n}.weight"] + w.get(f"layers.0.{n}.bias", torch.tensor(0.0)) for n in "qkv"]
    inner = torch.nn.functional.silu(torch.cat(parts, dim=1) @ head.tensors["layers.0.in"].double())
    expected = inner @ head.tensors["layers.0.out"].double()
    torch.testing.assert_close(found, expected.T[:, : found.shape[1]], rtol=0, atol=1e-4)


@pytest.mark.parametrize("spec", [SPEC, replace(GPT2, n_layers=1)], ids=["llama", "gpt2"])
def test_a_gate_is_an_attention_over_the_normalised_prompt(spec: Any) -> None:
    spec = replace(spec, n_layers=1)
    weights, prompt = random_weights(spec), random_tokens(spec, 12)
    head = random_head("attention_gate", spec, weights, seed=3)
    (found,) = scores("attention_gate", spec, weights, prompt)
    w = {name: tensor.double() for name, tensor in weights.items()}
    x = w["embed"][prompt] + (w["positions"][: len(prompt)] if spec.family == "gpt2" else 0)
    normal = norm(spec, w, "layers.0.attn_norm", x)
    q, k, v = (normal @ head.tensors["layers.0.in"].double()).chunk(3, dim=1)
    mixed = []
    for gate in range(spec.n_kv_heads):
        at = slice(gate * head.width, (gate + 1) * head.width)
        mixed.append((q[:, at] @ k[:, at].T / head.width**0.5).softmax(-1) @ v[:, at])
    expected = torch.cat(mixed, dim=1) @ head.tensors["layers.0.out"].double() + head.tensors["layers.0.out.bias"]
    torch.testing.assert_close(found, expected.T, rtol=0, atol=1e-4)


def test_a_policy_without_heads_adds_nothing_and_one_with_them_names_its_file(tmp_path: Path) -> None:
    assert head_of(make("full"), SPEC, WEIGHTS) == {}
    folded = head_of(make("locret", head=saved(tmp_path)), SPEC, WEIGHTS)
    assert set(folded) == {f"layers.{layer}.head_{end}" for layer in range(2) for end in ("in", "out")}
    with pytest.raises(HeadError, match="give the path"):
        head_of(make("locret"), SPEC, WEIGHTS)
    assert isinstance(random_head("locret", SPEC, WEIGHTS), Head)
