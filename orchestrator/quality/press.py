"""Presses, of NVIDIA's kvpress or written by the user, on the same prompts and tasks as our policies.

A press hooks into a transformers model, so a transformers model is built from the same weights.
"""

import ast
import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from parties.errors import ModelError, PromptError
from parties.models import load_spec, load_weights
from parties.models.folder import LAYOUTS

_ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}


class PressedModel:
    """A Llama-type model in transformers, float32, for presses.

    Args:
        model: A model source.
        device: `cpu` or `cuda`.

    Raises:
        ModelError: The model cannot be loaded, or is not of the Llama type.
    """

    def __init__(self, model: str, device: str = "cpu") -> None:
        from transformers import LlamaConfig, LlamaForCausalLM  # a slow import that only presses need

        spec, weights = load_spec(model), load_weights(model)
        if spec.family != "llama":
            raise ModelError(f"presses: {model} is of the type {spec.family}; presses run on Llama-type models")
        rope = spec.rope(0)
        if rope is None or rope.depends_on_length:
            raise ModelError(
                f"presses: the rotary frequencies of {model} depend on the length; presses need fixed ones"
            )
        config = LlamaConfig(
            vocab_size=spec.vocab,
            hidden_size=spec.hidden,
            intermediate_size=spec.intermediate,
            num_hidden_layers=spec.n_layers,
            num_attention_heads=spec.n_heads,
            num_key_value_heads=spec.n_kv_heads,
            head_dim=spec.head_dim,
            max_position_embeddings=spec.max_positions,
            rms_norm_eps=spec.norm_eps,
            hidden_act=_ACTIVATIONS[spec.activation],
            rope_parameters={"rope_type": "default", "rope_theta": spec.rope_theta},
            attention_bias=spec.qkv_bias,
            mlp_bias=spec.mlp_bias,
            tie_word_embeddings=spec.tied,
        )
        self._model: Any = LlamaForCausalLM(config).eval()
        layout = LAYOUTS[spec.family]
        state = {
            layout.stored(name): tensor.T if tensor.dim() == 2 and name != "embed" else tensor
            for name, tensor in weights.items()
        }
        self._model.load_state_dict(state, strict=False)
        self._model.model.rotary_emb.inv_freq.copy_(rope.frequencies())
        self._model.model.rotary_emb.attention_scaling = rope.scale
        self._model.to(device)
        self._device = device

    @torch.no_grad()
    def compress(self, tokens: Sequence[int], press: Any) -> "PressedCache":
        """Runs a prompt under a press."""
        from transformers import DynamicCache

        cache = DynamicCache()
        with press(self._model):
            self._run(tokens, cache, 0)
        return PressedCache(cache, len(tokens))

    @torch.no_grad()
    def step(self, pressed: "PressedCache", token: int) -> Tensor:
        """Decodes one token through a compressed cache; returns the logits of the next, [vocab]."""
        logits = self._run([token], pressed.inner, pressed.position)
        pressed.position += 1
        return logits

    def _run(self, tokens: Sequence[int], cache: Any, position: int) -> Tensor:
        places = torch.arange(position, position + len(tokens), device=self._device)
        found = self._model(
            input_ids=torch.tensor([list(tokens)], device=self._device),
            past_key_values=cache,
            position_ids=places[None],
            cache_position=places,  # presses read it, and recent versions of transformers do not pass it on
            logits_to_keep=1,
        )
        return found.logits[0, -1].double()  # type: ignore[no-any-return]


class PressedCache:
    """A cache compressed by a press, and the position of the next token."""

    def __init__(self, inner: Any, position: int) -> None:
        self.inner, self.position = inner, position


def make_press(text: str) -> Any:
    """Builds a press from `module:Class(value, key=value, ...)`.

    Values are Python literals, calls of the same module (such as a press that another one wraps), or lists of both.

    Raises:
        PromptError: The text is of another form, or names no such class.
    """
    module, _, call = text.partition(":")
    try:
        tree = ast.parse(call, mode="eval").body
        if not isinstance(tree, ast.Call):
            raise PromptError(f"presses: {text!r} is not a call; {_FORM}")
        return _value(tree, importlib.import_module(module))
    except (SyntaxError, ValueError) as error:
        raise PromptError(f"presses: {text!r} cannot be read ({error}); {_FORM}") from None
    except (ImportError, AttributeError) as error:
        raise PromptError(f"presses: {text!r}: {error}; install it where this command runs, and {_FORM}") from None
    except (TypeError, AssertionError) as error:
        raise PromptError(f"presses: {text!r}: {error}; correct its parameters") from None


_FORM = (
    "write module:Class(key=value), such as kvpress:SnapKVPress(compression_ratio=0.5), where a value is a literal, "
    "Class(key=value) of the same module, or a list of them"
)


def _value(node: ast.expr, module: ModuleType) -> Any:
    """Evaluates an expression of the form in `_FORM`.

    Raises:
        ValueError: The expression has another form.
        TypeError: The name is not that of a class, or the class takes other parameters.
    """
    match node:
        case ast.Call(func=ast.Name(id=name)):
            words = {word.arg: _value(word.value, module) for word in node.keywords if word.arg}
            if len(words) < len(node.keywords):
                raise ValueError("** is not supported")
            if not isinstance(made := getattr(module, name), type):
                raise TypeError(f"{name} is not a class of {module.__name__}")
            return made(*(_value(value, module) for value in node.args), **words)
        case ast.Call():
            raise ValueError(f"{ast.unparse(node.func)} is not supported: it is not a plain name of {module.__name__}")
        case ast.List():
            return [_value(element, module) for element in node.elts]
        case ast.Tuple():
            return tuple(_value(element, module) for element in node.elts)
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(f"{ast.unparse(node)} is not supported") from None
