"""Preprocessing: streamed ahead or stored on disk, and its behaviour under faults."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import run
from parties.decoding.steps import decode_in_segments
from parties.engines.fss.dealing import receiver
from parties.engines.fss.dealing.dealer import Dealer
from parties.engines.fss.dealing.folder import FOLDER_VARIABLE
from parties.engines.fss.dealing.storage import StorageError
from parties.engines.fss.engine import FssEngine
from parties.metering.meter import StageMeter
from parties.models.folding import folded_shapes
from parties.options import RunOptions
from parties.policies.base import Policy
from parties.transport.mesh import Mesh
from tests.helpers.tiny import SPECS, folded
from tests.helpers.together import together
from tests.helpers.waiting import eventually
from tests.parties.engines.fss.test_decoding import POLICIES, STEPS, check, fail_truncation, prefilled

ROLES = ("client", "server", "dealer")


def open_engine(role: str, mesh: Mesh, meter: StageMeter) -> FssEngine:
    spec = SPECS["llama"]
    engine = FssEngine(role, mesh, meter)
    run(engine.install(folded_shapes(spec), folded(spec) if role == "server" else None), engine.exchange)
    return engine


def begin(engine: FssEngine, policy: Policy, named: dict[str, Any], **how: Any) -> tuple[Decoder, Cache]:
    """Prepares a cell from this party's part of a prefilled cache."""
    spec, named = SPECS["llama"], dict(named)
    position = int(named.pop("position").item())
    cache = Cache.from_values(spec.n_layers, position, {name: engine.adopt(t) for name, t in named.items()})
    decoder = Decoder(engine, spec, policy)
    options = RunOptions(**{"offline": "stored", **how})
    return decoder, engine.prepare(decoder.workload(cache, STEPS, options), cache)


def decode(engine: FssEngine, decoder: Decoder, cache: Cache, token: int) -> tuple[Any, ...]:
    logits, tokens = [], []
    own = [token] if engine.client else None
    for _ in range(STEPS):
        out, found = decode_in_segments(decoder, cache, own, "private")
        logits.append(engine.export(out))
        tokens.append(found and found[0])
        own = found
    return logits, tokens


@contextmanager
def stopped(dealer: int, engine: FssEngine) -> Iterator[None]:
    """Stops the dealer's process until another attempt needs it, which chance makes in one of 300 of these cells."""
    again = engine._again

    def resume(index: int) -> None:
        os.kill(dealer, signal.SIGCONT)
        again(index)

    engine._again = resume  # type: ignore[method-assign]
    os.kill(dealer, signal.SIGSTOP)
    yield
    os.kill(dealer, signal.SIGCONT)


def cell(role: str, mesh: Mesh, meter: StageMeter, folder: str, parts: Any, token: int, how: dict[str, Any]) -> Any:
    """Decodes a cell; if it is stored, its dealer is stopped meanwhile."""
    pid = Path(folder, "dealer")
    if role == "dealer":
        pid.write_text(str(os.getpid()))
        Dealer(mesh["client"], mesh["server"], meter).serve()
        return None, None, meter.snapshot()
    os.environ[FOLDER_VARIABLE] = folder
    if how.get("fail_truncation"):
        fail_truncation(how["fail_truncation"])
    engine = open_engine(role, mesh, meter)
    options = {name: value for name, value in how.items() if name != "fail_truncation"}
    decoder, cache = begin(engine, POLICIES["mpcache"], parts[role], **options)
    left, sent = sorted(path.name for path in Path(folder).iterdir()), mesh["dealer"].received_bytes
    alone = role == "client" and how["offline"] == "stored" and not how.get("fail_truncation")
    with stopped(int(pid.read_text()), engine) if alone else nullcontext():
        logits, tokens = decode(engine, decoder, cache, token)
    used = mesh["dealer"].received_bytes - sent
    engine.finish()
    return logits, tokens, meter.snapshot(), engine.repeats, left, used


CELLS: dict[str, dict[str, Any]] = {
    "stored, dcf": {"offline": "stored", "comparison": "dcf"},
    "stored, prefix": {"offline": "stored", "comparison": "prefix"},
    "streamed, prefix": {"offline": "streamed", "comparison": "prefix"},
    "stored, counted softmax": {"offline": "stored", "comparison": "dcf", "softmax": "dpf"},
    "stored, failure early": {"offline": "stored", "comparison": "dcf", "fail_truncation": 3},
    "stored, failure late": {"offline": "stored", "comparison": "dcf", "fail_truncation": 90},
}


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_decodes_from_disk_as_from_the_link(name: str, tmp_path: Path) -> None:
    how = CELLS[name]
    decoder, cache, parts, token = prefilled("llama", POLICIES["mpcache"])
    results = together(cell, str(tmp_path), parts, token, how)
    check({role: (*results[role][:2], None, None) for role in ("client", "server")}, decoder, cache, token)
    assert [path.name for path in tmp_path.iterdir()] == ["dealer"], "nothing stays on disk"
    offline = {role: {s.stage: s for s in results[role][2] if s.phase == "offline"} for role in results}
    received = sum(offline[role]["offline.material"].received_bytes for role in ("client", "server"))
    assert received == offline["dealer"]["offline.material"].sent_bytes > 1e5
    for role in ("client", "server"):
        _, _, _, repeats, left, used = results[role]
        assert left == ["dealer"], "the file has no name"
        assert ("offline.write" in offline[role]) == (how["offline"] == "stored")
        if how["offline"] == "stored":
            assert offline[role]["offline.write"].seconds > 0
            assert (used > 0) == (repeats > 0), "the dealer is asked again only for what must be repeated"
            if role == "server" or how["comparison"] == "dcf":  # with prefix, the client draws all it needs
                assert offline[role]["offline.read"].seconds > 0
        assert repeats >= bool(how.get("fail_truncation"))


def full_disk(role: str, mesh: Mesh, meter: StageMeter, folder: str, parts: Any) -> Any:
    os.environ[FOLDER_VARIABLE] = folder
    if role == "dealer":
        try:
            return Dealer(mesh["client"], mesh["server"], meter).serve()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            return type(error).__name__
    engine = open_engine(role, mesh, meter)
    if role == "server":
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
    try:
        begin(engine, POLICIES["full"], parts[role])
    except Exception as error:  # noqa: BLE001 - the test looks at it
        return type(error).__name__, str(error)
    return "", ""


def test_a_full_disk_ends_the_cell_and_names_the_file(tmp_path: Path) -> None:
    _, _, parts, _ = prefilled("llama", POLICIES["full"])
    results = together(full_disk, str(tmp_path), parts)
    name, text = results["server"]
    assert name == StorageError.__name__
    assert f"cannot write randomness to {tmp_path}" in text
    assert results["client"][0] == "PeerLost"
    assert results["dealer"] == "PeerLost"
    assert list(tmp_path.iterdir()) == []


def little_credit(role: str, mesh: Mesh, meter: StageMeter, parts: Any, token: int) -> Any:
    """Decodes a streamed cell with credit for a few kilobytes at a time."""
    receiver.AHEAD_BYTES = 40_000
    if role == "dealer":
        Dealer(mesh["client"], mesh["server"], meter).serve()
        return None
    engine = open_engine(role, mesh, meter)
    decoder, cache = begin(engine, POLICIES["full"], parts[role], offline="streamed")
    result = decode(engine, decoder, cache, token)
    engine.finish()
    return result


def test_a_party_with_little_credit_is_sent_no_more() -> None:
    decoder, cache, parts, token = prefilled("llama", POLICIES["full"])
    results = together(little_credit, parts, token)
    check({role: (*results[role], None, None) for role in ("client", "server")}, decoder, cache, token)


def ahead(role: str, mesh: Mesh, meter: StageMeter, parts: Any, whole: dict[str, int]) -> Any:
    """Prepares a streamed cell and waits for nearly all of its correlated randomness before the first token."""
    if role == "dealer":
        try:
            Dealer(mesh["client"], mesh["server"], meter).serve()
        except Exception:  # noqa: BLE001 - the parties leave in the middle
            return None
    engine = open_engine(role, mesh, meter)
    begin(engine, POLICIES["full"], parts[role], offline="streamed")
    eventually(lambda: mesh["dealer"].received_bytes >= 0.9 * whole[role])
    mesh["server" if role == "client" else "client"].exchange(b"")  # the dealer ends with the first party that leaves
    return mesh["dealer"].received_bytes


@pytest.mark.slow
def test_the_dealer_sends_the_next_tokens_before_they_begin() -> None:
    _, _, parts, token = prefilled("llama", POLICIES["full"])
    whole = together(_whole, parts, token)
    early = together(ahead, parts, whole)
    for role in ("client", "server"):
        assert early[role] >= 0.9 * whole[role], "the whole cell fits into the room that there is"


def _whole(role: str, mesh: Mesh, meter: StageMeter, parts: Any, token: int) -> Any:
    if role == "dealer":
        return Dealer(mesh["client"], mesh["server"], meter).serve()
    engine = open_engine(role, mesh, meter)
    decoder, cache = begin(engine, POLICIES["full"], parts[role], offline="streamed")
    decode(engine, decoder, cache, token)
    engine.finish()
    return mesh["dealer"].received_bytes
