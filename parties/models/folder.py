"""A model folder as saved by transformers: `config.json`, one or several safetensors files, `tokenizer.json`."""

import re
from dataclasses import dataclass
from pathlib import Path

import tokenizers
from torch import Tensor

from parties.errors import ModelError
from parties.models.chat import ChatTemplate, optional_json, read_chat
from parties.models.config import read_config, read_json
from parties.models.layout import Layout
from parties.models.safetensors_file import read_shapes, read_tensor
from parties.models.spec import ModelSpec
from parties.models.spm import read_tokenizer_model
from parties.text_file import LFS_POINTER, Unreadable, is_lfs_pointer, read_text

_LLAMA = {
    "embed": "model.embed_tokens",
    "attn_norm": "input_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "o": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
    "final_norm": "model.norm",
    "lm_head": "lm_head",
}
_PHI3 = dict.fromkeys("qkv", "self_attn.qkv_proj") | dict.fromkeys(("gate", "up"), "mlp.gate_up_proj")
_GEMMA = {
    "attn_post_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}
_GPT2 = {
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
}
_GPT_NEOX = {
    "embed": "gpt_neox.embed_in",
    "attn_norm": "input_layernorm",
    "q": "attention.query_key_value",
    "k": "attention.query_key_value",
    "v": "attention.query_key_value",
    "o": "attention.dense",
    "mlp_norm": "post_attention_layernorm",
    "up": "mlp.dense_h_to_4h",
    "down": "mlp.dense_4h_to_h",
    "final_norm": "gpt_neox.final_layer_norm",
    "lm_head": "embed_out",
}
_BLOCK = "model.layers.{}"
LAYOUTS = {
    **{
        family: Layout(block=_BLOCK, modules=_LLAMA, transposed=True)
        for family in ("llama", "mistral", "qwen2", "qwen3", "smollm3")
    },
    "phi3": Layout(block=_BLOCK, modules=_LLAMA | _PHI3, transposed=True),
    **{
        family: Layout(block=_BLOCK, modules=_LLAMA | _GEMMA, transposed=True, norms_less_one=True)
        for family in ("gemma2", "gemma3_text")
    },
    "gpt2": Layout(block="transformer.h.{}", modules=_GPT2, transposed=False),
    "gpt_neox": Layout(block="gpt_neox.layers.{}", modules=_GPT_NEOX, transposed=True, by_head=True),
}
# Tables that follow from the configuration, and an output matrix that is stored although it is tied.
_WITHOUT_EFFECT = re.compile(r"(.*\.)?(rotary_emb\.inv_freq|(attn|attention)\.(bias|masked_bias)|lm_head\.weight)")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model")  # of the library; of SentencePiece


@dataclass(frozen=True)
class Folder:
    """A model in a local folder.

    Attributes:
        path: Path of the folder.
    """

    path: Path

    def spec(self) -> ModelSpec:
        """The specification of the model, from `config.json` alone.

        Raises:
            ModelError: A file of the model is a Git LFS pointer, or the configuration is not supported.
        """
        small = [self.path / name for name in ("config.json", *_TOKENIZERS)]
        for path in (*small, *self.path.glob("*.safetensors*")):
            _refuse_pointer(path)
        return read_config(self.path)

    def weights(self) -> dict[str, Tensor]:
        """Canonical parameters from the safetensors files."""
        spec, files = self.spec(), self._files()
        self._refuse_unused(spec, files)
        return LAYOUTS[spec.family].canonical(spec, lambda name: self._read(files, name), self.path)

    def tokenizer(self) -> tokenizers.Tokenizer:
        """The tokenizer in `tokenizer.json` or, failing that, in `tokenizer.model`."""
        path = next((path for name in _TOKENIZERS if (path := self.path / name).exists()), None)
        if path is None:
            raise ModelError(
                f"{self.path} has neither {' nor '.join(_TOKENIZERS)}; save the model's fast tokenizer there "
                f"(AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER))"
            )
        _refuse_pointer(path)
        try:
            if path.name == "tokenizer.json":
                return tokenizers.Tokenizer.from_str(read_text(path))
            return read_tokenizer_model(path, optional_json(self.path / "tokenizer_config.json"))
        except (Unreadable, OSError) as error:
            raise ModelError(f"cannot read {path}: {error}; fetch the model again") from None
        except ModelError:
            raise
        except Exception as error:  # the library raises bare Exception
            raise ModelError(f"{path} is not a tokenizer: {error}; fetch the model again") from error

    def chat(self) -> ChatTemplate | None:
        """The chat template of the tokenizer."""
        return read_chat(self.path)

    def check(self) -> None:
        """Checks that the weights are complete and belong to this model, from the headers of their files.

        Raises:
            ModelError: A tensor is missing, unused or of another shape, or a file cannot be read.
        """
        spec, files = self.spec(), self._files()
        self._refuse_unused(spec, files)
        shapes: dict[str, list[int]] = {}
        for path in sorted(set(files.values())):
            shapes |= read_shapes(path)
        LAYOUTS[spec.family].check(spec, shapes, self.path)

    def _files(self) -> dict[str, Path]:
        """The file of each stored tensor, by name."""
        index = self.path / "model.safetensors.index.json"
        if index.exists():
            placed = read_json(index).get("weight_map")
            if not isinstance(placed, dict):
                raise ModelError(f"{index} has no weight_map; fetch the model again")
            return {name: self.path / Path(str(file)).name for name, file in placed.items()}
        single = self.path / "model.safetensors"
        if not single.exists() and not single.is_symlink():
            raise ModelError(self._without_weights())
        return dict.fromkeys(read_shapes(single), single)

    def _without_weights(self) -> str:
        """The reason why a folder without safetensors under their usual names cannot be used, and the fix."""
        nothing = f"{self.path} has neither model.safetensors nor model.safetensors.index.json"
        others = sorted(path.name for kind in ("*.bin", "*.pt", "*.pth") for path in self.path.glob(kind))
        if others:
            return (
                f"{nothing}, but {others[0]}, which is a pickle: loading it may run any code, so it is not read; save "
                f"the model as safetensors (AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(FOLDER))"
            )
        named = sorted(path.name for path in self.path.glob("*.safetensors"))
        if named:
            return f"{nothing}, but {named[0]}; rename it, or fetch the files of the index that belongs to it"
        return f"{nothing}; save the model there with save_pretrained, or, in the hub cache, download all of it"

    def _refuse_unused(self, spec: ModelSpec, files: dict[str, Path]) -> None:
        """Refuses tensors that would not be used, since they belong to a different model."""
        names = {LAYOUTS[spec.family].stored(name) for name in spec.shapes()}
        known = names | {name.split(".", 1)[1] for name in names if "." in name}
        unused = sorted(name for name in files if name not in known and not _WITHOUT_EFFECT.fullmatch(name))
        if unused:
            raise ModelError(
                f"{self.path}: tensor {unused[0][:100]} has no place in the model that config.json describes; weights "
                f"and configuration belong to different models, or the decoder does not support this type of model"
            )

    def _read(self, files: dict[str, Path], name: str) -> Tensor:
        """One stored tensor; a model saved without its output matrix omits the first part of the names."""
        stored = name if name in files else name.split(".", 1)[1]
        if stored not in files:
            raise ModelError(
                f"{self.path}: tensor {name} is missing; the checkpoint is incomplete or belongs to another model"
            )
        return read_tensor(files[stored], stored)


def _refuse_pointer(path: Path) -> None:
    if is_lfs_pointer(path):
        raise ModelError(f"{path}: {LFS_POINTER}")
