"""Heads that are shipped with the project: found by model name, small, and better than chance."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.training.backbone import Backbone
from orchestrator.training.recall import SHARES, measure
from parties.engines.fss.cost.shapes import installed_shapes
from parties.heads import HeadError, load_head
from parties.heads.format import read_head
from parties.heads.shipped import FOLDER, find, shipped
from parties.models import load_spec
from parties.policies import make
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.slow

KINDS: Any = ("locret", "attention_gate")
MODEL = "smollm2-135m"
TEXT = ROOT / "docs" / "protocols.md"  # unlike the training text


@pytest.mark.model
@pytest.mark.parametrize("kind", KINDS)
def test_a_name_selects_a_shipped_file(kind: Any) -> None:
    assert MODEL in shipped(kind)
    assert read_head(MODEL, kind).model == MODEL
    spec = load_spec(MODEL)
    named = installed_shapes(spec, make(kind, head=MODEL))
    assert named == installed_shapes(spec, make(kind, head=str(find(MODEL, kind))))


@pytest.mark.parametrize("kind", KINDS)
def test_another_name_is_a_path_and_an_empty_one_lists_the_names(kind: Any, tmp_path: Path) -> None:
    assert find(str(tmp_path / MODEL), kind) == tmp_path / MODEL
    with pytest.raises(HeadError, match=r"give the path of a .safetensors file or 'smollm2-135m'"):
        read_head("", kind)
    with pytest.raises(HeadError, match="head: smollm2-1b cannot be read"):
        read_head("smollm2-1b", kind)


def test_all_are_small_and_have_a_card_with_the_command_that_makes_them() -> None:
    files = list(FOLDER.glob("*.safetensors"))
    assert {path.suffix for path in FOLDER.iterdir()} == {".md", ".safetensors"}
    assert sum(path.stat().st_size for path in files) < 5e6
    for path in files:
        card = path.with_suffix(".md").read_text()
        assert re.search(r"^mpcache-bench train \w+ --model .* --out " + re.escape(path.name) + "$", card, re.MULTILINE)
        assert len(re.findall("`[0-9a-f]{64}`", card)) == 6, "every text has its hash"
        assert "Licence: not stated" not in card


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone(MODEL)


@pytest.mark.model
@pytest.mark.parametrize("kind", KINDS)
def test_they_are_of_this_model_and_of_no_other(kind: Any, backbone: Backbone) -> None:
    assert load_head(MODEL, kind, backbone.spec, backbone.fingerprint).kind == kind
    with pytest.raises(HeadError, match=f"was trained for the model {MODEL!r}"):
        load_head(MODEL, kind, replace(backbone.spec, rope_theta=1e4), "0" * 16)


@pytest.mark.model
@pytest.mark.parametrize("kind", KINDS)
def test_on_text_of_another_sort_they_recall_more_than_chance(kind: Any, backbone: Backbone) -> None:
    head = load_head(MODEL, kind, backbone.spec, backbone.fingerprint)
    window = backbone.tokenizer.encode(TEXT.read_text())[:240]
    found = {(row.policy, row.share): row for row in measure(backbone, head, [window], 192, lambda: None)}
    for share in SHARES:
        assert found[kind, share].mass > 1.2 * found["random", share].mass
        assert found[kind, share].top > found["random", share].top
