"""A folder as transformers saves it: `config.json`, safetensors in one file or several, `tokenizer.json`."""

from dataclasses import dataclass
from pathlib import Path

import tokenizers
from safetensors import SafetensorError, safe_open
from torch import Tensor

from parties.errors import ModelError
from parties.models.config import read_config, read_json
from parties.models.layout import Layout
from parties.models.spec import ModelSpec

LAYOUTS = {
    "llama": Layout(
        block="model.layers.{}",
        modules={
            "embed": "model.embed_tokens",
            "attn_norm": "input_layernorm",
            "q": "self_attn.q_proj",
            "k": "self_attn.k_proj",
            "v": "self_attn.v_proj",
            "o": "self_attn.o_proj",
            "mlp_norm": "post_attention_layernorm",
            "gate": "mlp.gate_proj",
            "up": "mlp.up_proj",
            "down": "mlp.down_proj",
            "final_norm": "model.norm",
            "lm_head": "lm_head",
        },
        transposed=True,
    ),
    "gpt2": Layout(
        block="transformer.h.{}",
        modules={
            "embed": "transformer.wte",
            "positions": "transformer.wpe",
            "attn_norm": "ln_1",
            "q": "attn.c_attn",
            "k": "attn.c_attn",
            "v": "attn.c_attn",
            "o": "attn.c_proj",
            "mlp_norm": "ln_2",
            "up": "mlp.c_fc",
            "down": "mlp.c_proj",
            "final_norm": "transformer.ln_f",
            "lm_head": "lm_head",
        },
        transposed=False,
    ),
}
_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Folder:
    """A model in a local folder.

    Attributes:
        path: the folder.
    """

    path: Path

    def spec(self) -> ModelSpec:
        """The model's public facts, from `config.json` alone."""
        return read_config(self.path)

    def weights(self) -> dict[str, Tensor]:
        """Canonical parameters from the safetensors files."""
        spec, files = self.spec(), self._files()
        return LAYOUTS[spec.family].canonical(spec, lambda name: self._read(files, name), self.path)

    def tokenizer(self) -> tokenizers.Tokenizer:
        """The tokenizer in `tokenizer.json`."""
        path = self.path / "tokenizer.json"
        if not path.is_file():
            raise ModelError(f"{path} is missing; save the model's fast tokenizer there (tokenizer.save_pretrained)")
        try:
            return tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(f"{path} is not a tokenizer: {error}; fetch the model again") from error

    def check(self) -> None:
        """Whether the weights are there and of this model, from the headers of their files."""
        spec = self.spec()
        shapes: dict[str, list[int]] = {}
        for path in sorted(set(self._files().values())):
            try:
                with safe_open(path, framework="pt") as tensors:
                    names: list[str] = tensors.keys()
                    shapes |= {name: tensors.get_slice(name).get_shape() for name in names}
            except (SafetensorError, OSError) as error:
                raise _torn(path, error) from error
        LAYOUTS[spec.family].check(spec, shapes, self.path)

    def _files(self) -> dict[str, Path]:
        """In which file each stored tensor is."""
        index = self.path / "model.safetensors.index.json"
        if index.exists():
            placed = read_json(index).get("weight_map")
            if not isinstance(placed, dict):
                raise ModelError(f"{index} has no weight_map; fetch the model again")
            return {name: self.path / Path(str(file)).name for name, file in placed.items()}
        single = self.path / "model.safetensors"
        if not single.is_file():
            raise ModelError(
                f"{self.path} has neither model.safetensors nor model.safetensors.index.json; "
                f"save the model there with save_pretrained, or, in the hub cache, download all of it"
            )
        try:
            with safe_open(single, framework="pt") as tensors:
                return dict.fromkeys(tensors.keys(), single)
        except (SafetensorError, OSError) as error:
            raise _torn(single, error) from error

    def _read(self, files: dict[str, Path], name: str) -> Tensor:
        """One stored tensor; a model saved without its output matrix leaves the first part of the names away."""
        stored = name if name in files else name.split(".", 1)[1]
        if stored not in files:
            raise ModelError(f"{self.path}: tensor {name} is missing; the checkpoint is incomplete or of another model")
        try:
            with safe_open(files[stored], framework="pt") as tensors:
                kind = tensors.get_slice(stored).get_dtype()
                if kind not in _FLOATS:
                    raise ModelError(f"{files[stored]}: tensor {stored} is {kind}; supported: {', '.join(_FLOATS)}")
                tensor: Tensor = tensors.get_tensor(stored)
                return tensor
        except (SafetensorError, OSError) as error:
            raise _torn(files[stored], error) from error


def _torn(path: Path, error: Exception) -> ModelError:
    return ModelError(f"{path} cannot be read as safetensors ({error}); it is missing, torn or corrupt: fetch it again")
