"""Can the links be made as the cells ask, and by what?"""

from collections.abc import Iterable, Iterator

from netem import BackendUnavailable, NetemError
from orchestrator.doctor.finding import Finding, fine, note, wrong
from orchestrator.experiment.cells import Cell
from orchestrator.experiment.networks import ResolvedNetwork, parse_network
from orchestrator.run.group import data_hosts
from orchestrator.run.links import shaper
from orchestrator.run.placement import Placement

_EXAMPLE = "wan"  # has delay: what `tc` finds hardest
_FIX = (
    "give Ray on each host CAP_NET_ADMIN and a kernel with netem, and each party a host of its own; or run with --lab, "
    "or with all parties on one host; docs/networks.md lists what each back end does"
)


def shaping(cells: Iterable[Cell], placement: Placement) -> Iterator[Finding]:
    """A row for each network that cells ask for; without cells, a note on an example."""
    networks = {(cell.network.name, cell.shaping): cell.network for cell in cells}
    if not networks:
        yield _example(placement)
    for (name, backend), network in networks.items():
        try:
            chosen = shaper(network, backend, data_hosts(placement), placement)
        except BackendUnavailable as error:
            yield wrong("links", name, str(error), _FIX)
        except NetemError as error:
            yield wrong("links", name, str(error), "see that the host is up (`ray status`)")
        else:
            yield fine("links", name, f"by {chosen}" if chosen != "none" else "left as they are")


def _example(placement: Placement) -> Finding:
    network = parse_network(_EXAMPLE)
    assert isinstance(network, ResolvedNetwork)  # noqa: S101 - a preset's name parses to nothing else
    try:
        chosen = shaper(network, "auto", data_hosts(placement), placement)
    except NetemError as error:
        return note("links", _EXAMPLE, str(error))
    return note("links", _EXAMPLE, f"could be made by {chosen}")
