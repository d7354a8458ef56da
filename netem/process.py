"""Starts programs of this package as child processes."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netem.errors import ShapingError

_ROOT = str(Path(__file__).parent.parent)
_END_S = 5.0


def environment() -> dict[str, str]:
    """The environment of this process, with this package on the Python path."""
    paths = [_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def command(module: str) -> list[str]:
    """The command that runs a module of this package."""
    return [sys.executable, "-m", module]


class Child:
    """A child process that reads one line of JSON and replies with one line of JSON when it is ready.

    The child exits at the end of its standard input, so at the latest when this process exits for any reason.

    Args:
        argv: Command line of the child.
        given: Its first request.

    Attributes:
        pid: Process id of the child.
        answer: Its reply to the first request.

    Raises:
        ShapingError: The child exited without a reply; the message contains the last line of its standard error.
    """

    def __init__(self, argv: list[str], given: Mapping[str, Any]) -> None:
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            start_new_session=True,  # Ctrl-C reaches only this process, which closes the child in order
        )
        self.pid = self._process.pid
        self.answer: dict[str, Any] = self.ask(given)

    def ask(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request and wait for the reply.

        Raises:
            ShapingError: The child exited instead.
        """
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin is not None and stdout is not None and stderr is not None  # noqa: S101, PT018 - for the type checker
        try:
            stdin.write(json.dumps(given) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            last = (stderr.read().strip().splitlines() or ["no message"])[-1]
            self.close()
            raise ShapingError(f"{' '.join(self._process.args[1:])} ended: {last}")  # type: ignore[index, arg-type]
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the child, by SIGKILL if it does not exit within five seconds."""
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
