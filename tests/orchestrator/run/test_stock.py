"""`crypten` with its own generator: chosen by name, shown as insecure everywhere, resumed in old folders."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from orchestrator.experiment.cells import expand
from orchestrator.records.assemble import failed_record, trust_model
from orchestrator.records.record import Status
from orchestrator.records.snapshot import Snapshot
from orchestrator.records.store import RecordStore, StoreError
from orchestrator.report.summary import summarise
from parties.engines import STOCK_IS_INSECURE
from tests.helpers import samples

STOCK = {"name": "crypten", "randomness": "stock"}
ERROR = {"status": Status.TIMEOUT, "message": "too slow"}


def cell(engine: Any) -> Any:
    return samples.cell(engines=[engine])


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ({"name": "fss", "randomness": "private"}, "no value, except with engine crypten"),
        ({"name": "crypten", "randomness": "secure"}, "'private' or 'stock'"),
        ({"name": "crypten", "random": "stock"}, "random"),
    ],
)
def test_an_invalid_choice_is_refused(engine: dict[str, str], expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        samples.experiment(engines=[engine])
    assert expected in str(caught.value) + repr(caught.value.errors())


def test_records_state_what_each_protects() -> None:
    private, stock, fss = (trust_model(cell(engine).engine) for engine in ("crypten", STOCK, "fss"))
    assert STOCK_IS_INSECURE in stock
    assert "insecure" in stock
    assert "AES-256" in private
    assert "insecure" not in private + fss
    for text in (private, stock):
        assert "|x| / 2^32" in text
    assert failed_record(cell(STOCK), ERROR, (), samples.START, samples.START).trust_model == stock


def test_the_report_names_stock_and_calls_it_insecure_though_its_record_does_not() -> None:
    found = summarise([samples.record(cell(STOCK)), samples.record(cell("crypten"))])
    assert dict(found.facts)["Engines"] == "crypten-stock, crypten"
    texts = [text for engine, text in found.trust if engine == "crypten-stock"]
    assert any(STOCK_IS_INSECURE in text for text in texts)
    assert not any("insecure" in text for engine, text in found.trust if engine == "crypten")
    record = samples.record(cell(STOCK), trust_model=trust_model(cell(STOCK).engine))
    assert len(summarise([record]).trust) == 1, "once is enough"


def test_stock_cells_can_be_left_out_and_named() -> None:
    both = {"engines": ["crypten", STOCK], "seq_lens": [128], "policies": ["full"]}
    (left,) = expand(samples.experiment(**both, exclude=[{"engine": "crypten-stock"}]))
    assert left.engine.randomness == "private"
    assert str(cell(STOCK)).startswith("crypten-stock full")


def test_a_folder_of_an_earlier_version_resumes_with_stock_only(tmp_path: Path) -> None:
    stock, private = samples.experiment(engines=[STOCK]), samples.experiment()
    with RecordStore(tmp_path) as store:
        Snapshot(store, stock, expand(stock))
        store.append(samples.record(cell(STOCK)))
        path = tmp_path / "experiment.yaml"
        content = yaml.safe_load(path.read_text())
        content["engines"] = [{"name": "crypten"}]  # as it was written before there was a choice
        path.write_text(yaml.safe_dump(content))
        with pytest.raises(StoreError, match=r"engines: .*'stock'.* then, .*'private'.* now"):
            Snapshot(store, private, expand(private))
        Snapshot(store, stock, expand(stock))
