"""`mpcache-bench version`."""

from importlib import metadata

from orchestrator.cli.common import refuse, say


def version() -> None:
    """Print the version."""
    try:
        say(metadata.version("mpcache-bench"))
    except metadata.PackageNotFoundError:
        refuse("mpcache-bench is not installed; run pip install -e . in its folder")
