"""The command line for networks: `networks`, `networks show`, `lab up|status|exec|down` and `clean`."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from netem import NetemError, NetworkProfile, ProfileError, preset, presets
from netem.dryrun import by_hand
from netem.janitor import clean as remove_ended
from netem.lab import DATA_PORTS, Lab, labs
from orchestrator.run.lab import head_address, ray_environment, start_ray
from orchestrator.run.scratch import remove_ended as remove_folders

networks_app = typer.Typer(help="Networks that links can be made like.")
lab_app = typer.Typer(help="Emulated hosts on this machine.", no_args_is_help=True)

_DEFAULT_PORT = 7000
Id = Annotated[str, typer.Option("--lab", help="Id of the lab; needed only if several are up.")]


@networks_app.callback(invoke_without_command=True)
def list_networks(context: typer.Context) -> None:
    """List all presets."""
    if context.invoked_subcommand is not None:
        return
    table = Table("network", "rate Mbit/s", "RTT ms", "source", box=None)
    for profile in presets():
        table.add_row(profile.name, _span(_rates(profile)), _span(_rtts(profile)), profile.source)
    _print(table)


@networks_app.command()
def show(
    name: Annotated[str, typer.Argument(help="A preset.")],
    hosts: Annotated[list[str] | None, typer.Argument(help="Addresses for --tc, as IP or IP:PORT.")] = None,
    tc: Annotated[bool, typer.Option("--tc", help="Print the tc commands for hand use on these hosts.")] = False,
    device: Annotated[str, typer.Option(help="Interface between the hosts.")] = "eth0",
) -> None:
    """Show a preset's links, or the exact tc commands that make them on real hosts."""
    with _told():
        profile = preset(name)
        if not tc:
            _print(_links(profile))
            return
        if not hosts or len(hosts) < 2:
            raise ProfileError("HOST", hosts or [], "at least two addresses after --tc")
        for host, commands in by_hand(profile, [_address(host) for host in hosts], device).items():
            typer.echo(f"# on {host}{'' if commands else ': nothing'}")
            for command in commands[:-1]:
                typer.echo(shlex.join(command))
            for command in commands[-1:]:
                typer.echo(f"# on {host}, to take it back\n{shlex.join(command)}\n")


@lab_app.command()
def up(
    hosts: Annotated[int, typer.Option(min=2, max=64, help="Number of hosts.")] = 3,
    network: Annotated[str, typer.Option(help="Preset for the links between the hosts.")] = "none",
    ray: Annotated[bool, typer.Option(help="Start a Ray node on each host.")] = True,
) -> None:
    """Make a lab that stays up until `lab down`."""
    with _told():
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
    with _told():
        found = labs()
        for lab in found:
            _describe(lab)
        if not found:
            typer.echo("no lab is up")


@lab_app.command("exec", context_settings={"ignore_unknown_options": True})
def execute(
    host: Annotated[str, typer.Argument(help="A host of the lab, such as h0.")],
    command: Annotated[list[str], typer.Argument(help="The command to run there.")],
    lab: Id = "",
) -> None:
    """Run a command on a host of a lab."""
    with _told():
        chosen = _choose(lab)
        raise typer.Exit(chosen.run(host, command, env=ray_environment(chosen)).returncode)


@lab_app.command()
def down(lab: Id = "") -> None:
    """Take a lab down, with everything that runs on its hosts."""
    with _told():
        _choose(lab).down()


def clean() -> None:
    """Remove what ended runs left on this machine; what is in use or not ours is left alone."""
    with _told():
        for line in [*remove_ended(), *remove_folders()]:
            typer.echo(line)
        for lab in labs():
            typer.echo(f"left lab {lab.id}: still up; `lab down --lab {lab.id}` takes it down")


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
    typer.echo(f"lab {lab.id}: {shaped}; Ray, where started, at {head_address(lab)}")
    for host in lab.hosts:
        typer.echo(f"  {host.name}  {host.address}  process {host.pid}")


def _links(profile: NetworkProfile) -> Table:
    table = Table("from", "to", "rate Mbit/s", "one-way ms", "jitter ms", "loss %", title=profile.source)
    links = profile.pairs or {("any", "any"): profile.default}
    for (src, dst), link in links.items():
        rate = "as it is" if link.rate_mbit is None else f"{link.rate_mbit:g}"
        table.add_row(src, dst, rate, f"{link.delay_ms:g}", f"{link.jitter_ms:g}", f"{link.loss_pct:g}")
    return table


def _rates(profile: NetworkProfile) -> list[float]:
    links = profile.pairs.values() if profile.pairs else (profile.default,)
    return [link.rate_mbit for link in links if link.rate_mbit is not None]


def _rtts(profile: NetworkProfile) -> list[float]:
    return [profile.rtt_ms(*pair) for pair in profile.pairs or [("", "")] if profile.shaped]


def _span(values: list[float]) -> str:
    if not values:
        return "as it is"
    low, high = min(values), max(values)
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def _address(given: str) -> tuple[str, int]:
    host, _, port = given.partition(":")
    if port and not port.isdigit():
        raise ProfileError("HOST", given, "an IPv4 address, or address:port")
    return host, int(port or _DEFAULT_PORT)


def _print(table: Table) -> None:
    Console().print(table)


@contextmanager
def _told() -> Iterator[None]:
    """Errors of ours are for the user: a line, and exit status 2."""
    try:
        yield
    except NetemError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
