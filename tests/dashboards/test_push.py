"""Pushing boards, data source and cells, to a fake Grafana (see grafana.py: it is not Grafana)."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.annotations import Region, push_regions
from dashboards.grafana import Grafana, GrafanaError
from dashboards.names import DATA_SOURCE_UID, FOLDER_UID
from dashboards.push import boards, push_board, push_data_source, push_folder
from tests.helpers.fake_grafana import TOKEN, FakeGrafana, Fault, html, no_json, reset, serving_fake, silent, status

PROMETHEUS = "http://127.0.0.1:9090"


@pytest.fixture
def grafana() -> Iterator[FakeGrafana]:
    with serving_fake() as made:
        yield made


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


Connect = Callable[..., Grafana]


@pytest.fixture
def connect(grafana: FakeGrafana, stack: ExitStack) -> Connect:
    def to(*, timeout_s: float = 5, pauses: int = 3) -> Grafana:
        return stack.enter_context(Grafana(grafana.url, TOKEN, timeout_s=timeout_s, pauses_s=[0.01] * pauses))

    return to


def region(number: int = 0, text: str = "crypten full 64 tokens: ok") -> Region:
    return Region(
        start_ms=1_700_000_000_000 + 10_000 * number,
        end_ms=1_700_000_005_000 + 10_000 * number,
        experiment="experiment:tiny",
        cell=f"cell:{number:016x}",
        parameters=("engine:crypten", "policy:full", "status:ok"),
        text=text,
    )


def push_all(server: Grafana, count: int = 3) -> list[Any]:
    outcomes: list[Any] = [push_folder(server), push_data_source(server, PROMETHEUS)]
    outcomes += [push_board(server, board) for board in boards()]
    return [*outcomes, push_regions(server, [region(number) for number in range(count)])]


def test_a_push_stores_folder_data_source_boards_and_cells(grafana: FakeGrafana, connect: Connect) -> None:
    *outcomes, counts = push_all(connect())
    assert set(outcomes) == {"created"}
    assert counts == {"created": 3, "updated": 0, "unchanged": 0}
    assert grafana.sources[DATA_SOURCE_UID]["url"] == PROMETHEUS
    assert {"mpcbench-sweep", "mpcbench-run", "mpcbench-links", "mpcbench-hosts"} == set(grafana.boards)
    assert {one["meta"]["folderUid"] for one in grafana.boards.values()} == {FOLDER_UID}
    first = grafana.annotations[0]
    assert first["timeEnd"] - first["time"] == 5000
    assert {"mpcbench", "experiment:tiny", "cell:0000000000000000", "engine:crypten"} <= set(first["tags"])


def test_pushing_twice_changes_nothing(grafana: FakeGrafana, connect: Connect) -> None:
    push_all(connect())
    before = json.dumps([grafana.folders, grafana.sources, grafana.boards, grafana.annotations])
    *outcomes, counts = push_all(connect())
    assert set(outcomes) == {"unchanged"}
    assert counts == {"created": 0, "updated": 0, "unchanged": 3}
    assert json.dumps([grafana.folders, grafana.sources, grafana.boards, grafana.annotations]) == before
    assert not any(request.startswith(("POST", "PUT")) for request in grafana.seen[len(grafana.seen) // 2 + 8 :])


def test_changed_objects_are_updated(grafana: FakeGrafana, connect: Connect) -> None:
    server = connect()
    push_all(server)
    grafana.boards["mpcbench-run"]["dashboard"]["title"] = "Something else"
    assert push_data_source(server, "http://elsewhere:9090") == "updated"
    assert grafana.sources[DATA_SOURCE_UID]["url"] == "http://elsewhere:9090"
    assert [push_board(server, board) for board in boards()].count("updated") == 1
    assert grafana.boards["mpcbench-run"]["dashboard"]["title"] == "mpcache-bench: Run"
    assert push_regions(server, [region(0, text="now incorrect")])["updated"] == 1
    assert grafana.annotations[0]["text"] == "now incorrect"


def test_a_cell_that_ran_twice_has_two_regions(grafana: FakeGrafana, connect: Connect) -> None:
    again = Region(**{**{name: getattr(region(), name) for name in Region.__slots__}, "start_ms": 1_700_000_001_000})
    assert push_regions(connect(), [region(), again])["created"] == 2


def test_thousands_of_cells_stay_idempotent_beyond_grafanas_limits(grafana: FakeGrafana, connect: Connect) -> None:
    grafana.annotations = [
        {"id": number, "time": 1, "timeEnd": 2, "tags": ["mpcbench", "experiment:tiny", f"cell:x{number}"], "text": "x"}
        for number in range(1, 1500)
    ]
    server = connect()
    assert push_regions(server, [region()])["created"] == 1
    assert push_regions(server, [region()])["unchanged"] == 1


def test_a_run_without_cells_sends_no_request(grafana: FakeGrafana, connect: Connect) -> None:
    assert push_regions(connect(), []) == {"created": 0, "updated": 0, "unchanged": 0}
    assert grafana.seen == []


def test_provisioned_objects_are_left_alone(grafana: FakeGrafana, connect: Connect) -> None:
    server = connect()
    push_all(server)
    grafana.sources[DATA_SOURCE_UID]["readOnly"] = True
    for board in grafana.boards.values():
        board["meta"]["provisioned"] = True
        board["dashboard"]["title"] = "from a file"
    assert push_data_source(server, "http://elsewhere:9090") == "provisioned"
    assert {push_board(server, board) for board in boards()} == {"provisioned"}


def test_a_grafana_below_a_path_is_found() -> None:
    with serving_fake("/watch") as grafana, Grafana(grafana.url, TOKEN) as server:
        assert push_folder(server) == "created"
        assert grafana.seen == ["GET /watch/api/folders/mpcbench", "POST /watch/api/folders"]


def test_text_is_escaped_as_html(grafana: FakeGrafana, connect: Connect) -> None:
    push_regions(connect(), [region(text="<script>alert(1)</script>")])
    assert grafana.annotations[0]["text"] == "&lt;script&gt;alert(1)&lt;/script&gt;"


@pytest.mark.parametrize("name", ["a & b=c", "ünïcode", "50%", "a#b?c/d"])
def test_an_experiment_of_any_name_finds_its_cells_again(grafana: FakeGrafana, connect: Connect, name: str) -> None:
    named = Region(1, 2, f"experiment:{name}", "cell:1", (), "ok")
    assert push_regions(connect(), [named])["created"] == 1
    assert push_regions(connect(), [named])["unchanged"] == 1


TRANSIENT: dict[str, Fault] = {
    "429": status(429), "500": status(500), "502": status(502), "503": status(503), "reset": reset, "silent": silent,
}  # fmt: skip


@pytest.mark.parametrize("path", ["/folders", "/datasources", "/dashboards/db", "/annotations"])
@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT)
def test_a_transient_fault_is_retried(grafana: FakeGrafana, connect: Connect, path: str, fault: Fault) -> None:
    grafana.faults = [(path, fault)]
    push_all(connect(timeout_s=1.5 if fault is silent else 30))
    assert grafana.faults == []
    assert len(grafana.boards) == 4
    assert len(grafana.annotations) == 3


def test_a_lost_reply_makes_no_second_region(grafana: FakeGrafana, connect: Connect) -> None:
    def stored_but_lost(handler: Any) -> None:
        grafana.annotations.append(
            {"id": 1, "time": region().start_ms, "timeEnd": region().end_ms, "text": region().text,
             "tags": region().fields["tags"]}
        )  # fmt: skip
        reset(handler)

    server = connect()
    grafana.faults = [("/annotations", lambda handler: handler.send_json(200, [])), ("/annotations", stored_but_lost)]
    assert push_regions(server, [region()]) == {"created": 0, "updated": 0, "unchanged": 1}
    assert len(grafana.annotations) == 1


PERMANENT: dict[str, tuple[Fault, str]] = {
    "400": (status(400, "bad request data"), "invalid .*bad request data"),
    "401": (status(401), "401, the token is not valid; set GRAFANA_TOKEN"),
    "403": (
        status(403, "You'll need additional permissions"),
        "403, the token lacks the permission.*role Admin.*additional perm",
    ),
    "404, not of Grafana": (lambda handler: handler.send(404, b"<html>", "text/html"), "404, not found"),
    "409": (status(409), "409, an object of the same name"),
    "412": (status(412, "The dashboard has been changed by someone else"), "412, .*changed by someone else"),
    "another service": (html, "not as Grafana does"),
    "an answer cut off": (no_json, "not as Grafana does"),
}


@pytest.mark.parametrize(("fault", "words"), PERMANENT.values(), ids=PERMANENT)
def test_a_refusal_is_reported_at_once(grafana: FakeGrafana, connect: Connect, fault: Fault, words: str) -> None:
    grafana.faults = [("/dashboards", fault)] * 4
    with pytest.raises(GrafanaError, match=f"could not store the board .* at {grafana.url}: .*{words}"):
        push_board(connect(pauses=0), boards()[0])


@pytest.mark.parametrize("fault", [status(401), status(403), status(412)])
def test_a_refusal_is_not_retried(grafana: FakeGrafana, connect: Connect, fault: Fault) -> None:
    grafana.faults = [("/folders", fault)] * 2
    with pytest.raises(GrafanaError):
        push_folder(connect())
    assert len(grafana.seen) == 1


def test_a_folder_of_that_name_under_another_uid_is_reported(grafana: FakeGrafana, connect: Connect) -> None:
    grafana.folders = {"theirs": {"uid": "theirs", "title": "mpcache-bench"}}
    with pytest.raises(GrafanaError, match=r"create the folder 'mpcache-bench' .*409, an object of the same name"):
        push_folder(connect())


def test_a_server_that_stays_down_ends_the_push(grafana: FakeGrafana, connect: Connect) -> None:
    grafana.faults = [("/folders", status(503, "starting"))] * 10
    with pytest.raises(GrafanaError, match=r"503, the server failed.*starting"):
        push_folder(connect())
    assert len(grafana.seen) == 4


def test_a_server_that_is_too_slow_is_reported(grafana: FakeGrafana, connect: Connect) -> None:
    grafana.faults = [("/folders", silent)]
    with pytest.raises(GrafanaError, match=r"no response within 0\.1 s"):
        push_folder(connect(timeout_s=0.1, pauses=0))


def test_a_server_that_is_gone_is_reported() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with (
        Grafana(url, TOKEN, pauses_s=[]) as server,
        pytest.raises(GrafanaError, match=f"could not create the folder .* at {url}: the connection failed"),
    ):
        push_folder(server)


@pytest.mark.parametrize("fault", [status(401, TOKEN), status(500, f"log: Bearer {TOKEN}"), reset])
def test_the_token_is_in_no_message(grafana: FakeGrafana, connect: Connect, fault: Fault) -> None:
    grafana.faults = [("/folders", fault)]
    with pytest.raises(GrafanaError) as caught:
        push_folder(connect(pauses=0))
    assert TOKEN not in str(caught.value)
    assert TOKEN not in repr(caught.value)


@pytest.mark.parametrize("url", ["", "127.0.0.1:3000", "ftp://a", "http://", "grafana"])
def test_an_invalid_address_is_refused(url: str) -> None:
    with pytest.raises(GrafanaError, match=r"--grafana: .* write it as http://host:3000"):
        Grafana(url, TOKEN)


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(GrafanaError, match="set GRAFANA_TOKEN instead") as caught:
        Grafana("http://admin:hunter2@127.0.0.1:3000", TOKEN)
    assert "hunter2" not in str(caught.value)


@given(
    st.one_of(
        st.just(""),
        st.text(st.characters(categories=["Cc", "Lo"]), min_size=1).filter(
            lambda x: not (x.isascii() and x.isprintable())
        ),
    )
)
def test_a_token_that_cannot_be_sent_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(GrafanaError, match="GRAFANA_TOKEN is empty or not a token") as caught:
        Grafana("http://127.0.0.1:3000", token)
    assert len(token) < 3 or token not in str(caught.value)
