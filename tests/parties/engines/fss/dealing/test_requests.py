"""Requests that a dealer cannot or must not answer end the cell with a named error, and an epoch is dealt once."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from parties.decoding.workload import Start, Workload
from parties.engines.fss.cost.shapes import prefilled
from parties.engines.fss.dealing.dealer import Dealer
from parties.engines.fss.dealing.dry_run import DryRun
from parties.engines.fss.dealing.plan import Plan
from parties.engines.fss.dealing.requests import MOST_NUMBERS, REQUEST_BYTES, BadRequest
from parties.engines.fss.dealing.sender import END
from parties.engines.fss.randomness import seeds
from parties.engines.fss.randomness.frames import RandomnessReused
from parties.errors import ModelError, OutOfStep, PartyError
from parties.metering.meter import StageMeter
from parties.metering.progress import Progress
from parties.models.folding import folded_shapes
from parties.policies import Full
from parties.roles import dealer
from parties.roles.job import Job
from parties.transport.link import Link
from tests.helpers.tiny import SPECS
from tests.helpers.waiting import PATIENCE_S
from tests.helpers.wires import announced, later, tcp_pair

SPEC = SPECS["llama"]
INSTALL = {"do": "install", "shapes": {name: list(shape) for name, shape in folded_shapes(SPEC).items()}}
SHAPES = {name: tuple(value.shape) for name, value in prefilled(SPEC, Full(), 20).values().items()}
PLAN = json.loads(json.dumps(Plan(Workload(SPEC, "full", {}, 2, sequences=(Start(20, SHAPES),)), 2).to_json()))
OWN, (OTHER,) = "sequences/0", PLAN["sequences"]
PROMPTED = {"shapes": {}, "position": 0, "prefill": [4, 4]}
DECODE = {"do": "decode", "plan": PLAN, "attempt": 0}
ROOM = {"do": "credit", "upto": 1 << 40}


@contextmanager
def dealers() -> Iterator[tuple[Dealer, dict[str, Link], dict[str, Any]]]:
    """A dealer that is set up, the parties' ends, and the bare sockets."""
    pairs = {role: tcp_pair() for role in ("client", "server")}
    mine = {role: Link(near, "dealer", StageMeter(), PATIENCE_S) for role, (near, _) in pairs.items()}
    links = {role: Link(far, role, StageMeter(), PATIENCE_S) for role, (_, far) in pairs.items()}
    drawn = [later(seeds.drawn_seed, link, role) for role, link in mine.items()]
    dealer = Dealer(links["client"], links["server"], StageMeter())
    for future in drawn:
        future.result(PATIENCE_S)
    try:
        yield dealer, mine, {role: near for role, (near, _) in pairs.items()}
    finally:
        for link in (*mine.values(), *links.values()):
            link.close()


def refusal(*requests: Any, role: str = "client") -> PartyError:
    """Returns the dealer's error for a party's requests."""
    with dealers() as (dealer, mine, _):
        served = later(dealer.serve)
        for request in requests:
            mine[role].send_json(request)
        with pytest.raises(PartyError) as caught:
            served.result(PATIENCE_S)
    return caught.value


def changed(request: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    request = copy.deepcopy(request)
    at: Any = request
    *way, last = path.split("/")
    for key in way:
        at = at[int(key) if key.isdecimal() else key]
    at[last] = value
    return request


@pytest.mark.parametrize("request_", ["again", 7, None, [], [{"do": "end"}], True])
def test_a_request_that_is_not_an_object_is_refused(request_: Any) -> None:
    assert isinstance(refusal(request_), BadRequest)


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize(
    "request_",
    [{}, {"do": None}, {"do": ["end"]}, {"do": {}}, {"do": "stop"}, {"do": "credit"}, {"do": "credit", "upto": "9"},
     {"do": "credit", "upto": 1.5}, {"do": "credit", "upto": True}, {"do": "credit", "upto": -1},
     {"do": "credit", "upto": 1 << 80}, {"do": "credit", "upto": 9, "more": 1}],
    ids=json.dumps,
)  # fmt: skip
def test_a_request_without_what_it_needs_is_refused(request_: Any, role: str) -> None:
    error = refusal(request_, role=role)
    assert isinstance(error, BadRequest)
    assert f"{role} sent the dealer a request whose" in str(error)
    assert "it must be" in str(error)


@pytest.mark.parametrize("request_", [INSTALL, DECODE, {"do": "go", "index": 2}], ids=str)
def test_requests_of_the_client_are_refused_from_the_server(request_: Any) -> None:
    assert "it must be one of prefilled, credit, end" in str(refusal(request_, role="server"))


@pytest.mark.parametrize(
    ("request_", "path"),
    [(INSTALL, "shapes"), (DECODE, "plan"), (DECODE, "attempt"), ({"do": "go", "index": 2}, "index"),
     ({"do": "again", "index": 2, "attempt": 1}, "index"), ({"do": "again", "index": 2, "attempt": 1}, "attempt")],
)  # fmt: skip
def test_a_key_that_is_missing_or_of_another_type_is_refused(request_: dict[str, Any], path: str) -> None:
    without = {key: value for key, value in request_.items() if key != path}
    for wrong in (without, changed(request_, path, "x"), changed(request_, path, None), changed(request_, path, -1)):
        error = refusal(wrong)
        assert isinstance(error, BadRequest)
        assert path in str(error)


@pytest.mark.parametrize("shape", [[1 << 40, 1 << 40], [MOST_NUMBERS + 1], [-1, 4], [2] * 9, ["4"], [1.0], 4, {"a": 1}])
def test_shapes_that_no_memory_holds_are_refused(shape: Any) -> None:
    assert "install request's shapes" in str(refusal(changed(INSTALL, "shapes/embed", shape)))


def test_many_matrices_that_no_memory_holds_together_are_refused() -> None:
    many = {f"layers.{i}.o": [1 << 16, 1 << 16] for i in range(3)}
    assert f"at most {MOST_NUMBERS}" in str(refusal({"do": "install", "shapes": many}))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("spec", 3, "plan's spec"), ("spec/n_layers", 10**6, "n_layers"), ("spec/hidden", "64", "hidden"),
        ("spec/vocab", 1 << 40, "vocab"), ("policy", "none", "plan's policy"), ("policy", ["full"], "plan's policy"),
        ("parameters", {"deep": 1}, "plan's parameters"), ("parameters", [], "plan's parameters"),
        ("sequences", [], "plan's sequences"), ("sequences", [7], "plan's sequences"),
        (f"{OWN}/shapes/0.k", [1 << 50], "plan's shapes"), (f"{OWN}/shapes/99.k", [1], "a layer below"),
        (f"{OWN}/shapes/k", [1], "a layer"), (f"{OWN}/position", 1 << 30, "plan's position"),
        (f"{OWN}/position", "20", "plan's position"), (f"{OWN}/prefill", [4], "plan's prefill"),
        (f"{OWN}/prefill", [4, 0], "plan's prefill"), (f"{OWN}/prefill", [1 << 30, 1], "plan's prefill"),
        ("sequences", [OTHER, PROMPTED], "plan's prefill"),
        ("steps", 0, "plan's steps"), ("steps", 1 << 30, "plan's steps"), ("first", 0, "plan's first"),
        ("options/argmax", "server", "plan's options's argmax"), ("first", 1 << 40, "plan's first"),
        ("options/offline", "later", "plan's options's offline"),
        ("options/comparison", None, "plan's options's comparison"),
        ("options", None, "plan's options"), ("options/more", 1, "plan's options's keys"),
    ],
)  # fmt: skip
def test_an_invalid_plan_is_refused_and_the_field_is_named(path: str, value: Any, words: str) -> None:
    error = refusal(INSTALL, changed(DECODE, f"plan/{path}", value))
    assert isinstance(error, BadRequest | ModelError)
    assert words in str(error)


def test_a_plan_lacking_a_field_or_of_another_model_is_refused() -> None:
    lacking = {**DECODE, "plan": {key: value for key, value in PLAN.items() if key != "steps"}}
    assert "plan's keys" in str(refusal(INSTALL, lacking))
    assert "the installed model" in str(refusal(INSTALL, changed(DECODE, "plan/spec/intermediate", 97)))
    assert "the installed model" in str(refusal(DECODE))


def test_a_long_value_is_quoted_in_part() -> None:
    assert len(str(refusal({"do": "x" * 10_000}))) < 600


@pytest.mark.parametrize("request_", [{"do": "go", "index": 2}, {"do": "again", "index": 2, "attempt": 1}])
def test_a_request_that_does_not_come_next_is_out_of_step(request_: dict[str, Any]) -> None:
    assert isinstance(refusal(request_), OutOfStep)
    assert isinstance(refusal(INSTALL, DECODE, DECODE), OutOfStep)
    assert isinstance(refusal(INSTALL, DECODE, INSTALL), OutOfStep)


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_request_that_is_too_long_is_refused_by_its_header(role: str) -> None:
    with dealers() as (dealer, _, wires):
        served = later(dealer.serve)
        wires[role].sendall(announced(3 << 30, number=1))
        with pytest.raises(OutOfStep, match=f"at most {REQUEST_BYTES} bytes"):
            served.result(PATIENCE_S)


@pytest.mark.parametrize(
    "requests",
    [
        (INSTALL, INSTALL),  # the server's matrices would get the same masks twice
        (INSTALL, changed(DECODE, "plan/first", 1)),  # the epoch of the installation
        (INSTALL, ROOM, DECODE, {"do": "again", "index": 2, "attempt": 0}),  # an attempt that was dealt
    ],
    ids=["install", "decode", "again"],
)
def test_no_epoch_is_dealt_twice(requests: tuple[Any, ...]) -> None:
    error = refusal(*requests)
    assert isinstance(error, RandomnessReused)
    assert "deal each epoch once" in str(error)


@pytest.mark.parametrize("index", [1, 10**6])
def test_a_segment_that_was_never_run_is_not_repeated(index: int) -> None:
    assert "a segment under way" in str(refusal(INSTALL, ROOM, DECODE, {"do": "again", "index": index, "attempt": 1}))


def test_the_next_cell_waits_for_an_abandoned_dry_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both would draw from the same streams."""
    with dealers() as (dealer, mine, _):
        order: list[str] = []
        honest, joined = DryRun.stop, Event()

        def slow(*_: Any) -> None:
            joined.wait(PATIENCE_S)
            order.append("the dry run ends")

        def stop(dry_run: DryRun) -> None:
            joined.set()
            honest(dry_run)

        monkeypatch.setattr(DryRun, "_run", slow)
        monkeypatch.setattr(DryRun, "stop", stop)
        served = later(dealer.serve)
        for request in (INSTALL, DECODE, {"do": "nothing"}):
            mine["client"].send_json(request)
        with pytest.raises(BadRequest):
            served.result(PATIENCE_S)
        monkeypatch.setattr(
            "parties.engines.fss.dealing.dealer.Sender", lambda *_: order.append("the next cell begins")
        )
        with pytest.raises(AttributeError):
            dealer.serve()
    assert order[:2] == ["the dry run ends", "the next cell begins"]


def test_cells_that_differ_in_the_device_have_dealers_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each party makes a new engine for them, which waits for a seed."""
    made: list[str] = []
    placeholder = SimpleNamespace(serve=lambda *_: None)
    monkeypatch.setattr(dealer, "make_dealer", lambda engine, *_: made.append(engine) or placeholder)
    meter = StageMeter()
    no_links: Any = {}
    party = dealer.DealingParty(no_links, meter, Progress(meter))
    cell = {"engine": "fss", "model": "random:tiny-llama", "policy": {"name": "full"},
            "prompt": {"random_tokens": True}, "seq_len": 20, "new_tokens": 1}  # fmt: skip
    for gpu in (False, False, True, False):
        party.run(Job.model_validate({**cell, "gpu": gpu}))
    assert len(made) == 3


def test_decoding_is_dealt_once_both_parties_have_accounted_for_the_prompt() -> None:
    plan = {**PLAN, "sequences": [PROMPTED]}
    with dealers() as (dealer, mine, _):
        through = Event()
        served = later(dealer.serve, through.set)
        for request in (INSTALL, {**DECODE, "plan": plan}):
            mine["client"].send_json(request)
        drained = {role: later(drain, link) for role, link in mine.items()}
        for link in mine.values():
            link.send_json(ROOM)
        mine["client"].send_json({"do": "prefilled"})
        assert not through.wait(1.0)
        before = {role: link.received_bytes for role, link in mine.items()}
        mine["server"].send_json({"do": "prefilled"})
        assert through.wait(PATIENCE_S)
        for link in mine.values():
            link.send_json({"do": "end"})
        served.result(PATIENCE_S)
        for role, whole in drained.items():
            assert whole.result(PATIENCE_S) > before[role] > 0


def drain(link: Link) -> int:
    """Returns the bytes received up to the dealer's end frame."""
    while link.receive() != END:
        pass
    return link.received_bytes
