"""Back end `none`: links as they are."""

from collections.abc import Iterator
from contextlib import contextmanager

from netem.backends.request import Paths, Request, direct


def obstacle(request: Request) -> str:
    """Why this back end cannot do what is asked; empty if it can."""
    return "the profile asks for shaped links" if request.profile.shaped else ""


@contextmanager
def shaped(request: Request) -> Iterator[Paths]:
    """Everyone dials everyone directly."""
    yield direct(request)
