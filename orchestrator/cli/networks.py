"""`mpcache-bench networks` and `networks show`."""

import shlex
from typing import Annotated

import typer
from rich.table import Table

from netem import NetemError, NetworkProfile, ProfileError, preset, presets
from netem.dryrun import by_hand
from orchestrator.cli.common import refusing, say
from orchestrator.cli.common import show as show_table

networks_app = typer.Typer(help="Networks that links can be made like.")

_DEFAULT_PORT = 7000


@networks_app.callback(invoke_without_command=True)
def list_networks(context: typer.Context) -> None:
    """List all presets."""
    if context.invoked_subcommand is not None:
        return
    table = Table("network", "rate Mbit/s", "RTT ms", "source", box=None)
    for profile in presets():
        table.add_row(profile.name, _span(_rates(profile)), _span(_rtts(profile)), profile.source)
    show_table(table)


@networks_app.command()
def show(
    name: Annotated[str, typer.Argument(help="A preset.")],
    hosts: Annotated[list[str] | None, typer.Argument(help="Addresses for --tc, as IP or IP:PORT.")] = None,
    tc: Annotated[bool, typer.Option("--tc", help="Print the tc commands for hand use on these hosts.")] = False,
    device: Annotated[str, typer.Option(help="Interface between the hosts.")] = "eth0",
) -> None:
    """Show a preset's links, or the exact tc commands that make them on real hosts."""
    with refusing(NetemError):
        profile = preset(name)
        if not tc:
            show_table(_links(profile))
            return
        if not hosts or len(hosts) < 2:
            raise ProfileError("HOST", hosts or [], "at least two addresses after --tc")
        for host, commands in by_hand(profile, [_address(host) for host in hosts], device).items():
            say(f"# on {host}{'' if commands else ': nothing'}")
            for command in commands[:-1]:
                say(shlex.join(command))
            for command in commands[-1:]:
                say(f"# on {host}, to take it back\n{shlex.join(command)}\n")


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
