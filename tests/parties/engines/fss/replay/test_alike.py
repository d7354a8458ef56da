"""Recordings that are made from that of a layer alike: they are what a recording of the layer itself would be."""

from dataclasses import replace
from typing import Any

import pytest

from parties.engines.fss.replay.recordings import Recordings
from parties.engines.fss.replay.segment import RecordedSegment
from parties.metering.meter import StageMeter
from parties.transport.mesh import Mesh
from tests.helpers import tiny
from tests.helpers.together import together
from tests.parties.engines.fss import test_decoding as decoding
from tests.parties.engines.fss.replay import test_replay as replaying

ROLES = ("client", "server", "dealer")
DEEP = {"deep": replace(tiny.LLAMA, n_layers=8)}
KINDS = [
    "full", "snapkv", "h2o by step", "lazy_eviction", "streaming_llm", "mikv", "mpcache", "mpcache ahead",
    "mpcache rows", "mpcache+", "quest ahead", "infllm ahead",
]  # fmt: skip


def deepened() -> None:
    """Lets the tests of this process know a model of more layers."""
    vars(decoding)["FAMILIES"] = tiny.FAMILIES | DEEP
    vars(replaying)["SPECS"] = tiny.SPECS | DEEP


def taken(made: RecordedSegment, cache: Any) -> None:
    """Brings what a recording reads to its place, as a replay does."""
    made.recorder.numbers.write(0, 0)
    for reading in made.reads:
        for here, there in reading.moves(cache.layers) or ():
            here.copy_(there)
    if made.private:
        made._take_blocks(cache)


def differences(made: RecordedSegment, own: RecordedSegment, cache: Any) -> list[str]:
    """What differs between two recordings of a segment, but for where each has its copies and its places."""
    for each in (made, own):
        taken(each, cache)
    for mine, its in zip(made.recorder.rounds, own.recorder.rounds, strict=True):
        for opened, place in zip(mine.opened, its.opened, strict=True):
            place.copy_(opened)
    found = [one.difference(other) for one, other in zip(made.tapes, own.tapes, strict=True)]
    facts = [
        {
            "reads": [(reading.layer, reading.name, sorted(reading.values)) for reading in each.reads],
            "leaves": list(each.leaves),
            "blocks": (list(each.blocks), each.private, list(each.grown), each.added, dict(each.tokens)),
            "place": (each.position, each.steps, each.epoch, each.stage),
            "randomness": (each.recorder.drawn, each.recorder.risk, len(each.recorder.failures)),
            "notes": [[note for note in made.notes if isinstance(note, bytes)] for made in each.recorder.rounds],
            "values": [value.epoch for value in each.fresh_rows],
        }
        for each in (made, own)
    ]
    return [name for name in found if name] + [name for name in facts[0] if facts[0][name] != facts[1][name]]


def comparing(role: str, mesh: Mesh, meter: StageMeter, *arguments: Any) -> Any:
    """Records also what is made from another recording; returns what was made, and what differs."""
    deepened()
    made, found = list[int](), list[str]()
    alike = Recordings._alike

    def compared(self: Recordings, key: Any, cache: Any) -> RecordedSegment | None:
        known = alike(self, key, cache)
        if known is not None:
            made.append(key.layer)
            own = RecordedSegment.record(programs[key], cache, self._source, self.inputs)
            found.extend(f"layer {key.layer}: {what}" for what in differences(known, own, cache))
        return known

    programs: dict[Any, Any] = {}
    record = Recordings._record

    def noting(self: Recordings, key: Any, program: Any, cache: Any) -> RecordedSegment | None:
        programs[key] = program
        return record(self, key, program, cache)

    vars(replaying)["STEPS"] = 5
    Recordings._alike, Recordings._record = compared, noting  # type: ignore[method-assign]
    result = replaying.party(role, mesh, meter, *arguments)
    return (*result, made, found)


@pytest.mark.slow
@pytest.mark.parametrize("policy", KINDS)
def test_a_recording_made_from_that_of_a_layer_alike_is_what_one_of_the_layer_would_be(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((decoding, "FAMILIES"), (replaying, "SPECS")):
        monkeypatch.setattr(module, name, getattr(module, name))
    deepened()
    chosen = replaying.POLICIES[policy]
    _, _, parts, token = decoding.prefilled("deep", chosen)
    results = together(comparing, ROLES, 0, "deep", chosen, parts, token)
    for role in ROLES:
        made, found = results[role][-2:]
        assert not found, found[:5]
        assert len(set(made)) >= 2, "some layers are alike"
    if policy == "full":
        assert len(set(results["client"][-2])) == 8 - 3, "all but the first two and the last"
