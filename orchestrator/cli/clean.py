"""`mpcache-bench clean`."""

from netem import NetemError
from netem.janitor import clean as remove_ended
from netem.lab import labs
from orchestrator.cli.common import refusing, say
from orchestrator.run.scratch import remove_ended as remove_folders


def clean() -> None:
    """Remove what ended runs left on this machine; what is in use or not ours is left alone."""
    with refusing(NetemError):
        say(*remove_ended(), *remove_folders())
        say(*(f"left lab {lab.id}: still up; `lab down --lab {lab.id}` takes it down" for lab in labs()))
