"""Back end `none`: links are not shaped."""

from collections.abc import Iterator
from contextlib import contextmanager

from netem.backends.request import Paths, Request, direct


def obstacle(request: Request) -> str:
    """Why this back end cannot serve the request; empty if it can."""
    return "the profile requests shaped links" if request.profile.shaped else ""


@contextmanager
def shaped(request: Request) -> Iterator[Paths]:
    """Let all parties dial each other directly."""
    yield direct(request)
