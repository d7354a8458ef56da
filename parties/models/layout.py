"""Maps the names and orientations of a file format to the canonical parameters."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from parties.errors import ModelError
from parties.models.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a file format stores a family of models.

    Attributes:
        block: Prefix of a layer's parameters, with `{}` for its number.
        modules: Stored name of each canonical module; q, k and v under one name are stored as one
            matrix, and so are gate and up.
        transposed: Whether the matrices of a layer are stored [out, in], as the output matrix is in every format.
        by_head: Whether a joined matrix holds query, key and value of the first head, then those of the next.
        norms_less_one: Whether the gains of norms are stored less one.
    """

    block: str
    modules: Mapping[str, str]
    transposed: bool
    by_head: bool = False
    norms_less_one: bool = False

    def stored(self, name: str) -> str:
        """Stored name of a canonical parameter: `layers.3.q.weight` -> `model.layers.3.self_attn.q_proj.weight`."""
        if name in ("embed", "positions"):
            return f"{self.modules[name]}.weight"
        *place, module, kind = name.split(".")
        block = self.block.format(place[1]) + "." if place else ""
        return f"{block}{self.modules[module]}.{kind}"

    def canonical(self, spec: ModelSpec, read: Callable[[str], Tensor], origin: object) -> dict[str, Tensor]:
        """All parameters of a model: float32, contiguous, with the names and shapes of `spec.shapes()`.

        Args:
            spec: Specification of the model.
            read: Returns a stored tensor by its stored name.
            origin: The file or folder, for error messages.

        Raises:
            ModelError: The shape of a tensor does not match `spec`, or a tensor contains infinity or NaN.
        """
        weights = {}
        for name, tensor in self._fitting(spec, read, origin):
            if not torch.isfinite(tensor).all():
                raise ModelError(f"{origin}: tensor {self.stored(name)} contains NaN or infinity; fetch the file again")
            weights[name] = tensor.to(torch.float32).contiguous()
        return weights

    def check(self, spec: ModelSpec, shapes: Mapping[str, Sequence[int]], origin: object) -> None:
        """Checks that stored tensors of these shapes are a complete model; reads none of them.

        Args:
            spec: Specification of the model.
            shapes: Shape of each stored tensor, by its stored name.
            origin: The file or folder, for error messages.

        Raises:
            ModelError: A tensor is missing, or its shape does not match `spec`.
        """

        def meta_tensor(name: str) -> Tensor:
            shape = shapes.get(name, shapes.get(name.partition(".")[2]))  # some omit the first part of a name
            if shape is None:
                raise ModelError(
                    f"{origin}: tensor {name} is missing; the checkpoint is incomplete or belongs to another model"
                )
            return torch.empty(tuple(shape), device="meta")

        for _ in self._fitting(spec, meta_tensor, origin):
            pass

    def _fitting(self, spec: ModelSpec, read: Callable[[str], Tensor], origin: object) -> Iterator[tuple[str, Tensor]]:
        """Every parameter in the canonical orientation, its shape checked."""
        shapes = spec.shapes()
        for name, shape in shapes.items():
            stored = self.stored(name)
            heads = spec.n_heads if self.by_head else 1
            tensor = self._cut(name, shapes, heads, self._upright(name, read(stored)))
            if tuple(tensor.shape) != shape:
                raise ModelError(
                    f"{origin}: tensor {stored} gives {name} the shape {tuple(tensor.shape)}, but the model's "
                    f"configuration requires {shape}; weights and configuration belong to different models"
                )
            yield name, tensor

    def _upright(self, name: str, tensor: Tensor) -> Tensor:
        """[out, in] -> [in, out] if the format stores it transposed."""
        lying = name == "lm_head.weight" or (self.transposed and name.startswith("layers."))
        return tensor.T if lying and tensor.dim() == 2 else tensor

    def _cut(self, name: str, shapes: Mapping[str, Sequence[int]], heads: int, tensor: Tensor) -> Tensor:
        """The columns of a module that the format stores in one matrix with others; gains of norms as they are used."""
        *_, module, kind = ("." + name).split(".")
        if self.norms_less_one and module.endswith("norm") and kind == "weight":
            return tensor.float() + 1
        joined = [other for other in _JOINED.get(module, ()) if self.modules.get(other) == self.modules[module]]
        widths = [shapes[name.replace(f".{module}.", f".{other}.")][-1] for other in joined]
        if len(joined) < 2 or tensor.dim() == 0 or tensor.shape[-1] != sum(widths):
            return tensor
        by_head = tensor.reshape(*tensor.shape[:-1], heads, -1)
        start, width = sum(widths[: joined.index(module)]) // heads, widths[joined.index(module)] // heads
        return by_head[..., start : start + width].flatten(-2)


_JOINED = {module: group for group in (("q", "k", "v"), ("gate", "up")) for module in group}
