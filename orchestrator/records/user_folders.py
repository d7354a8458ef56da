"""Folders of the user's own, where the XDG base directory specification has them."""

import os
from pathlib import Path


class NoHome(Exception):  # noqa: N818 - named for the condition
    """No home folder is known for this user; the message names the variable to set."""


def user_folder(variable: str, below_home: str) -> Path:
    """The folder `mpcache-bench` below one of XDG's folders; it need not exist.

    Args:
        variable: Environment variable that names XDG's folder.
        below_home: XDG's folder if the variable is not set, relative to the home folder.

    Raises:
        NoHome: Neither the variable nor HOME is set, and the user id has no entry with a home.
    """
    if given := os.environ.get(variable):
        return Path(given) / "mpcache-bench"
    try:
        return Path.home() / below_home / "mpcache-bench"
    except RuntimeError:
        raise NoHome(f"user id {os.getuid()} has no home folder; set HOME, or {variable}, to a folder") from None
