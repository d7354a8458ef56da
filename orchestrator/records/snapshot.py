"""Snapshot of a run's inputs in its folder, and the refusal to go on with others."""

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from orchestrator.experiment.cells import Cell
from orchestrator.experiment.choices import EngineChoice
from orchestrator.experiment.experiment import Experiment
from orchestrator.experiment.yaml_files import DocumentError, parse
from orchestrator.records.store import RecordStore, StoreError
from parties.messages import read_messages
from parties.roles.job import Prompt
from parties.text_file import Unreadable

EXPERIMENT = "experiment.yaml"
CELLS = "cells.json"
PROMPT = "prompt.json"

# What may change between two calls: it changes no measurement.
_FREE = {"timeout_s", "cell_timeout_s", "data_ports", "show_text", "order"}


class Snapshot:
    """The experiment of a run, as it was when the run began; later edits of its file or of its prompt are noticed.

    Args:
        store: The run's folder; its lock must be held.
        experiment: The experiment as it is now.
        cells: Its cells.
        update: Whether to go on with a changed experiment, keeping the records there are.

    Raises:
        StoreError: The folder belongs to another experiment, or the experiment or its prompt has changed.
    """

    def __init__(
        self, store: RecordStore, experiment: Experiment, cells: Sequence[Cell], *, update: bool = False
    ) -> None:
        self._store, self._experiment = store, experiment
        require_same(store, experiment, update=update)
        asked = yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        store.write(EXPERIMENT, asked)
        store.write(CELLS, json.dumps([{"id": cell.id, **cell.model_dump(mode="json")} for cell in cells], indent=1))
        if update or not (store.folder / PROMPT).exists():
            salt = secrets.token_hex(16)
            fingerprint = _fingerprint(experiment.prompt, salt)
            store.write(PROMPT, json.dumps({"salt": salt, "fingerprint": fingerprint}))
        self.check_prompt()

    def check_prompt(self) -> None:
        """See `require_prompt`."""
        require_prompt(self._store, self._experiment)


def require_same(store: RecordStore, experiment: Experiment, *, update: bool = False) -> None:
    """Refuse a folder that belongs to another experiment; nothing is written, so that the doctor can ask, too.

    Raises:
        StoreError: It holds records of another one, or of this one before an edit that `update` does not allow.
    """
    records = store.read()
    others = {record.experiment for record in records} - {"", experiment.name}
    if others:
        raise StoreError(
            f"{store.folder} holds records of experiment {', '.join(sorted(others))}, not "
            f"{experiment.name}; choose another folder"
        )
    path = store.folder / EXPERIMENT
    if update or not path.exists() or not records:
        return
    before, now = _read(path), experiment.model_dump(mode="json")
    defaults = {name: field.default for name, field in Experiment.model_fields.items()}
    before["engines"] = [EngineChoice.model_validate(engine).model_dump() for engine in before.get("engines", [])]
    changed = [
        f"{key}: {before.get(key, defaults[key])!r} then, {value!r} now"
        for key, value in now.items()
        if key not in _FREE and _plain(before.get(key, defaults[key])) != _plain(value)
    ]
    if changed:
        raise StoreError(
            f"the experiment is not the one that {store.folder} was started with ({'; '.join(changed)}); "
            f"undo the edit, choose another folder, or go on with the edited one by --update"
        )


def require_prompt(store: RecordStore, experiment: Experiment) -> None:
    """Refuse a prompt that is not the one of the run's first cell, or that cannot be read.

    The folder keeps a salted hash of the prompt, never its text. Before there is one, any prompt will do.

    Raises:
        StoreError: The prompt has changed or cannot be read.
    """
    noted = _read(store.folder / PROMPT) if (store.folder / PROMPT).exists() else {"salt": ""}
    fingerprint = _fingerprint(experiment.prompt, noted["salt"])
    if not hmac.compare_digest(noted.get("fingerprint", fingerprint), fingerprint):
        _, path = experiment.prompt.file or ("", None)
        raise StoreError(
            f"{path} is not the prompt that {store.folder} was started with; put it back, choose another folder, or "
            f"go on with --update (cells that are recorded are not run again)"
        )


def _fingerprint(prompt: Prompt, salt: str) -> str:
    """A salted hash of the prompt: of its text, its messages, or nothing where it is drawn from the seed."""
    key, path = prompt.file or ("", "")
    try:
        if key == "messages":  # not of the file, which may be the experiment itself
            text = json.dumps(read_messages(Path(path))).encode()
        else:
            text = Path(path).read_bytes() if path else b""
    except (OSError, Unreadable) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StoreError(f"cannot read the prompt {path}: {reason}; put it back") from error
    return hashlib.sha256(bytes.fromhex(salt) + text).hexdigest()


def _plain(value: Any) -> Any:
    """A value as it looks after it was written and read: tuples are lists."""
    return json.loads(json.dumps(value, default=str))


def _read(path: Path) -> Any:
    """A YAML or JSON file of the run's folder."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, DocumentError) as error:
        reason = error.fault if isinstance(error, DocumentError) else getattr(error, "strerror", "not UTF-8 text")
        raise StoreError(f"cannot read {path}: {reason}; choose another folder, or delete that file") from error
