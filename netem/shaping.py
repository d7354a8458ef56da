"""The entry point that shapes links: chooses a back end and keeps it active while the context is open."""

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

from netem.backends import proxy, relay, tc, unshaped
from netem.backends.request import Paths, Request
from netem.errors import BackendUnavailable, NetemError, ProfileError
from netem.host import LocalSite, Site
from netem.prober import Address, Measured, Plan
from netem.profile import NetworkProfile, Pair
from netem.verify import LinkReading, Tolerance, asked, deviations

_PAUSE_S = 0.5

BACKENDS: Mapping[str, ModuleType] = {"none": unshaped, "proxy": proxy, "tc": tc, "relay": relay}


@dataclass(frozen=True)
class ShapedNetwork:
    """Links that are shaped according to a profile.

    Attributes:
        profile: Requested values; pairs are named after the endpoints.
        backend: `none`, `tc`, `relay` or `proxy`.
        dial: `dial[src][dst]` is the address at which `src` reaches the data port of `dst`.
        details: Facts about the back end for the record, as plain values.
    """

    profile: NetworkProfile
    backend: str
    dial: Mapping[str, Mapping[str, Address]]
    details: Mapping[str, Any]
    _request: Request
    _paths: Paths

    def measure(
        self,
        seconds: float = 0.5,
        *,
        attempts: int = 5,
        tolerance: Tolerance | None = None,
        watch: Callable[[Pair], None] = lambda _: None,
    ) -> dict[Pair, Measured]:
        """Measure every ordered pair in turn, from the host of its source; the links should be idle.

        Args:
            seconds: Minimum time of the throughput measurement per pair; attempt n takes n times as long.
            attempts: How often to measure a pair that is out of tolerance or cannot be probed, with growing pauses: a
                busy machine disturbs some readings, a wrong link all of them. The last reading counts. After a pair
                has failed all attempts, each remaining pair is measured once.
            tolerance: Allowed deviations.
            watch: Called with each pair before each attempt; an exception that it raises ends the measurement.

        Returns:
            A reading of each pair, except unshaped pairs that could not be probed.

        Raises:
            NetemError: A shaped pair could not be probed.
        """
        measured = {}
        for pair in self._request.pairs:
            got, settled = self._settle(pair, seconds, attempts, tolerance, watch)
            if got is not None:
                measured[pair] = got
            if not settled:
                attempts = 1
        return measured

    def _settle(
        self, pair: Pair, seconds: float, attempts: int, tolerance: Tolerance | None, watch: Callable[[Pair], None]
    ) -> tuple[Measured | None, bool]:
        """The last reading of a pair, if there is one, and whether it is within the tolerance."""
        got, failure, began = None, None, time.monotonic()
        for attempt in range(attempts):
            watch(pair)
            time.sleep(_PAUSE_S * attempt)
            plan = self._plan(pair, seconds * (attempt + 1))
            try:
                got = self._measure(pair, plan)
            except NetemError as error:
                failure = error
                if time.monotonic() - began >= plan.limit_s:
                    break  # no response within the limit: not a disturbed reading, so no further attempt
            else:
                if not deviations(self.profile, *pair, got, tolerance):
                    return got, True
        if got is None and failure is not None and asked(self.profile, *pair) is not None:
            raise failure
        return got, False

    def _plan(self, pair: Pair, seconds: float) -> Plan:
        return Plan(self.profile.rtt_ms(*pair) / 1e3, self.profile.link(*pair).rate_mbit, seconds)

    def _measure(self, pair: Pair, plan: Plan) -> Measured:
        host, _ = self._request.endpoints[pair[0]]
        probe = {"seconds": plan.least_s, "rate_mbit": plan.rate_mbit, "limit_s": plan.limit_s}
        return Measured(**self._request.site.call(host, "measure", {"address": self._paths.probe[pair], **probe}))

    def deviations(self, measured: Mapping[Pair, Measured], tolerance: Tolerance | None = None) -> tuple[str, ...]:
        """The deviations from the requested values, as texts; empty if all links are within the tolerance."""
        return tuple(text for pair, got in measured.items() for text in deviations(self.profile, *pair, got, tolerance))

    def readings(
        self, before: Mapping[Pair, Measured] | None = None, after: Mapping[Pair, Measured] | None = None
    ) -> tuple[LinkReading, ...]:
        """One entry per ordered pair, for the record."""
        before, after = before or {}, after or {}
        return tuple(
            LinkReading(
                src, dst, asked(self.profile, src, dst), _plain(before.get((src, dst))), _plain(after.get((src, dst)))
            )
            for src, dst in self._request.pairs
        )


@contextlib.contextmanager
def shape(
    profile: NetworkProfile,
    endpoints: Mapping[str, Address],
    *,
    backend: str = "auto",
    site: Site | None = None,
    run: str = "",
    ttl_s: float = 3600.0,
    replace: bool = False,
    ports: int = 1,
) -> Iterator[ShapedNetwork]:
    """Shape the links between parties according to a profile while the context is open.

    Only TCP connections to and from the given addresses and ports are shaped. Nothing is measured until `measure`.

    Args:
        profile: Requested links; positions in its pairs follow the order of `endpoints`.
        endpoints: Data address, as (IP, port), on which each party listens.
        backend: `auto`, `none`, `tc`, `relay` or `proxy`.
        site: Access to the hosts of the parties; this machine if omitted.
        run: Owner of the links, named in the error messages of other runs.
        ttl_s: Seconds after which any process may remove the rules.
        replace: Whether a foreign root qdisc may be replaced.
        ports: Number of ports per party, starting with the port of its data address: a power of two that divides it.

    Raises:
        ProfileError: The profile names a party that is not among the endpoints, or the back end is unknown.
        BackendUnavailable: No back end, or not the requested one, can shape the links; the message gives the reasons.
        NetemError: Applying the rules failed; rules that were already applied have been removed.
    """
    site = site or LocalSite()
    with _probes(site, endpoints) as probes:
        request = Request(
            profile.named(tuple(endpoints)),
            endpoints,
            probes,
            site,
            run or secrets.token_hex(4),
            ttl_s,
            replace,
            ports,
        )
        name = choose(request, backend)
        with BACKENDS[name].shaped(request) as paths:
            dial = {src: {dst: paths.data[src, dst] for dst in endpoints if dst != src} for src in endpoints}
            yield ShapedNetwork(request.profile, name, dial, paths.details, request, paths)


def choose(request: Request, backend: str = "auto") -> str:
    """The name of the back end to use.

    Raises:
        ProfileError: The name is unknown.
        BackendUnavailable: No back end, or not the requested one, can serve the request.
    """
    if backend not in ("auto", *BACKENDS):
        raise ProfileError("backend", backend, f"one of auto, {', '.join(BACKENDS)}")
    names = tuple(BACKENDS) if backend == "auto" else (backend,)
    reasons = {}
    for name in names:
        reasons[name] = BACKENDS[name].obstacle(request)
        if not reasons[name]:
            return name
    raise BackendUnavailable(reasons)


@contextlib.contextmanager
def _probes(site: Site, endpoints: Mapping[str, Address]) -> Iterator[dict[str, Address]]:
    """A prober on the host of each party."""
    opened: dict[str, Address] = {}
    try:
        for name, (host, _) in endpoints.items():
            host_, port = site.call(host, "probe_open", {"host": host})["address"]
            opened[name] = (host_, port)
        yield opened
    finally:
        for host, port in opened.values():
            with contextlib.suppress(NetemError):
                site.call(host, "probe_close", {"port": port})


def _plain(measured: Measured | None) -> dict[str, Any] | None:
    return None if measured is None else asdict(measured)
