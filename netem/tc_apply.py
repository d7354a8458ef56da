"""Applies rules to a device: checks its root qdisc, takes a lease, starts a janitor, and verifies the result."""

import random
from collections.abc import Sequence

from netem import janitor
from netem.errors import ForeignQdisc, ShapingError
from netem.flows import Flow
from netem.lease import Lease, leases
from netem.tc_plan import HANDLE_STEP, commands
from netem.tc_run import execute, qdiscs, remove, root_of

_LOWEST, _HIGHEST = 0x1000, 0xF000


def apply(device: str, flows: Sequence[Flow], run: str, ttl_s: float, *, replace: bool = False) -> Lease:
    """Shape flows that leave through a device.

    Args:
        device: Name of the device.
        flows: Flows from this host.
        run: Owner of the rules.
        ttl_s: Seconds after which any process may remove the rules.
        replace: Whether to replace a foreign root qdisc; it is lost, since it cannot be restored.

    Raises:
        ForeignQdisc: The device has a root qdisc that is not ours; if it belongs to another run, the message names it.
        ShapingError: `tc` failed; rules that were already applied have been removed.
    """
    _clear_the_way(device, replace=replace)
    handle = random.randrange(_LOWEST, _HIGHEST, HANDLE_STEP)  # noqa: S311 - it need not be a secret
    lease = Lease.take(run, device, handle, ttl_s)
    try:
        janitor.ensure()
        for command in commands(device, handle, flows):
            execute(command)
        _read_back(device, handle, len(flows))
    except BaseException:
        remove(lease)
        raise
    return lease


def _clear_the_way(device: str, *, replace: bool) -> None:
    known = leases()  # read before the device, since a janitor removes the rules first and then the lease
    root = root_of(device)
    if root is None:
        raise ShapingError(f"device {device} does not exist; `ip link` lists the existing ones")
    if root.by_default:
        return
    owner = next(
        (lease for lease in known if lease.here and lease.device == device and root.is_ours(lease.handle)), None
    )
    if owner is not None and owner.ended:
        remove(owner)
    elif not replace or owner is not None:
        raise ForeignQdisc(device, root.kind, root.handle, str(owner or ""))
    else:
        execute(("tc", "qdisc", "del", "dev", device, "root"))


def _read_back(device: str, handle: int, flows: int) -> None:
    root = root_of(device)
    children = [qdisc for qdisc in qdiscs(device) if str(qdisc.get("parent", "")).startswith(f"{handle:x}:")]
    if root is None or not root.is_ours(handle) or len(children) != flows:
        raise ShapingError(f"device {device} has {root} and {len(children)} of {flows} links after they were applied")
