"""The links of an experiment: a preset or custom values, resolved for every ordered pair of parties."""

import copy
from collections.abc import Mapping
from dataclasses import asdict
from itertools import permutations
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from netem import Link, NetworkProfile, ProfileError, preset, presets
from orchestrator.experiment.link_synonyms import suggestion
from orchestrator.experiment.problems import Problem, Rejected, closest

ROLES = ("client", "server", "dealer")
"""The parties with shaped links, in the order of a preset's positions; the referee is not part of the protocol."""

_KEYS = ("rate_mbit", "delay_ms", "jitter_ms", "loss_pct", "pairs", "name", "tls")
_TLS = "+tls"


class ResolvedNetwork(BaseModel):
    """The links of a cell: one for every ordered pair of its parties, and TLS; its JSON is part of the cell's id.

    A `NetworkProfile` is what it is resolved from: a default link, and others for some pairs of any hosts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="`none`, a preset, or a name of your own.")
    pairs: dict[str, Link] = Field(
        default={},
        description="`rate_mbit, delay_ms, jitter_ms, loss_pct` by ordered pair, such as `client>server`; "
        "empty where the links are left as they are.",
    )
    tls: bool = Field(
        default=False, description="Whether the parties use TLS, each with a certificate from the run's authority."
    )

    def link(self, src: str, dst: str) -> Link:
        """The link from one role to another."""
        return self.pairs.get(f"{src}>{dst}", Link())

    def profile(self) -> NetworkProfile:
        """The links as `netem` takes them."""
        return NetworkProfile.from_mapping(self.model_dump(exclude={"tls"}))

    @model_serializer(mode="wrap")
    def _as_before(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `tls` where it is off, so that cells of earlier versions keep their ids."""
        values: dict[str, Any] = serialise(self)
        return values if self.tls else {key: value for key, value in values.items() if key != "tls"}


def parse_network(given: object) -> object:
    """A network from an experiment file: a preset's name, or a mapping of values (`NetworkProfile.from_mapping`).

    `tls: true` among the values, or `+tls` behind a preset's name, makes the parties use TLS.

    Raises:
        Rejected: With every problem of a mapping.
    """
    if isinstance(given, ResolvedNetwork):
        return given
    if isinstance(given, str):
        plain = given.removesuffix(_TLS)
        network = _resolved(_preset(given))
        return network if plain == given else network.model_copy(update={"name": given, "tls": True})
    if not isinstance(given, dict):
        fix = "write none, a preset, or {name: NAME, rate_mbit: 400, delay_ms: 20}"
        raise Rejected(Problem("", given, "a name or a mapping of values", fix))
    tls = given.get("tls", False)
    if not isinstance(tls, bool):
        raise Rejected(Problem("tls", tls, "true or false", "correct the value, or take it out"))
    values = {key: value for key, value in given.items() if key != "tls"}
    network = _resolved(_custom(values)).model_copy(update={"tls": tls})
    if network.name.removesuffix(_TLS) in _preset_names() and network != parse_network(network.name):
        raise Rejected(
            Problem("name", network.name, "a name that no preset has", "choose another name for your values")
        )
    return network


def _preset(given: str) -> NetworkProfile:
    """The preset of a name with or without `+tls`."""
    try:
        return preset(given.removesuffix(_TLS))
    except ProfileError as error:
        name, plus, _ = given.partition("+")
        match = closest(name, _preset_names())
        fix = f"write {match}{_TLS if plus else ''}" if match else "write one of these, or a mapping of values"
        raise Rejected(Problem("", given, f"{error.allowed}; +tls behind a name adds TLS", fix)) from None


def _preset_names() -> list[str]:
    return [profile.name for profile in presets()]


def _custom(given: Mapping[str, Any]) -> NetworkProfile:
    """A custom profile; retries without each invalid value to find all of them."""
    rest, problems = copy.deepcopy(dict(given)), []
    while True:
        try:
            profile = NetworkProfile.from_mapping(rest).named(ROLES)
        except ProfileError as error:
            unknown = error.key in rest and error.key not in _KEYS  # netem would not list tls, which is ours
            allowed = f"only the keys {', '.join(_KEYS)}" if unknown else error.allowed
            problems.append(Problem(error.key, error.value, allowed, _fix(error.key, error.value)))
            if not _drop(rest, error.key):
                break
        else:
            break
    if problems:
        raise Rejected(*problems)
    return profile


def _fix(path: str, value: object) -> str:
    """The fix for a link value that is not allowed."""
    key = path.rpartition(".")[2]
    if key not in _KEYS:
        write = suggestion(key, value) or closest(key, _KEYS)
    elif isinstance(value, str):  # such as `20ms`
        write = suggestion(key, value)
    else:
        write = None
    return f"write {write}" if write else "correct the value, or take it out"


def _drop(values: dict[str, Any], path: str) -> bool:
    """Takes out the value at a path such as `pairs.client>server.rate_mbit`; False if there is none."""
    *above, last = path.split(".")
    inner: Any = values
    for step in above:
        inner = inner.get(step) if isinstance(inner, dict) else None
    return isinstance(inner, dict) and inner.pop(last, inner) is not inner


def _resolved(profile: NetworkProfile) -> ResolvedNetwork:
    named = profile.named(ROLES)
    pairs = permutations(ROLES, 2) if named.shaped else ()
    links = {f"{src}>{dst}": asdict(named.link(src, dst)) for src, dst in pairs}
    return ResolvedNetwork.model_validate({"name": named.name, "pairs": links})  # whole numbers become floats
