"""Starting a program of this package in a process of its own."""

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
    """Our environment, with this package on the Python path."""
    paths = [_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def command(module: str) -> list[str]:
    """How to run a module of this package."""
    return [sys.executable, "-m", module]


class Child:
    """A running program that was told what to do in one line of JSON and answered with one when it was ready.

    It ends when its standard input ends, so at the latest with us, however we end.

    Args:
        argv: The program.
        given: What it is told.

    Attributes:
        pid: Its process id.
        answer: What it said when it was ready.

    Raises:
        ShapingError: It ended without an answer; the message holds its last line.
    """

    def __init__(self, argv: list[str], given: Mapping[str, Any]) -> None:
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            start_new_session=True,  # a Ctrl-C is for us, and we end it in order
        )
        self.pid = self._process.pid
        self.answer: dict[str, Any] = self.ask(given)

    def ask(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Send one line and wait for the answer.

        Raises:
            ShapingError: It ended instead.
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
        """End it; by force if it does not listen."""
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
