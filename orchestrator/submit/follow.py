"""Follows the log of a job to its end, across lost connections to the cluster."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

LOST = (OSError, RuntimeError, aiohttp.ClientError)
"""Errors of Ray's client if its server does not answer or gives an unexpected answer."""

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 15.0
_SILENCE_S = 900.0


class JobError(Exception):
    """The job server cannot be reached or does not work as expected; the message names the fix."""


class Continuation:
    """A log that may be read from its beginning several times, written once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._written = 0  # characters
        self._read = 0

    def restart(self) -> None:
        """The next text comes from the beginning of the log again."""
        self._read = 0

    def feed(self, text: str) -> None:
        """Write the part of the next segment of the log that was not written before."""
        start, self._read = self._read, self._read + len(text)
        if self._read > self._written:
            self._write(text[max(0, self._written - start) :])
            self._written = self._read


def follow(client: "JobSubmissionClient", job: str, write: Callable[[str], None], note: Callable[[str], None]) -> str:
    """Write the log of a job until its end; a lost connection is restored and the log continues where it was.

    Args:
        client: Client of the job's cluster.
        job: Submission id.
        write: Takes pieces of the log, in order, none twice.
        note: Takes messages about the connection.

    Returns:
        The last status: `SUCCEEDED`, `FAILED` or `STOPPED`.

    Raises:
        JobError: Nothing was heard of the job for 15 minutes.
    """
    log = Continuation(write)
    wait, heard = _FIRST_WAIT_S, time.monotonic()
    while True:
        try:
            log.restart()
            asyncio.run(_tail(client, job, log))
            status = client.get_job_status(job)
            if status.is_terminal():
                log.restart()
                log.feed(client.get_job_logs(job))  # whatever the stream did not bring
                return str(status.value)
            wait, heard = _FIRST_WAIT_S, time.monotonic()
        except LOST as error:
            if time.monotonic() - heard > _SILENCE_S:
                raise JobError(
                    f"no news of job {job} for {_SILENCE_S:.0f} s ({error}); it may still run: give the same "
                    f"command with --job {job} once its cluster answers"
                ) from error
            note(f"connection lost; trying again in {wait:g} s")
        time.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT_S)


async def _tail(client: "JobSubmissionClient", job: str, log: Continuation) -> None:
    async for text in client.tail_job_logs(job):
        log.feed(text)
