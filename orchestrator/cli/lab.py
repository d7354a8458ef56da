"""`mpcache-bench lab up|status|exec|down`."""

from typing import Annotated

import typer

from netem import NetemError, preset
from netem.lab import DATA_PORTS, Lab, labs
from orchestrator.cli.common import refusing, say
from orchestrator.run.lab import head_address, ray_environment, start_ray

lab_app = typer.Typer(help="Emulated hosts on this machine.", no_args_is_help=True)

_Id = Annotated[str, typer.Option("--lab", help="Id of the lab; needed only if several are up.")]


@lab_app.command()
def up(
    hosts: Annotated[int, typer.Option(min=2, max=64, help="Number of hosts.")] = 3,
    network: Annotated[str, typer.Option(help="Preset for the links between the hosts.")] = "none",
    ray: Annotated[bool, typer.Option(help="Start a Ray node on each host.")] = True,
) -> None:
    """Make a lab that stays up until `lab down`."""
    with refusing(NetemError):
        lab = Lab.up(hosts, detached=True, network=preset(network))
        try:
            if ray:
                start_ray(lab)
        except BaseException:
            lab.down()
            raise
        _describe(lab)


@lab_app.command()
def status() -> None:
    """Show all labs of this machine."""
    with refusing(NetemError):
        found = labs()
        for lab in found:
            _describe(lab)
        if not found:
            say("no lab is up")


@lab_app.command("exec", context_settings={"ignore_unknown_options": True})
def execute(
    host: Annotated[str, typer.Argument(help="A host of the lab, such as h0.")],
    command: Annotated[list[str], typer.Argument(help="The command to run there.")],
    lab: _Id = "",
) -> None:
    """Run a command on a host of a lab."""
    with refusing(NetemError):
        chosen = _choose(lab)
        raise typer.Exit(chosen.run(host, command, env=ray_environment(chosen)).returncode)


@lab_app.command()
def down(lab: _Id = "") -> None:
    """Take a lab down, with everything that runs on its hosts."""
    with refusing(NetemError):
        _choose(lab).down()


def _choose(name: str) -> Lab:
    found = labs()
    chosen = [lab for lab in found if not name or lab.id == name]
    if len(chosen) == 1:
        return chosen[0]
    there = ", ".join(lab.id for lab in found) or "none is up"
    raise NetemError(f"--lab: {name or 'nothing'} names {len(chosen)} labs; there are: {there}")


def _describe(lab: Lab) -> None:
    ports = f"TCP ports {DATA_PORTS.start} to {DATA_PORTS.stop - 1}"
    shaped = f"network {lab.network} by {lab.backend} on {ports}" if lab.backend != "none" else "network none"
    say(f"lab {lab.id}: {shaped}; Ray, where started, at {head_address(lab)}")
    for host in lab.hosts:
        say(f"  {host.name}  {host.address}  process {host.pid}")
