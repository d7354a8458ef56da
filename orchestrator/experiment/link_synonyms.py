"""Names of link quantities in other tools, and the keys that they correspond to here."""

import re

_QUANTITIES = {
    "rate_mbit": ("rate", "bandwidth", "bw", "throughput", "speed", "capacity"),
    "delay_ms": ("delay", "latency", "oneway", "onewaydelay", "owd", "lag"),
    "jitter_ms": ("jitter", "delaystddev"),
    "loss_pct": ("loss", "packetloss", "plr", "drop", "lossrate"),
}
_ROUND_TRIP = ("rtt", "roundtrip", "roundtriptime", "roundtripdelay", "ping")
_TIMES = {"us": 1e-3, "ms": 1.0, "s": 1e3, "sec": 1e3, "seconds": 1e3}
_RATES = {"kbit": 1e-3, "kbps": 1e-3, "mbit": 1.0, "mbits": 1.0, "mbps": 1.0, "gbit": 1e3, "gbits": 1e3, "gbps": 1e3}
_UNITS = {
    "rate_mbit": _RATES,
    "delay_ms": _TIMES,
    "jitter_ms": _TIMES,
    "loss_pct": {"pct": 1.0, "percent": 1.0, "%": 1.0},
}
_MEANINGS = {
    "rate_mbit": "in 10^6 bits per second",
    "delay_ms": "one way, in milliseconds",
    "jitter_ms": "in milliseconds",
    "loss_pct": "in percent",
}
_NUMBER = re.compile(r"([0-9.]+)([a-z%]*)")


def suggestion(key: str, value: object) -> str | None:
    """The suggestion for a key of a link and its value: `rtt_ms`, 40 -> `delay_ms: 20, half the round trip`.

    It includes the value if its unit is known, from the key or from the value itself, such as `20ms`.

    Returns:
        The text; None if the key is not a quantity of a link.
    """
    found = _split(key.lower())
    if found is None:
        return None
    name, unit, half = found
    amount = _amount(value, unit, _UNITS[name])
    if amount is None:
        return f"{name}, {_MEANINGS[name]}{', so half the round trip' if half else ''}"
    return f"{name}: {amount / 2:g}, half the round trip" if half else f"{name}: {amount:g}"


def _split(key: str) -> tuple[str, str, bool] | None:
    """Our key for another one, the unit in its name, and whether it means a round trip."""
    letters = re.sub("[^a-z]", "", key)
    for whole in (letters, letters.removesuffix("s")):
        for name, word, half in _words():
            unit = whole.removeprefix(word)
            seconds = unit != "s" or key.endswith("_s")  # `delays` are not in seconds
            if whole.startswith(word) and seconds and (unit in _UNITS[name] or (word and not unit)):
                return name, unit, half
    return None


def _words() -> list[tuple[str, str, bool]]:
    """Our key, a word for it, and whether that word means a round trip."""
    once = [(name, word, False) for name, words in _QUANTITIES.items() for word in words]
    return once + [("rate_mbit", "", False)] + [("delay_ms", word, True) for word in _ROUND_TRIP]


def _amount(value: object, unit: str, units: dict[str, float]) -> float | None:
    """A value in our unit; None if its own is unknown."""
    found = _NUMBER.fullmatch(str(value).lower().replace(" ", "").replace("/s", ""))
    if found is None or isinstance(value, bool):
        return None
    factor = units.get(found[2] or unit)
    try:
        return None if factor is None else float(found[1]) * factor
    except ValueError:  # several points in one number
        return None
