"""Network profiles: requested rate, delay, jitter and loss for each ordered pair of hosts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from netem.errors import ProfileError

Pair = tuple[str, str]

# A value beyond these bounds is a mistaken unit, not a network. A link at the bounds of rate and delay can still be
# probed; tests/netem/test_proxy.py does so.
_BOUNDS = {
    "rate_mbit": (0.1, 400_000.0),
    "delay_ms": (0.0, 2_000.0),
    "jitter_ms": (0.0, 1_000.0),
    "loss_pct": (0.0, 50.0),
}
_FIELDS = tuple(_BOUNDS)


def _check(name: str, value: object, path: str = "") -> None:
    low, high = _BOUNDS[name]
    if name == "rate_mbit" and value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:  # type: ignore[arg-type, operator]
        unlimited = ", or nothing to leave the rate as it is" if name == "rate_mbit" else ""
        raise ProfileError(path + name, value, f"a number from {low:g} to {high:g}{unlimited}")


@dataclass(frozen=True)
class Link:
    """One direction between two hosts.

    Attributes:
        rate_mbit: Maximum rate in 10^6 bits per second, headers included; None leaves the rate unchanged.
        delay_ms: One-way delay in milliseconds. A round trip takes the delays of both directions.
        jitter_ms: Standard deviation of the delay in milliseconds; packets keep their order.
        loss_pct: Independent packet loss, in percent.
    """

    rate_mbit: float | None = None
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss_pct: float = 0.0

    def __post_init__(self) -> None:
        for name in _FIELDS:
            _check(name, getattr(self, name))
        if self.jitter_ms > self.delay_ms:
            raise ProfileError("jitter_ms", self.jitter_ms, f"at most delay_ms, which is {self.delay_ms:g}")

    @property
    def shaped(self) -> bool:
        """Whether this link requests any change."""
        return self != Link()


@dataclass(frozen=True)
class NetworkProfile:
    """The links between all hosts.

    Attributes:
        name: Name of a preset, or any other name.
        default: The link of every pair that is not in `pairs`.
        pairs: Links by ordered pair (source, destination). Names are those of the endpoints, or their positions
            `0`, `1`, `2`, ... until `named` replaces them.
        source: Source of the values.
    """

    name: str
    default: Link = Link()
    pairs: Mapping[Pair, Link] = field(default_factory=dict)
    source: str = ""

    @property
    def shaped(self) -> bool:
        """Whether any link requests a change."""
        return self.default.shaped or any(link.shaped for link in self.pairs.values())

    def link(self, src: str, dst: str) -> Link:
        """The link from `src` to `dst`."""
        return self.pairs.get((src, dst), self.default)

    def rtt_ms(self, src: str, dst: str) -> float:
        """Round-trip time between two hosts with empty queues, in milliseconds."""
        return self.link(src, dst).delay_ms + self.link(dst, src).delay_ms

    def named(self, names: Sequence[str]) -> Self:
        """The same profile with positions in `pairs` replaced by names.

        Args:
            names: Names in order; position 0 becomes the first.

        Raises:
            ProfileError: A pair names a host that is not among `names`.
        """
        by_position = {str(index): name for index, name in enumerate(names)}
        pairs = {}
        for (src, dst), link in self.pairs.items():
            ends = by_position.get(src, src), by_position.get(dst, dst)
            positional = src.isdigit() and dst.isdigit()
            if unknown := [end for end in ends if end not in names]:
                if positional:
                    continue  # the preset has more hosts than `names`
                raise ProfileError(f"pairs.{src}>{dst}", unknown[0], f"names among {', '.join(names)}")
            pairs[ends] = link
        return replace(self, pairs=pairs)

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any], name: str = "custom") -> Self:
        """Parse a profile of an experiment file.

        Args:
            given: `rate_mbit, delay_ms, jitter_ms, loss_pct`, optionally `name`, and `pairs`, a mapping from
                `client>server` to values that take precedence over the others for that direction.
            name: Name of the profile if `given` has none.

        Raises:
            ProfileError: A key or value is not allowed; the message names it and the allowed values.
        """
        rest = dict(given)
        pairs = rest.pop("pairs", {})
        name = rest.pop("name", name)
        if not isinstance(name, str) or not name:
            raise ProfileError("name", name, "a word")
        if not isinstance(pairs, Mapping):
            raise ProfileError("pairs", pairs, "a mapping from `client>server` to the values of that direction")
        default = _parse_link(rest, "")
        parsed = {_parse_pair(key): _parse_link(value, f"pairs.{key}.", base=default) for key, value in pairs.items()}
        return cls(name, default, parsed, "experiment file")

    def to_mapping(self) -> dict[str, Any]:
        """The profile as plain values; `from_mapping` reads them back."""
        pairs = {f"{src}>{dst}": asdict(link) for (src, dst), link in self.pairs.items()}
        return {"name": self.name, **asdict(self.default), **({"pairs": pairs} if pairs else {})}


def _parse_link(given: object, path: str, base: Link | None = None) -> Link:
    if not isinstance(given, Mapping):
        raise ProfileError(path.rstrip("."), given, f"a mapping with {', '.join(_FIELDS)}")
    for key, value in given.items():
        if key not in _FIELDS:
            allowed = _FIELDS if base else (*_FIELDS, "pairs", "name")
            raise ProfileError(f"{path}{key}", value, f"only the keys {', '.join(allowed)}")
        _check(key, value, path)
    try:
        return replace(base or Link(), **given)
    except ProfileError as error:
        raise ProfileError(path + error.key, error.value, error.allowed) from None


def _parse_pair(key: object) -> Pair:
    src, arrow, dst = str(key).partition(">")
    src, dst = src.strip(), dst.strip()
    if not (arrow and src and dst) or src == dst or ">" in dst:
        raise ProfileError("pairs", key, "two different names with > between them, such as client>server")
    return src, dst
