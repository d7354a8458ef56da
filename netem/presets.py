"""Named networks, each with the publication or measurement that is the source of its values."""

from collections.abc import Sequence

from netem.errors import ProfileError
from netem.profile import Link, NetworkProfile, Pair

_HPMPC = "HPMPC, measurements/network_shaping/{}.json: pings and throughputs measured between four hosts"


def _uniform(name: str, rate_mbit: float, rtt_ms: float, source: str) -> NetworkProfile:
    return NetworkProfile(name, Link(rate_mbit=rate_mbit, delay_ms=rtt_ms / 2), source=source)


def _matrix(
    name: str, rtt_ms: Sequence[Sequence[float]], rate_mbit: Sequence[Sequence[float]], source: str
) -> NetworkProfile:
    """A profile from a measurement: row i holds the values from host i to the other hosts, in order."""
    pairs: dict[Pair, Link] = {}
    for src, (rtts, rates) in enumerate(zip(rtt_ms, rate_mbit, strict=True)):
        others = (dst for dst in range(len(rtt_ms)) if dst != src)
        for dst, rtt, rate in zip(others, rtts, rates, strict=True):
            pairs[str(src), str(dst)] = Link(rate_mbit=rate, delay_ms=rtt / 2)
    return NetworkProfile(name, pairs=pairs, source=source)


_ALL = (
    NetworkProfile("none", source="links are not shaped"),
    _uniform("lan", 3000, 0.8, "usual LAN of two-party inference papers: 3 Gbit/s, 0.8 ms RTT"),
    _uniform("wan", 400, 40, "usual WAN of two-party inference papers, CryptoMoE among them: 400 Mbit/s, 40 ms RTT"),
    _uniform("wan-1g-10ms", 1000, 10, "POST (ICML 2025) and PermLLM: 1 Gbit/s, 10 ms RTT"),
    _uniform("wan-100m-80ms", 100, 80, "slow WAN of two-party inference papers: 100 Mbit/s, 80 ms RTT"),
    _uniform("puma", 5000, 1, "PUMA (2023), GPT-2 and LLaMA-7B: 5 Gbit/s, 1 ms RTT"),
    _uniform("mp-spdz-wan", 100, 100, "MP-SPDZ (CCS 2020): 100 Mbit/s, 100 ms RTT"),
    _uniform("cheetah-wan", 352, 40, "Cheetah (USENIX Security 2022): 44 MB/s, 40 ms RTT"),
    _matrix(
        "hpmpc-lan",
        [[0.304, 0.302, 0.291], [0.295, 0.285, 0.267], [0.304, 0.296, 0.178], [0.296, 0.265, 0.178]],
        [[4880, 4870, 4890], [4940, 4920, 4940], [4790, 4800, 4810], [4900, 4890, 4910]],
        _HPMPC.format("LAN"),
    ),
    _matrix(
        "hpmpc-cman",
        [[2.318, 1.244, 1.432], [2.394, 1.088, 2.020], [1.232, 1.091, 1.883], [1.418, 2.054, 1.892]],
        [[137, 1532, 417], [139, 1144, 312], [1550, 1023, 602], [444, 389, 609]],
        _HPMPC.format("CMAN"),
    ),
    _matrix(
        "hpmpc-mixed",
        [
            [288.559, 89.244, 194.322],
            [291.132, 32.761, 204.447],
            [81.114, 35.041, 122.331],
            [193.446, 209.191, 127.073],
        ],
        [[113, 698, 271], [114, 875, 205], [681, 869, 582], [276, 207, 540]],
        _HPMPC.format("Mixed"),
    ),
    _matrix(
        "hpmpc-wan1",
        [
            [192.586, 49.311, 111.300],
            [186.628, 32.764, 164.242],
            [44.119, 34.772, 124.315],
            [103.893, 174.102, 120.835],
        ],
        [[143, 774, 541], [149, 868, 285], [790, 866, 201], [544, 260, 198]],
        _HPMPC.format("WAN1"),
    ),
    _matrix(
        "hpmpc-wan2",
        [
            [91.451, 258.290, 276.367],
            [91.434, 165.687, 196.220],
            [253.818, 165.691, 101.163],
            [276.253, 196.132, 112.510],
        ],
        [[320, 121, 110], [341, 180, 154], [115, 186, 270], [109, 155, 271]],
        _HPMPC.format("WAN2"),
    ),
    _matrix(
        "three-continents",
        [[90, 160], [90, 230], [160, 230]],
        [[300, 150], [300, 100], [150, 100]],
        "ours: round trips typical between data centres in Europe (0), North America (1) and East Asia (2)",
    ),
)
_BY_NAME = {profile.name: profile for profile in _ALL}


def presets() -> tuple[NetworkProfile, ...]:
    """All presets; presets with pairs name them by position (see `NetworkProfile.named`)."""
    return _ALL


def preset(name: str) -> NetworkProfile:
    """The preset of that name.

    Raises:
        ProfileError: There is no such preset; the message lists all presets.
    """
    if name not in _BY_NAME:
        raise ProfileError("network", name, f"one of {', '.join(_BY_NAME)}, or a mapping of values")
    return _BY_NAME[name]
