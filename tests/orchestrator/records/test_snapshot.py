"""A run resumes with its own experiment and prompt, or is refused with the reason."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.experiment.cells import expand
from orchestrator.experiment.experiment import Experiment, load_experiment
from orchestrator.records.snapshot import Snapshot
from orchestrator.records.store import RecordStore, StoreError
from tests.helpers import samples


def freeze(folder: Path, experiment: Experiment, *, record: bool = True, update: bool = False) -> Snapshot:
    """Begins or resumes a run; adds a record on request."""
    with RecordStore(folder) as store:
        snapshot = Snapshot(store, experiment, expand(experiment), update=update)
        if record:
            store.append(samples.record(expand(experiment)[0]))
    return snapshot


def with_prompt(folder: Path, text: str = "a secret plan") -> Experiment:
    (folder / "prompt.txt").write_text(text)
    return samples.experiment(prompt={"text_file": str(folder / "prompt.txt")})


def test_the_experiment_is_stored_next_to_the_records(tmp_path: Path) -> None:
    experiment = samples.experiment(networks=["wan"], exclude=[{"seq_len": 256}])
    freeze(tmp_path, experiment)
    assert load_experiment(tmp_path / "experiment.yaml") == experiment
    assert all(cell.id in (tmp_path / "cells.json").read_text() for cell in expand(experiment))


def test_a_folder_of_another_experiment_is_refused(tmp_path: Path) -> None:
    freeze(tmp_path, samples.experiment())
    with pytest.raises(StoreError, match="synthetic, not other"):
        freeze(tmp_path, samples.experiment(name="other"), update=True)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ({"seq_lens": [128]}, r"seq_lens: \[128, 256, 512\] then, \[128\] now"),
        ({"policies": ["full"]}, "policies"),
        ({"networks": ["wan"]}, "networks"),
        ({"repeats": 2}, "repeats: 1 then, 2 now"),
        ({"exclude": [{"seq_len": 256}]}, "exclude"),
    ],
)
def test_an_edited_experiment_is_refused_with_the_changed_keys(
    tmp_path: Path, edit: dict[str, Any], expected: str
) -> None:
    freeze(tmp_path, samples.experiment())
    before = (tmp_path / "experiment.yaml").read_bytes()
    with pytest.raises(StoreError, match=f"{expected}.*--update"):
        freeze(tmp_path, samples.experiment(**edit))
    assert (tmp_path / "experiment.yaml").read_bytes() == before


def test_an_edit_is_accepted_with_update(tmp_path: Path) -> None:
    freeze(tmp_path, samples.experiment())
    freeze(tmp_path, samples.experiment(seq_lens=[128]), update=True)
    freeze(tmp_path, samples.experiment(seq_lens=[128]))


def test_keys_that_affect_no_measurement_may_change(tmp_path: Path) -> None:
    freeze(tmp_path, samples.experiment())
    freeze(tmp_path, samples.experiment(timeout_s=5, cell_timeout_s=9, show_text=True, order="listed"))


def test_before_the_first_record_anything_may_change(tmp_path: Path) -> None:
    freeze(tmp_path, samples.experiment(), record=False)
    freeze(tmp_path, samples.experiment(seq_lens=[128]), record=False)


def test_a_prompt_edited_during_a_run_is_detected_and_never_copied(tmp_path: Path) -> None:
    experiment, out = with_prompt(tmp_path), tmp_path / "out"
    snapshot = freeze(out, experiment)
    assert not [path for path in out.iterdir() if b"secret plan" in path.read_bytes()]
    (tmp_path / "prompt.txt").write_text("another plan")
    for check in (snapshot.check_prompt, lambda: freeze(out, experiment)):
        with pytest.raises(StoreError, match=r"prompt\.txt is not the prompt.*--update"):
            check()
    freeze(out, experiment, update=True).check_prompt()


def test_messages_in_the_experiment_file_may_not_change_but_the_rest_of_it_may(tmp_path: Path) -> None:
    def loaded(content: str, **changes: int) -> Experiment:
        prompt = {"messages": [{"role": "user", "content": content}]}
        values = samples.experiment().model_dump(mode="json") | {"prompt": prompt, **changes}
        (tmp_path / "chat.yaml").write_text(yaml.safe_dump(values))
        return load_experiment(tmp_path / "chat.yaml")

    out = tmp_path / "out"
    freeze(out, loaded("a secret plan"))
    freeze(out, loaded("a secret plan", timeout_s=7)).check_prompt()
    with pytest.raises(StoreError, match=r"chat\.yaml is not the prompt.*--update"):
        freeze(out, loaded("another plan"))
    assert all("secret plan" not in path.read_text() for path in out.rglob("*") if path.is_file())


def test_a_prompt_that_is_gone_is_named(tmp_path: Path) -> None:
    snapshot = freeze(tmp_path / "out", with_prompt(tmp_path))
    (tmp_path / "prompt.txt").unlink()
    with pytest.raises(StoreError, match=r"cannot read the prompt .*prompt\.txt"):
        snapshot.check_prompt()


@pytest.mark.parametrize("name", ["experiment.yaml", "prompt.json"])
def test_a_damaged_copy_is_named(tmp_path: Path, name: str) -> None:
    freeze(tmp_path, samples.experiment())
    (tmp_path / name).write_bytes(b"\xff{[")
    with pytest.raises(StoreError, match=name):
        freeze(tmp_path, samples.experiment())
