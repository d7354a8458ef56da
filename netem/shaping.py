"""The one call that shapes links: chooses a back end, keeps it at work for as long as the context is open."""

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
from netem.verify import LinkReport, Tolerance, asked, deviations

_PAUSE_S = 0.5

BACKENDS: Mapping[str, ModuleType] = {"none": unshaped, "proxy": proxy, "tc": tc, "relay": relay}


@dataclass(frozen=True)
class ShapedNetwork:
    """Links under a profile.

    Attributes:
        profile: What was asked for; pairs bear the names of the endpoints.
        backend: `none`, `tc`, `relay` or `proxy`.
        dial: `dial[src][dst]` is the address at which `src` reaches the data port of `dst`.
        details: What a record should say of the back end, as plain values.
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
        """Measure every ordered pair, one after the other, each from its source's host; the links should be idle.

        Args:
            seconds: Least time to measure throughput for, per pair; twice, three times ... as long at each new attempt.
            attempts: How often to measure a pair that is off or cannot be probed, with a pause that grows: a busy
                machine spoils a reading now and then, a wrong link spoils them all. The last reading counts. Once a
                pair was off each time, the rest is measured once.
            tolerance: What counts as off.
            watch: Called with each pair before each attempt; what it raises ends the measurement.

        Returns:
            A reading of each pair; without the pairs of which nothing is asked and that could not be probed.

        Raises:
            NetemError: A pair of which something is asked could not be probed.
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
        """The last reading of a pair, if there is one, and whether it is as asked for."""
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
                    break  # it is silent, not spoilt, and has been waited for
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
        """What is not as asked for, in words; empty if all is well."""
        return tuple(text for pair, got in measured.items() for text in deviations(self.profile, *pair, got, tolerance))

    def reports(
        self, before: Mapping[Pair, Measured] | None = None, after: Mapping[Pair, Measured] | None = None
    ) -> tuple[LinkReport, ...]:
        """One entry for each ordered pair, as a record wants it."""
        before, after = before or {}, after or {}
        return tuple(
            LinkReport(
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
    """Have the links between some parties as a profile says, until the context is left.

    Only TCP connections to and from the given addresses and ports are shaped. Nothing is measured until asked.

    Args:
        profile: What the links should be like; positions in its pairs mean the order of `endpoints`.
        endpoints: Data address, as (IP, port), that each party listens on.
        backend: `auto`, `none`, `tc`, `relay` or `proxy`.
        site: Reaches the hosts of the parties; this machine if left out.
        run: Whose links they are; told to others who find them in their way.
        ttl_s: Seconds after which the rules may be removed by anyone.
        replace: Whether a root qdisc that is not ours may be replaced.
        ports: How many ports are each party's, from that of its data address on: a power of two, the first a multiple.

    Raises:
        ProfileError: The profile names a party that is not among the endpoints, or the back end is unknown.
        BackendUnavailable: No back end, or not the one that was named, can do it; the message says why.
        NetemError: Applying failed; what had been applied was taken back.
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
        BackendUnavailable: None, or not this one, can do it.
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
    """A prober beside each party."""
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
