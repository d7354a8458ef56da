import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.experiment.cells import Cell, expand, schedule
from orchestrator.experiment.experiment import load_experiment
from orchestrator.run.runner import job_of
from tests.helpers import samples
from tests.helpers.paths import ROOT

STOCK = {"name": "crypten", "randomness": "stock"}


def test_cells_are_the_product_ordered_so_that_links_and_parties_are_reused() -> None:
    experiment = samples.experiment(
        engines=["plain", "crypten"], networks=["none", "wan"], seq_lens=[256, 128], repeats=2
    )
    cells = expand(experiment)
    assert len(cells) == 2 * 2 * 2 * 2 * 2
    points = [(c.network.name, c.engine.name, c.seq_len, c.policy.name, c.repeat) for c in cells]
    assert points[:5] == [
        ("none", "plain", 256, "full", 0),
        ("none", "plain", 256, "full", 1),
        ("none", "plain", 256, "mpcache", 0),
        ("none", "plain", 256, "mpcache", 1),
        ("none", "plain", 128, "full", 0),
    ]
    assert [network for network, *_ in points] == ["none"] * 16 + ["wan"] * 16
    assert [engine for _, engine, *_ in points[:16]] == ["plain"] * 8 + ["crypten"] * 8


def test_every_cell_of_an_experiment_has_an_id_of_its_own() -> None:
    cells = expand(samples.experiment(engines=["plain", "crypten"], networks=["none", "lan", "wan"], repeats=3))
    assert len({cell.id for cell in cells}) == len(cells)


@pytest.mark.parametrize(
    "changes",
    [
        {"engines": ["plain"]},
        {"engines": [{"name": "crypten", "randomness": "stock"}]},
        {"model": "random:tiny-gpt2"},
        {"policies": [{"name": "mpcache", "alpha": 0.5}]},
        {"seq_lens": [129]},
        {"new_tokens": 3},
        {"batch": 4},
        {"networks": ["lan"]},
        {"argmax": "client"},
        {"gpu": True},
        {"seed": 1},
        {"prompt": {"text_file": "a.txt"}},
        {"prompt": {"messages": "a.txt"}},
        {"prompt": {"text_file": "a.txt", "special_tokens": True}},
        {"prompt": {"text_file": "a.txt", "lines": True}},
    ],
)
def test_every_option_that_changes_a_measurement_changes_the_id(changes: dict[str, Any]) -> None:
    assert samples.cell(**changes).id != samples.cell().id


def test_other_options_leave_the_id() -> None:
    patient = samples.cell(timeout_s=5, cell_timeout_s=50, data_ports={"client": 7101}, show_text=True)
    assert patient.id == samples.cell().id


def test_defaults_written_out_are_the_same_cell() -> None:
    assert samples.cell(policies=["mpcache"]).id == samples.cell(policies=[{"name": "mpcache", "static_keep": 0.4}]).id


def test_ids_stay_the_same_between_versions() -> None:
    # a change here makes every run folder of the past start over: raise orchestrator.experiment.cells.SCHEMA knowingly
    assert samples.cell(engines=[STOCK]).id == "62607db61fddb590"
    assert samples.cell(engines=["fss"]).id == "78777350bd8e09d9"
    assert samples.cell().id == "8220b9017754664c"


def test_a_prompt_is_written_as_before_there_were_messages() -> None:
    written = samples.cell(prompt={"text_file": "a.txt"}).model_dump(mode="json")["prompt"]
    assert written == {"text_file": "a.txt", "random_tokens": False}
    chat = samples.cell(prompt={"messages": "a.yaml", "special_tokens": True})
    assert Cell.model_validate_json(chat.model_dump_json()) == chat


def test_crypten_is_private_in_an_experiment_unless_stock_is_chosen() -> None:
    named, private, stock = (
        samples.cell(engines=[e]) for e in ("crypten", {"name": "crypten", "randomness": "private"}, STOCK)
    )
    assert named == private
    assert named.engine.randomness == "private"
    assert job_of(named, show_text=False)["randomness"] == "private"
    assert job_of(stock, show_text=False)["randomness"] == "stock"
    assert (str(named.engine), str(stock.engine)) == ("crypten", "crypten-stock")
    assert Cell.model_validate_json(private.model_dump_json()) == private


def test_a_cell_recorded_before_there_was_a_choice_is_stock_and_keeps_its_id() -> None:
    stock = samples.cell(engines=[STOCK])
    written = stock.model_dump(mode="json")
    del written["engine"]["randomness"]
    assert Cell.model_validate(written) == stock
    assert "randomness" not in samples.cell(engines=["fss"]).model_dump(mode="json")["engine"]


def test_stock_and_private_cells_run_in_blocks_of_their_own() -> None:
    cells = expand(samples.experiment(engines=["crypten", STOCK], repeats=2))
    randomness = [cell.engine.randomness for cell in schedule(cells, seed=3)]
    assert randomness == ["private"] * 12 + ["stock"] * 12


@given(st.integers(2, 2000), st.integers(0, 2**63 - 1), st.floats(0.01, 1))
def test_a_cell_survives_json_with_its_id(seq_len: int, seed: int, keep: float) -> None:
    policy = {"name": "mpcache", "static_keep": keep}
    cell = samples.cell(seq_lens=[seq_len], seed=seed, policies=[policy], networks=["wan"])
    again = Cell.model_validate_json(cell.model_dump_json())
    assert again == cell
    assert again.id == cell.id


def test_a_cell_has_a_short_label() -> None:
    cells = expand(samples.experiment(policies=[{"name": "mpcache", "select": 0.1}], seq_lens=[128], repeats=2))
    assert str(cells[1]) == "crypten mpcache(select=0.1) 128 tokens, network none, repeat 1"


@pytest.mark.parametrize(
    ("name", "cells", "digest"),
    [
        ("cluster", 72, "9675d95803db7d3f"),
        ("long", 3, "f05ff2a4d15893e3"),
        ("paper", 36, "f0d952a53100bb9c"),
    ],
)
def test_ids_stay_the_same_so_that_old_runs_resume(name: str, cells: int, digest: str) -> None:
    ids = [cell.id for cell in expand(load_experiment(ROOT / "examples" / f"{name}.yaml"))]
    assert len(ids) == cells
    assert hashlib.sha256(" ".join(ids).encode()).hexdigest()[:16] == digest


def test_spu_is_swept_over_its_protocols() -> None:
    chosen = ({"name": "spu", "protocol": "aby3"}, {"name": "spu", "protocol": "semi2k"})
    aby3, semi2k = (samples.cell(engines=[engine], spu={"gather": "scores"}) for engine in chosen)
    assert [cell.options.spu.protocol for cell in (aby3, semi2k)] == ["aby3", "semi2k"]
    assert {cell.options.spu.gather for cell in (aby3, semi2k)} == {"scores"}
    assert (str(aby3.engine), str(semi2k.engine)) == ("spu-aby3", "spu-semi2k")
    assert len({aby3.id, semi2k.id, samples.cell(engines=["spu"]).id}) == 3
    assert Cell.model_validate_json(semi2k.model_dump_json()) == semi2k
