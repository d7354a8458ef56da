"""Files of trained heads: safetensors whose metadata identifies the model.

| metadata | value |
| --- | --- |
| `format`, `version` | `mpcache-bench.head`, `1` |
| `kind` | `locret` or `attention_gate` |
| `model`, `fingerprint` | the model's name, for people, and a hash of its specification and of part of its embedding |
| `width` | hidden width of a `locret` head, or of each of a gate's attention heads |

| tensor of each layer, float32, float16 or bfloat16 | shape | of |
| --- | --- | --- |
| `layers.<l>.in` | [(heads + 2 kv_heads) head_dim, width] | `locret`: W1 on [q; k; v] before positions |
| `layers.<l>.out` | [width, kv_heads] | `locret`: W2 |
| `layers.<l>.in` | [hidden, 3 kv_heads width] | `attention_gate`: queries, keys, values of the normalised input |
| `layers.<l>.out`, `.out.bias` | [kv_heads width, kv_heads], [kv_heads] | `attention_gate`: the logits |
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from parties.errors import ModelError
from parties.heads.shipped import find, shipped
from parties.models.spec import ModelSpec
from parties.text_file import LFS_POINTER, is_lfs_pointer

FORMAT, VERSION = "mpcache-bench.head", "1"
KINDS = ("locret", "attention_gate")

Kind = Literal["locret", "attention_gate"]


class HeadError(ModelError):
    """A file of heads cannot be used; the message gives the reason and the fix."""


@dataclass(frozen=True)
class Head:
    """The trained heads of all layers.

    Attributes:
        kind: The policy that uses them.
        model: Name of the model, for people.
        fingerprint: `fingerprint` of the model that they were trained with.
        width: Hidden width of a `locret` head, or of a gate's attention head.
        tensors: Tensors by name; see the module.
    """

    kind: Kind
    model: str
    fingerprint: str
    width: int
    tensors: Mapping[str, Tensor]

    def shapes(self, spec: ModelSpec) -> dict[str, tuple[int, ...]]:
        """Returns the required shapes of the tensors."""
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(spec.n_layers):
            if self.kind == "locret":
                rows = (spec.n_heads + 2 * spec.n_kv_heads) * spec.head_dim
                shapes[f"layers.{layer}.in"] = (rows, self.width)
                shapes[f"layers.{layer}.out"] = (self.width, spec.n_kv_heads)
            else:
                inner = spec.n_kv_heads * self.width
                shapes[f"layers.{layer}.in"] = (spec.hidden, 3 * inner)
                shapes[f"layers.{layer}.out"] = (inner, spec.n_kv_heads)
                shapes[f"layers.{layer}.out.bias"] = (spec.n_kv_heads,)
        return shapes


def fingerprint(spec: ModelSpec, weights: Mapping[str, Tensor]) -> str:
    """Returns 16 hexadecimal digits that distinguish a model from others of the same shape.

    Args:
        spec: The model's specification.
        weights: Canonical parameters; the first 64 rows of the embedding are hashed.
    """
    shape = json.dumps(spec.to_json(), sort_keys=True).encode()
    rows = weights["embed"][:64].detach().float().contiguous().numpy().tobytes()
    return hashlib.sha256(shape + rows).hexdigest()[:16]


def save_head(head: Head, path: Path) -> None:
    """Writes a file of heads."""
    facts = {"kind": head.kind, "model": head.model, "fingerprint": head.fingerprint, "width": str(head.width)}
    tensors = {name: tensor.contiguous() for name, tensor in head.tensors.items()}
    save_file(tensors, path, metadata={"format": FORMAT, "version": VERSION, **facts})


def load_head(path: str, kind: Kind, spec: ModelSpec, model: str) -> Head:
    """Reads a file of heads for a policy and a model.

    Args:
        path: The file, as for `read_head`.
        kind: The policy.
        spec: Specification of the model that will be decoded.
        model: The model's `fingerprint`.

    Raises:
        HeadError: See `read_head`; or the heads are of another model or shape.
    """
    head = read_head(path, kind)
    if head.fingerprint != model:
        raise HeadError(
            f"head: {path} was trained for the model {head.model!r} ({head.fingerprint}), not for this one ({model}); "
            "train heads for this model"
        )
    _check_tensors(path, head, head.shapes(spec))
    return head


def read_head(path: str, kind: Kind) -> Head:
    """Reads a file of heads for a policy, for any model.

    Args:
        path: The file, or the name of a model for which heads come with the project.
        kind: The policy.

    Raises:
        HeadError: There is no path or no such file, the file is damaged, or the heads are of another kind or version.
    """
    if not path:
        known = " or ".join(["give the path of a .safetensors file", *map(repr, shipped(kind))])
        raise HeadError(f"head: {kind} rates tokens with trained heads; {known}")
    if is_lfs_pointer(find(path, kind)):
        raise HeadError(f"head: {path}: {LFS_POINTER}")
    try:
        with safe_open(find(path, kind), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, ValueError) as error:
        raise HeadError(f"head: {path} cannot be read: {error}; it must be a safetensors file of heads") from None
    head = _head(path, metadata, tensors)
    if head.kind != kind:
        raise HeadError(f"head: {path} holds heads of kind {head.kind!r}, the policy needs {kind!r}")
    return head


def _head(path: str, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Head:
    if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
        found = f"format {metadata.get('format')!r}, version {metadata.get('version')!r}"
        raise HeadError(f"head: {path} has {found}; this program reads format {FORMAT!r}, version {VERSION!r}")
    if metadata.get("kind") not in KINDS:
        raise HeadError(f"head: {path} holds heads of kind {metadata.get('kind')!r}; there are {', '.join(KINDS)}")
    if not re.fullmatch("[1-9][0-9]{0,5}", metadata.get("width", "")):
        raise HeadError(f"head: {path} has width {metadata.get('width')!r}; it must be a whole number of at least 1")
    kind: Kind = "locret" if metadata["kind"] == "locret" else "attention_gate"
    model, known = metadata.get("model", "unknown"), metadata.get("fingerprint", "")
    return Head(kind, model, known, int(metadata["width"]), tensors)


def _check_tensors(path: str, head: Head, shapes: Mapping[str, tuple[int, ...]]) -> None:
    if wrong := sorted(set(shapes) ^ set(head.tensors)):
        state = "lacks" if wrong[0] in shapes else "has an unknown"
        raise HeadError(f"head: {path} {state} tensor {wrong[0]!r}; the file is damaged or of another model")
    for name, shape in shapes.items():
        tensor = head.tensors[name]
        if tuple(tensor.shape) != shape:
            raise HeadError(f"head: {path}: {name} is {tuple(tensor.shape)}, this model needs {shape}")
        if not bool(torch.isfinite(tensor).all()):
            raise HeadError(f"head: {path}: {name} holds a number that is not finite; the file is damaged")
