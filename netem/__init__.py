"""Emulated links between parties: requested by a profile, applied by a back end, verified by measurement, and removed.

Usage::

    from netem import NetworkProfile, preset, shape

    profile = preset("wan")                         # or NetworkProfile.from_mapping({"rate_mbit": 400, "delay_ms": 20})
    endpoints = {"client": ("127.0.0.1", 7001), "server": ("127.0.0.1", 7002)}      # where the parties listen
    with shape(profile, endpoints) as network:
        network.dial["client"]["server"]                          # what the client dials to reach the server
        before = network.measure()                                # {("client", "server"): Measured(...), ...}
        if wrong := network.deviations(before): ...               # texts; empty within the tolerance
        ...                                                       # the work
        after = network.measure()
        network.readings(before, after)                           # LinkReading(src, dst, asked, measured_before, ...)
        network.backend, network.details                          # for the record

`preset("none")` is a profile that requests nothing: links are not shaped, but can still be measured. `shape` needs a
`Site` to reach parties on other hosts; a `Site` only has to forward `HostService.perform(verb, given)` to a process on
each host. On a host of a lab, `netem.lab.attached()` is the site; close it with `disconnect`.

All errors are `NetemError`s whose message names the value at fault: `ProfileError` (an invalid value),
`BackendUnavailable` (no back end can shape these links, and why), `ForeignQdisc`, `ShapingError` (tc or a process
failed), `ProbeError` (no measurement). `netem.janitor.clean()` removes the rules of ended runs.
"""

from netem.errors import BackendUnavailable, ForeignQdisc, NetemError, ProbeError, ProfileError, ShapingError
from netem.host import HostService, LocalSite, Site
from netem.presets import preset, presets
from netem.prober import Address, Measured, ProbeServer, measure_link
from netem.profile import Link, NetworkProfile, Pair
from netem.shaping import ShapedNetwork, shape
from netem.verify import LinkReading, Tolerance

__all__ = [
    "Address",
    "BackendUnavailable",
    "ForeignQdisc",
    "HostService",
    "Link",
    "LinkReading",
    "LocalSite",
    "Measured",
    "NetemError",
    "NetworkProfile",
    "Pair",
    "ProbeError",
    "ProbeServer",
    "ProfileError",
    "ShapedNetwork",
    "ShapingError",
    "Site",
    "Tolerance",
    "measure_link",
    "preset",
    "presets",
    "shape",
]
