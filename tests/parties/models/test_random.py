"""Random models: of the shape asked for, reproducible, and not degenerate."""

import pytest
import torch
from torch import Tensor

from parties.errors import ModelError
from parties.models import load_spec, load_weights
from tests.helpers.naive_decoder import forward

TINY = ["random:tiny-llama", "random:tiny-gpt2", "random:llama?qkv_bias=true&tied=false"]


@pytest.mark.parametrize("source", TINY)
def test_shapes_match_the_spec(source: str) -> None:
    weights = load_weights(source)
    assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == load_spec(source).shapes()
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


@pytest.mark.parametrize("source", TINY)
def test_seed_decides_the_weights(source: str) -> None:
    first, again = load_weights(source), load_weights(source)
    other = load_weights(f"{source}{'&' if '?' in source else '?'}seed=1")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("source", [*TINY, "random:llama?layers=12&hidden=256&heads=8&intermediate=512&vocab=1000"])
def test_activations_stay_near_one_and_attention_is_neither_flat_nor_all_peaks(source: str) -> None:
    spec = load_spec(source)
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    tokens = torch.randint(spec.vocab, (120,), generator=torch.Generator().manual_seed(3)).tolist()
    logits = forward(spec, load_weights(source), tokens, observe=lambda _, *qkv: seen.append(qkv))
    assert 0.5 < logits.std() < 10
    assert logits.argmax(dim=1).unique().numel() > 5  # greedy decoding does not repeat one token
    for q, k, v in seen:
        assert 0.3 < v.std() < 3
        k = k.repeat_interleave(spec.n_heads // spec.n_kv_heads, dim=0)
        largest = torch.softmax(q[:, -40:] @ k[:, :80].transpose(1, 2) / spec.head_dim**0.5, dim=-1).amax(-1).mean(-1)
        assert largest[0] > 0.4
        assert largest[-1] < 0.2


def test_damping_divides_what_layers_add_to_the_residual_stream() -> None:
    plain, damped = load_weights("random:tiny-llama"), load_weights("random:tiny-llama?damping=4")
    for name, weights in plain.items():
        adds = name.endswith((".o.weight", ".down.weight"))
        torch.testing.assert_close(damped[name] * (4 if adds else 1), weights)


def test_damped_layers_add_little_to_an_embedding_of_order_1() -> None:
    """Numbers that stay small through all layers would leave a norm few bits."""
    assert 0.9 < load_weights("random:tiny-gpt_neox?damping=4")["embed"].std() < 1.1


def test_options_change_the_shape() -> None:
    spec = load_spec("random:llama?layers=2&hidden=96&heads=6&kv_heads=3&intermediate=100&vocab=300&positions=512")
    assert (spec.n_layers, spec.hidden, spec.n_heads, spec.n_kv_heads, spec.head_dim) == (2, 96, 6, 3, 16)
    assert (spec.intermediate, spec.vocab, spec.max_positions) == (100, 300, 512)
    assert load_spec("random:gpt2?heads=6").n_kv_heads == 6
    assert load_spec("random:tiny-llama?head_dim=32&heads=2").head_dim == 32


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("random:", "random model ''.*tiny-llama"),
        ("random:bert", "random model 'bert'.*llama-7b"),
        ("random:llama?depth=3", "depth.*layers"),
        ("random:llama?layers", "layers=2"),
        ("random:llama?layers=", "layers is ''"),
        ("random:llama?layers=two", "layers is 'two'"),
        ("random:llama?layers=-1", "layers is '-1'"),
        ("random:llama?layers=0", "n_layers is 0"),
        ("random:llama?hidden=65", "hidden=65 is not a multiple of heads=4"),
        ("random:llama?heads=0", "heads=0"),
        ("random:llama?kv_heads=3", "n_kv_heads is 3"),
        ("random:gpt2?kv_heads=3", "n_kv_heads is 3"),
        ("random:llama?tied=1", "tied is '1'"),
        ("random:llama?seed=x", "seed is 'x'"),
        ("random:llama?damping=0", "damping is 0"),
        ("random:llama?seed=99999999999999999999", "seed is '9"),
    ],
)
def test_refuses_by_name(source: str, named: str) -> None:
    with pytest.raises(ModelError, match=named):
        load_spec(source)


def test_layers_of_a_model_with_windows_keep_their_pattern() -> None:
    assert load_spec("random:gemma-2-2b?layers=3").windows == (4096, 0, 4096)
    assert load_spec("random:tiny-smollm3?layers=1").unrotated == ()
    assert load_spec("random:gemma-2-2b?hidden=64&heads=4").embed_scale == 8.0
    assert len(load_spec("random:llama-3.1-8b?hidden=64&heads=4&kv_heads=2").rope_divisors) == 8
