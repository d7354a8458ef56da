"""How the report writes numbers and text."""

import re

_BYTE_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_SPECIAL = re.compile(r"([\\`*_{}\[\]|#~$])")


def digits(value: float | None) -> str:
    """Three significant digits, without an exponent."""
    if value is None:
        return "n/a"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    text = f"{value:.3g}"
    return f"{float(text):.10f}".rstrip("0").rstrip(".") if "e" in text else text


def byte_count(value: float | None) -> str:
    """Bytes in decimal units."""
    if value is None:
        return "n/a"
    for size, unit in _BYTE_UNITS:
        if abs(value) >= size:
            return f"{digits(value / size)} {unit}"
    return f"{digits(value)} B"


def duration(value: float | None) -> str:
    """Seconds, in milliseconds below one."""
    if value is None:
        return "n/a"
    return f"{digits(value * 1e3)} ms" if 0 < abs(value) < 1 else f"{digits(value)} s"


def times(value: float | None) -> str:
    """A ratio."""
    return "n/a" if value is None else f"{value:.2f}x"


def share(value: float | None) -> str:
    """A share of a whole, in per cent."""
    return "n/a" if value is None else f"{100 * value:.0f} %"


def markdown(value: object) -> str:
    """Text escaped for a Markdown table."""
    text = " ".join(str(value).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", text)
