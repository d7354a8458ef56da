"""Putting rules on a device: the way cleared, a lease taken, a janitor watching, the result read back."""

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
        device: Its name.
        flows: All from this host.
        run: Whose they are.
        ttl_s: Seconds after which anyone may remove the rules.
        replace: Whether to replace a root qdisc that someone put there; it is lost then, for we do not know how to make
            it again.

    Raises:
        ForeignQdisc: There is a root qdisc that is not ours; if another run's, the message names it.
        ShapingError: tc failed. What it had done was taken back.
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
    known = leases()  # before the device is looked at: a janitor takes the rules off first, then the lease
    root = root_of(device)
    if root is None:
        raise ShapingError(f"device {device} is not there; `ip link` lists those that are")
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
