"""The command line for watching: `observe up|down|status|push`."""

import signal
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.common import ExitCode, note, refusing, say
from orchestrator.cli.push import push
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
from orchestrator.watch.targets import forget_ended, targets_dir

observe_app = typer.Typer(help="Watch runs in Prometheus and Grafana.", no_args_is_help=True)
observe_app.command()(push)

_Folder = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Its configuration and data; a folder of the user's if left out.")
]


@observe_app.command()
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
    with refusing(ObserveError):
        server = Prometheus(folder or default_folder(), port)
        forget_ended(targets_dir())
        server.write(ray, stall_seconds)
        if not start:
            say(f"# add this to the configuration of your Prometheus, and reload it\n{to_add(server.rules)}")
            return
        try:
            process = server.start(detach=detach)
        except NotInstalled:
            say(f"# or add this to the configuration of a Prometheus of your own\n{to_add(server.rules)}")
            raise
    message = f"Prometheus is up at {server.url}; it watches the runs in {targets_dir()}"
    if detach:
        say(f"{message}\n`mpcache-bench observe down` ends it")
    else:
        _stay(process, f"{message}\nCtrl-C ends it")


@observe_app.command("down")
def shut_down(folder: _Folder = None) -> None:
    """End the Prometheus that `observe up --detach` started; its data stays."""
    with refusing(ObserveError):
        place = folder or default_folder()
        say(
            f"Prometheus has ended; its data stays in {place}"
            if down(place)
            else f"no Prometheus of ours runs in {place}"
        )


@observe_app.command()
def status(folder: _Folder = None) -> None:
    """Show whether Prometheus is up, and what it scrapes."""
    with refusing(ObserveError):
        place = folder or default_folder()
    server = running(place)
    if server is None:
        say(f"no Prometheus of ours runs in {place}")
        raise typer.Exit(ExitCode.FAILED)
    say(f"Prometheus is up at {server['url']}, process {server['pid']}")
    with refusing(ObserveError):
        targets = scraped(server["url"])
        if not targets:
            say("  it scrapes nothing now; a run is found within seconds of the start of its first cell")
        for target in targets:
            labels = target["labels"]
            name = f"{labels['run']} {labels['party']}" if "run" in labels else labels["job"]
            say(f"  {target['health']:<7} {name}  {target['scrapeUrl']}  {target['lastError']}".rstrip())


def _stay(process: "subprocess.Popen[bytes]", message: str) -> None:
    """Report that the server is up, wait for it, and end it on Ctrl-C or SIGTERM."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        say(message)  # from now on the user may press Ctrl-C
        status = process.wait()
        note(f"prometheus ended on its own with status {status}")
        raise typer.Exit(ExitCode.FAILED)
    except KeyboardInterrupt:
        end(process)
        say("Prometheus has ended")
    finally:
        signal.signal(signal.SIGTERM, before)
