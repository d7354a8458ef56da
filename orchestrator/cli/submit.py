"""`mpcache-bench submit`."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.common import ExitCode, ExperimentFile, note, refuse


def submit(
    file: ExperimentFile,
    address: Annotated[str, typer.Option(metavar="URL", help="Job server, such as http://192.0.2.10:8265.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the results: records, report.")],
    detach: Annotated[bool, typer.Option("--detach", help="Print the id of the job and leave it alone.")] = False,
    job: Annotated[
        str | None, typer.Option(metavar="ID", help="Submit nothing: follow this job and fetch its results.")
    ] = None,
) -> None:
    """Run the experiment in FILE on a cluster, show its log and fetch its results; the exit status is the run's."""
    from orchestrator.experiment.experiment import load_experiment  # heavier imports wait until they are needed
    from orchestrator.experiment.problems import ConfigError
    from orchestrator.submit import cluster
    from orchestrator.submit.archive import ArchiveError
    from orchestrator.submit.follow import LOST, JobError, follow

    try:
        load_experiment(file)
        client = cluster.connect(address)
        if job is None:
            job = cluster.submit(client, file)
        else:
            cluster.require(client, job)
        note(f"job {job}; --job {job} follows it again")
        if detach:
            return
        try:
            follow(client, job, lambda text: typer.echo(text, nl=False), note)
            status = cluster.exit_status(client, job)
        except KeyboardInterrupt:
            note(f"stopping job {job}")
            cluster.stop(client, job)
            status = ExitCode.INTERRUPTED
    except (ConfigError, JobError, *LOST) as error:
        refuse(error)
    try:
        paths = cluster.fetch(client, job, out)
        note(f"{len(paths)} files fetched to {out}")
    except (ArchiveError, JobError, OSError) as error:
        note(error)
        status = status or ExitCode.FAILED
    raise typer.Exit(status)
