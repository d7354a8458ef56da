"""The parts of `mpcache-bench submit`, without a cluster."""

import base64
import hashlib
import io
import os
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE
from ray._private.runtime_env.packaging import create_package
from typer.testing import CliRunner

from orchestrator.cli.main import app
from orchestrator.experiment.problems import ConfigError
from orchestrator.submit.archive import ArchiveError, packed, unpack
from orchestrator.submit.cluster import connect
from orchestrator.submit.follow import Continuation, JobError
from orchestrator.submit.ship import EXPERIMENT, LIMIT_BYTES, ship, shipped_bytes
from tests.helpers.paths import ROOT


def framed(content: bytes) -> list[str]:
    return [f"mpcb 0 {base64.b64encode(content).decode()}", f"mpcb end 1 {hashlib.sha256(content).hexdigest()}"]


def tar_of(member: tarfile.TarInfo) -> list[str]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.addfile(member)
    return framed(buffer.getvalue())


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    (folder / "records").mkdir(parents=True)
    (folder / "records" / "one.json").write_bytes(bytes(range(256)) * 100)
    (folder / "report.md").write_text("# Report\n")
    return folder


def test_a_folder_arrives_although_other_lines_stand_between(results: Path, tmp_path: Path) -> None:
    lines = [noisy for line in packed(results) for noisy in ("a line of Ray's own", line)]
    paths = unpack(lines, tmp_path / "out")
    assert {path.relative_to(tmp_path / "out").as_posix() for path in paths} == {"records/one.json", "report.md"}
    assert (tmp_path / "out/records/one.json").read_bytes() == (results / "records/one.json").read_bytes()


def test_an_archive_that_lacks_any_line_or_was_changed_writes_nothing(results: Path, tmp_path: Path) -> None:
    lines = list(packed(results))
    for missing in range(len(lines)):
        with pytest.raises(ArchiveError, match="fetch it again"):
            unpack(lines[:missing] + lines[missing + 1 :], tmp_path / "out")
    changed = [framed(b"other")[0], lines[-1].replace(lines[-1].split()[2], "1", 1)]
    with pytest.raises(ArchiveError, match="checksum"):
        unpack(changed, tmp_path / "out")
    with pytest.raises(ArchiveError, match="cannot be read"):
        unpack(framed(b"no archive"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "a/../../escaped", "."])
def test_no_member_leaves_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="nothing was written"):
        unpack(tar_of(tarfile.TarInfo(name)), tmp_path / "out")
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_no_member_is_anything_but_a_file(kind: bytes, tmp_path: Path) -> None:
    member = tarfile.TarInfo("link")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(ArchiveError, match="no regular file"):
        unpack(tar_of(member), tmp_path / "out")


def test_a_link_that_is_already_there_leads_nowhere_else(results: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "records").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArchiveError, match="nothing was written"):
        unpack(packed(results), tmp_path / "out")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_run_without_results_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no results"):
        list(packed(tmp_path / "none"))


@given(st.text(), st.lists(st.lists(st.integers(0, 40), max_size=6), max_size=4))
def test_a_log_read_in_any_chunks_and_any_number_of_times_is_written_once(log: str, readings: list[list[int]]) -> None:
    written: list[str] = []
    continuation = Continuation(written.append)
    for reading in [*readings, [len(log)]]:
        continuation.restart()
        start = 0
        for length in reading:
            continuation.feed(log[start : start + length])
            start = min(start + length, len(log))
    assert "".join(written) == log


@pytest.mark.parametrize("key", ["text_file", "messages"])
def test_the_code_and_the_prompts_are_shipped_and_nothing_else(tmp_path: Path, key: str) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "a.txt").write_text("text")
    (tmp_path / "unrelated.txt").write_text("stays here")
    (tmp_path / "mine.yaml").write_text(f"prompt: {{{key}: prompts/a.txt}}\n")
    ship(tmp_path / "mine.yaml", tmp_path / "shipped")
    shipped = {path.relative_to(tmp_path / "shipped").as_posix() for path in (tmp_path / "shipped").rglob("*.*")}
    assert {EXPERIMENT, "submitted/prompts/a.txt", "orchestrator/cli/main.py", "parties/py.typed"} <= shipped
    assert {name.split("/")[0] for name in shipped} == {"submitted", "orchestrator", "parties", "netem", "dashboards"}
    assert not [name for name in shipped if name.endswith((".pyc", "unrelated.txt"))]


def test_the_module_of_a_policy_is_shipped_to_where_it_is_imported_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "code/mypackage"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__pycache__/x.pyc").touch()
    for name in ("__init__.py", "mypolicy.py", "helper.py"):
        (package / name).write_text("")
    (tmp_path / "code/single.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    policies = "policies: [full, {name: 'mypackage.mypolicy:Mine', size: 3}, 'single:Mine']"
    (tmp_path / "mine.yaml").write_text(f"prompt: {{random_tokens: true}}\n{policies}\n")
    ship(tmp_path / "mine.yaml", tmp_path / "shipped")
    for name in ("mypackage/__init__.py", "mypackage/mypolicy.py", "mypackage/helper.py", "single.py"):
        assert (tmp_path / "shipped" / name).is_file()
    assert not (tmp_path / "shipped/mypackage/__pycache__").exists()
    (tmp_path / "mine.yaml").write_text("prompt: {random_tokens: true}\npolicies: ['nowhere:Mine']\n")
    with pytest.raises(JobError, match="nowhere has no file to ship; install it on every node"):
        ship(tmp_path / "mine.yaml", tmp_path / "again")


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/hostname", "missing.txt"])
def test_a_prompt_outside_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "outside.txt").write_text("text")
    (tmp_path / "below" / "mine.yaml").write_text(f"prompt: {{text_file: {name}}}\n")
    with pytest.raises(ConfigError, match=r"prompt.text_file: .*fix: copy it there"):
        ship(tmp_path / "below" / "mine.yaml", tmp_path / "shipped")


def test_an_upload_too_large_for_ray_is_refused_with_its_size_and_the_largest_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("prompt: {text_file: long.txt}\n")
    with (tmp_path / "long.txt").open("wb") as file:
        file.truncate(LIMIT_BYTES)
    expected = (
        r"what is to be shipped has 1\d\d\.\d MB, and Ray takes 104\.9 MB; the largest file is submitted/long\.txt"
    )
    with pytest.raises(JobError, match=f"{expected} with 104.9 MB"):
        ship(tmp_path / "mine.yaml", tmp_path / "shipped")
    with (tmp_path / "long.txt").open("r+b") as file:
        file.truncate(LIMIT_BYTES // 2)
    ship(tmp_path / "mine.yaml", tmp_path / "shipped")


def test_the_limit_is_rays_and_the_count_is_at_least_what_ray_sends(tmp_path: Path) -> None:
    assert LIMIT_BYTES == DASHBOARD_CLIENT_MAX_SIZE
    (tmp_path / "mine.yaml").write_text("prompt: {random_tokens: true}\n")
    ship(tmp_path / "mine.yaml", tmp_path / "shipped")
    archive = tmp_path / "package.zip"
    create_package(str(tmp_path / "shipped"), archive, include_gitignore=False)
    assert archive.stat().st_size <= shipped_bytes(tmp_path / "shipped") <= archive.stat().st_size * 1.1


def test_a_refusal_by_git_is_reported_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("the tests do not run in a clone")
    (tmp_path / "mine.yaml").write_text("prompt: {random_tokens: true}\n")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)  # no exception of the user's own
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    with pytest.raises(JobError, match=r"dubious ownership.*git config --global --add safe\.directory") as refused:
        ship(tmp_path / "mine.yaml", tmp_path / "shipped")
    assert "\n" not in str(refused.value)


def test_without_git_the_packages_are_shipped_as_from_an_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text("prompt: {random_tokens: true}\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    ship(tmp_path / "mine.yaml", tmp_path / "shipped")
    assert (tmp_path / "shipped/orchestrator/cli/main.py").is_file()
    for gathered in ("__pycache__", "node_modules"):
        assert not list((tmp_path / "shipped").rglob(gathered))


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1:8265", "must be a URL"), ("ftp://host", "must be a URL"), ("http://127.0.0.1:1", "no job server")],
)
def test_a_bad_address_is_refused_before_anything_is_sent(address: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: x\nmodel: random:tiny-llama\nprompt: {random_tokens: true}\nengines: [plain]\npolicies: [full]\n"
        "seq_lens: [16]\nnetworks: [none]\nnew_tokens: 1\nrepeats: 1\nseed: 0\n"
    )
    done = CliRunner().invoke(app, ["submit", str(file), "--address", address, "--out", str(tmp_path / "out")])
    assert done.exit_code == 2, done.output
    assert expected in done.output
    assert address in done.output


def test_a_job_server_that_requires_a_token_is_reported_with_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401, "Unauthorized: Missing authentication token")

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever).start()
        with pytest.raises(JobError, match="it requires a token: export RAY_AUTH_MODE=token"):
            connect(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
