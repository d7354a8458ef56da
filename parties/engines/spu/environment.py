"""The environment of the worker: SPU needs Python 3.11, numpy before 2 and an old jax, so it has one of its own."""

import os
from pathlib import Path

from parties.errors import Unsupported

VARIABLE = "MPCBENCH_SPU"
VERSION = "0.9.5"
_DEFAULT = Path(__file__).parents[3] / ".spu"


def folder() -> Path:
    """The folder of the environment: that of the variable, or `.spu` in the checkout."""
    return Path(os.environ.get(VARIABLE) or _DEFAULT)


def python() -> Path:
    """The environment's interpreter.

    Raises:
        Unsupported: There is none on this host.
    """
    found = folder() / "bin" / "python"
    if not found.exists():
        raise Unsupported(
            f"engine 'spu' needs SecretFlow-SPU {VERSION} in an environment of its own, and {folder()} has none; "
            f"run `make spu` on each party's host, or name the folder of an environment in {VARIABLE}"
        )
    return found
