"""The command line for watching: `observe up|down|status|push`."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.watch.prometheus import (
    PORT,
    NotInstalled,
    ObserveError,
    Prometheus,
    default_folder,
    down,
    running,
    to_add,
)
from orchestrator.watch.prometheus import stop as end
from orchestrator.watch.prometheus import targets as scraped
from orchestrator.watch.push import push
from orchestrator.watch.targets import forget_ended, targets_dir

app = typer.Typer(help="Watch runs in Prometheus and Grafana.", no_args_is_help=True)
app.command()(push)

_Folder = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Its configuration and data; a folder of the user's if left out.")
]


@app.command()
def up(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on loopback.")] = PORT,
    folder: _Folder = None,
    ray: Annotated[str, typer.Option(metavar="URL", help="Ray's dashboard, for Ray's own metrics; '' for none.")] = (
        "http://127.0.0.1:8265"
    ),
    stall_seconds: Annotated[float, typer.Option(help="Alert when a party decodes no token for so long.")] = 60.0,
    detach: Annotated[bool, typer.Option("--detach", help="Return, and let it run until `observe down`.")] = False,
    start: Annotated[bool, typer.Option(help="Start Prometheus, or print what one of your own needs.")] = True,
) -> None:
    """Start a Prometheus that watches every run of this user on this machine, before or after it was started."""
    with _told():
        server = Prometheus(folder or default_folder(), port)
        forget_ended(targets_dir())
        server.write(ray, stall_seconds)
        if not start:
            typer.echo(f"# add this to the configuration of your Prometheus, and reload it\n{to_add(server.rules)}")
            return
        try:
            process = server.start(detach=detach)
        except NotInstalled:
            typer.echo(f"# or add this to the configuration of a Prometheus of your own\n{to_add(server.rules)}")
            raise
    told = f"Prometheus is up at {server.url}; it watches the runs in {targets_dir()}"
    if detach:
        typer.echo(f"{told}\n`mpcache-bench observe down` ends it")
    else:
        _stay(process, f"{told}\nCtrl-C ends it")


@app.command("down")
def shut_down(folder: _Folder = None) -> None:
    """End the Prometheus that `observe up --detach` started; its data stays."""
    with _told():
        place = folder or default_folder()
        typer.echo("it has ended" if down(place) else f"no Prometheus of ours runs in {place}")


@app.command()
def status(folder: _Folder = None) -> None:
    """Show whether Prometheus is up, and what it scrapes."""
    with _told():
        place = folder or default_folder()
    told = running(place)
    if told is None:
        typer.echo(f"no Prometheus of ours runs in {place}")
        raise typer.Exit(1)
    typer.echo(f"Prometheus is up at {told['url']}, process {told['pid']}")
    with _told():
        for target in scraped(told["url"]):
            labels = target["labels"]
            name = f"{labels['run']} {labels['party']}" if "run" in labels else labels["job"]
            typer.echo(f"  {target['health']:<7} {name}  {target['scrapeUrl']}  {target['lastError']}".rstrip())


def _stay(process: "subprocess.Popen[bytes]", told: str) -> None:
    """Say that the server is up, wait for it, and end it on Ctrl-C or SIGTERM."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        typer.echo(told)  # from now on the user may press Ctrl-C
        status = process.wait()
        typer.echo(f"prometheus ended by itself, with status {status}", err=True)
        raise typer.Exit(1)
    except KeyboardInterrupt:
        end(process)
        typer.echo("it has ended")
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _told() -> Iterator[None]:
    """Errors of ours are for the user: a line, and exit status 2."""
    try:
        yield
    except ObserveError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
