"""Policies that NVIDIA's kvpress has too: for the same attention, the same tokens stay."""

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from orchestrator.quality.press import PressedModel, make_press
from orchestrator.quality.reader import Prefix, Reader
from parties.errors import ModelError, PromptError
from parties.policies import make

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its dependencies warn
    kvpress = pytest.importorskip("kvpress", reason="kvpress is not installed: requirements-dev-nodeps.txt")

MODEL = "random:llama?layers=4&hidden=32&heads=4&kv_heads=2&intermediate=48&vocab=64&positions=1024"
SAME = {
    "snapkv": ("SnapKVPress", {"window_size": 16, "kernel_size": 5}),
    "tova": ("TOVAPress", {}),
    "streaming_llm": ("StreamingLLMPress", {"n_sink": 4}),
    "pyramidkv": ("PyramidKVPress", {"window_size": 8, "kernel_size": 5, "beta": 4}),
}


@pytest.fixture(scope="module", params=[120, 257])
def prefix(request: pytest.FixtureRequest) -> tuple[Reader, Prefix]:
    reader = Reader(MODEL)
    tokens = torch.randint(64, (request.param,), generator=torch.Generator().manual_seed(request.param))
    return reader, reader.read(tokens.tolist())


def attention(prefix: Prefix, layer: int) -> Tensor:
    """The layer's causal attention, [1, heads, n, n]."""
    q, k = prefix.queries[layer], prefix.cache.layers[layer].k
    scores = q @ k.repeat_interleave(q.shape[0] // k.shape[0], dim=0).transpose(1, 2)
    n = scores.shape[-1]
    return scores.masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf).softmax(-1)[None]


def theirs(press: Any, prefix: Prefix, layer: int, spec: Any) -> Tensor:
    """The positions that kvpress keeps, ascending, [kv_heads, kept]: values encode their position."""
    keys = prefix.cache.layers[layer].k[None]
    n = keys.shape[2]
    places = torch.arange(n, dtype=torch.float32)[None, None, :, None].expand(*keys.shape)
    config = SimpleNamespace(
        num_attention_heads=spec.n_heads, num_key_value_heads=spec.n_kv_heads, num_hidden_layers=spec.n_layers
    )
    module = SimpleNamespace(config=config, head_dim=spec.head_dim, layer_idx=layer)
    hidden = torch.zeros(1, n, spec.hidden)
    _, kept = press.compress(module, hidden, keys, places, attention(prefix, layer), {})
    return kept[0, :, :, 0].long().sort(-1).values


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("name", SAME)
def test_the_same_tokens_stay(prefix: tuple[Reader, Prefix], name: str, ratio: float) -> None:
    reader, read = prefix
    press, parameters = SAME[name]
    policy = make(name, compression_ratio=ratio, mode="mask", **parameters)
    cache = reader.compress(read, policy)
    other = getattr(kvpress, press)(compression_ratio=ratio, **parameters)
    for layer, here in enumerate(cache.layers):
        flags = here.alive.expand(reader.spec.n_kv_heads, -1)
        ours = torch.stack([row.nonzero()[:, 0] for row in flags])
        assert torch.equal(ours, theirs(other, read, layer, reader.spec)), f"layer {layer}"


def test_a_press_that_keeps_all_decodes_as_the_full_cache(prefix: tuple[Reader, Prefix]) -> None:
    reader, read = prefix
    model, policy = PressedModel(MODEL), make("full")
    pressed = model.compress(read.tokens, make_press("kvpress:KnormPress(compression_ratio=0.0)"))
    cache = reader.compress(read, policy)
    for token in (3, 60, 7):
        ours, other = reader.step(policy, cache, token), model.step(pressed, token)
        torch.testing.assert_close(other, ours, rtol=1e-3, atol=1e-3)


def test_a_press_decodes_as_our_policy_of_the_same_name(prefix: tuple[Reader, Prefix]) -> None:
    reader, read = prefix
    policy = make("snapkv", compression_ratio=0.5, window_size=16)
    model, cache = PressedModel(MODEL), reader.compress(read, policy)
    pressed = model.compress(read.tokens, make_press("kvpress:SnapKVPress(compression_ratio=0.5, window_size=16)"))
    for token in (3, 60, 7):
        ours, other = reader.step(policy, cache, token), model.step(pressed, token)
        torch.testing.assert_close(other, ours, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kvpress", "is not a call|cannot be read"),
        ("kvpress:KnormPress", "is not a call"),
        (
            "kvpress:AdaKVPress(press=other.SnapKVPress())",
            "other.SnapKVPress is not supported: it is not a plain name of",
        ),
        ("kvpress:AdaKVPress(press=SnapKVPress)", r"SnapKVPress is not supported\); write module:Class"),
        ("kvpress:KnormPress(**{'compression_ratio': 0.5})", r"\*\* is not supported"),
        ("kvpress:KnormPress(*[0.5])", r"\*\[0.5\] is not supported"),
        ("kvpress:KnormPress(compression_ratio=open('x'))", "no attribute 'open'"),
        ("os:getcwd()", "getcwd is not a class of os"),
        ("kvpress:NoSuchPress()", "NoSuchPress"),
        ("no_such_module:Press()", "no_such_module"),
        ("kvpress:KnormPress(compression_ratio=2.0)", "between 0 and 1"),
        ("kvpress:KnormPress(ratio=0.5)", "ratio"),
    ],
)
def test_a_press_that_cannot_be_built_is_named(text: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        make_press(text)


@pytest.mark.parametrize(
    ("text", "press"),
    [
        ("ThinKPress(0.5)", lambda: kvpress.ThinKPress(0.5)),
        ("AdaKVPress(press=SnapKVPress(compression_ratio=0.5))", lambda: kvpress.AdaKVPress(kvpress.SnapKVPress(0.5))),
        ("AdaKVPress(KnormPress(-0.0), 0.1)", lambda: kvpress.AdaKVPress(kvpress.KnormPress(0.0), 0.1)),
        (
            "ComposedPress([SnapKVPress(0.25, window_size=8), KnormPress(0.5)])",
            lambda: kvpress.ComposedPress([kvpress.SnapKVPress(0.25, window_size=8), kvpress.KnormPress(0.5)]),
        ),
    ],
)
def test_presses_take_positions_and_other_presses(text: str, press: Any) -> None:
    assert make_press(f"kvpress:{text}") == press()


def test_a_composed_press_compresses_by_each(prefix: tuple[Reader, Prefix]) -> None:
    _, read = prefix
    press = make_press("kvpress:ComposedPress([KnormPress(0.5), KnormPress(0.5)])")
    pressed = PressedModel(MODEL).compress(read.tokens, press)
    kept = {int(layer.keys.shape[2]) for layer in pressed.inner.layers}
    assert kept == {int(int(len(read.tokens) * 0.5) * 0.5)}


def test_presses_run_on_llama_types_only() -> None:
    with pytest.raises(ModelError, match="of the type gpt2"):
        PressedModel("random:gpt2?layers=1&hidden=16&heads=2&intermediate=16&vocab=64")
