"""A cluster as its job server shows it: submit, stop, fetch."""

import logging
import shlex
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

from orchestrator.submit.archive import unpack
from orchestrator.submit.follow import LOST, JobError, follow
from orchestrator.submit.ship import EXPERIMENT, ship

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_RESULTS = "mpcache-bench"  # below the home folder of the user that Ray runs as
_STOP_S = 60  # Ray allows three seconds, too few to end parties and to write what there is
# `submit` reports its own progress; the last two have levels of their own.
_CHATTY = ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
_END_S, _POLL_S = 120.0, 0.5


def connect(address: str) -> "JobSubmissionClient":
    """A client of the job server at an address such as `http://192.0.2.10:8265`.

    Raises:
        JobError: The address is not valid, or no job server answers there, or it requires a token.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient  # seconds to import

    from orchestrator.run.ray_address import token_advice

    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise JobError(
            f"--address {address}: must be a URL such as http://192.0.2.10:8265, Ray's dashboard on the head"
        )
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise JobError(f"--address {address} refuses this user: {token_advice()}") from error
    except LOST as error:
        raise JobError(
            f"--address {address}: no job server answers ({type(error).__name__}); is the head up, its dashboard "
            f"installed (`ray[default]`) and this port open from here?"
        ) from error


def submit(client: "JobSubmissionClient", file: Path) -> str:
    """Ship the code and an experiment, and start its run on the head.

    Returns:
        The submission id.

    Raises:
        JobError: The job cannot be shipped, or the server refused it.
        ConfigError: A prompt file cannot be shipped.
    """
    job = f"mpcache-bench-{uuid4().hex[:12]}"
    run = f"exec python -m orchestrator.cli.main run {EXPERIMENT} --out {_folder(job)}"
    with tempfile.TemporaryDirectory(prefix="mpcache-bench-") as folder:
        ship(file, Path(folder))
        variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_S), "PYTHONUNBUFFERED": "1"}
        try:
            client.submit_job(
                entrypoint=run, submission_id=job, runtime_env={"working_dir": folder, "env_vars": variables}
            )
        except LOST as error:
            raise JobError(f"job {job} was not accepted: {error}") from error
    return job


def require(client: "JobSubmissionClient", job: str) -> None:
    """Raises unless the cluster has a job.

    Raises:
        JobError: There is no such job, or the cluster does not answer.
    """
    if all(known.submission_id != job for known in client.list_jobs()):
        raise JobError(f"--job {job}: the cluster has no such job; `ray job list` lists its jobs")


def exit_status(client: "JobSubmissionClient", job: str) -> int:
    """Exit status of a job's run; 1 if it has none, for example because it was stopped."""
    info = client.get_job_info(job)
    if info.status.value == "SUCCEEDED":
        return 0
    return info.driver_exit_code if info.driver_exit_code and info.driver_exit_code > 0 else 1


def stop(client: "JobSubmissionClient", job: str) -> None:
    """Ask a job to stop and wait for its end.

    Raises:
        JobError: It did not end within two minutes, or the server does not answer.
    """
    try:
        client.stop_job(job)
        deadline = time.monotonic() + _END_S
        while not client.get_job_status(job).is_terminal():
            if time.monotonic() > deadline:
                raise JobError(f"job {job} does not stop; `ray job stop {job}` repeats the request")
            time.sleep(_POLL_S)
    except LOST as error:
        raise JobError(f"job {job} could not be stopped: {error}; `ray job stop {job}` repeats the request") from error


def fetch(client: "JobSubmissionClient", job: str, out: Path) -> list[Path]:
    """Copy the results of a job to `out` by a second job that prints them; no other way into the cluster is needed.

    Returns:
        Paths of the files.

    Raises:
        JobError: The second job failed, as when there are no results.
        ArchiveError: The received archive is damaged.
    """
    try:
        shipped = client.get_job_info(job).runtime_env
        entrypoint = f"exec python -m orchestrator.submit.archive {_folder(job)}"
        second = client.submit_job(entrypoint=entrypoint, runtime_env=shipped)
    except LOST as error:
        raise JobError(f"the results of job {job} cannot be requested: {error}") from error
    log: list[str] = []
    if follow(client, second, log.append, lambda _: None) != "SUCCEEDED":
        raise JobError(f"the results of job {job} cannot be fetched: {''.join(log).strip()[-500:]}")
    return unpack("".join(log).splitlines(), out)


def _folder(job: str) -> str:
    """Folder of a job's results, as a word of a shell on the head."""
    return f'"$HOME"/{_RESULTS}/{shlex.quote(job)}'
