"""The commands for networks and labs."""

import subprocess
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from netem import presets
from netem.lab import labs
from netem.lease import Lease
from orchestrator.cli.clean import clean
from orchestrator.cli.lab import lab_app
from orchestrator.cli.networks import networks_app

app = typer.Typer()
app.add_typer(networks_app, name="networks")
app.add_typer(lab_app, name="lab")
app.command()(clean)


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})


def test_all_presets_are_listed_with_their_source() -> None:
    shown = invoke("networks")
    assert shown.exit_code == 0
    for profile in presets():
        assert profile.name in shown.output
        assert profile.source[:20] in shown.output


def test_the_links_of_a_preset_are_shown() -> None:
    shown = invoke("networks", "show", "hpmpc-cman")
    assert shown.exit_code == 0
    assert "1.159" in shown.output
    assert "1532" in shown.output


def test_the_printed_tc_commands_are_a_valid_shell_script(tmp_path: Path) -> None:
    shown = invoke("networks", "show", "wan", "--tc", "192.0.2.1", "192.0.2.2:7100", "--device", "ens5")
    assert shown.exit_code == 0
    assert shown.output.count("tc qdisc add dev ens5 root") == 2
    assert "match ip dst 192.0.2.2/32 match ip protocol 6 0xff match ip dport 7100 0xffff" in shown.output
    script = tmp_path / "commands"
    script.write_text(shown.output)
    subprocess.run(["sh", "-n", str(script)], check=True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["networks", "show", "wann"], "'wann' is not allowed; give one of none, lan, wan"),
        (["networks", "show", "wan", "--tc"], "at least two addresses"),
        (["networks", "show", "wan", "--tc", "192.0.2.1:x", "192.0.2.2"], "192.0.2.1:x"),
        (["lab", "down", "--lab", "nope"], "nope names 0 labs"),
    ],
)
def test_a_bad_word_is_an_error_of_one_line(words: list[str], expected: str, state: Path) -> None:
    shown = invoke(*words)
    assert shown.exit_code == 2
    assert expected in shown.stderr
    assert "Traceback" not in shown.output


def test_clean_lists_what_it_keeps_and_what_it_removes(state: Path) -> None:
    mine = Lease.take("a run", "eth77", 0x2000, 60)
    assert "left eth77: rules of run a run" in invoke("clean").output
    mine.drop()
    assert invoke("clean").output == ""


@pytest.mark.netns
def test_a_lab_goes_up_is_used_and_goes_down(state: Path) -> None:
    try:
        up = invoke("lab", "up", "--hosts", "2", "--no-ray", "--network", "lan")
        assert up.exit_code == 0, up.output
        made = labs()[0]
        assert f"lab {made.id}: network lan by" in invoke("lab", "status").output
        assert invoke("lab", "exec", "h1", "--", "sh", "-c", "exit 5").exit_code == 5
        assert invoke("lab", "exec", "h7", "true").exit_code == 2
        assert f"left lab {made.id}" in invoke("clean").output
    finally:
        down = invoke("lab", "down")
    assert down.exit_code == 0
    assert "no lab is up" in invoke("lab", "status").output
    assert not any(Path(f"/proc/{host.pid}").exists() for host in made.hosts)
