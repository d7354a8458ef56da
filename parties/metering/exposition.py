"""Prometheus' text format (version 0.0.4), written as fast as Python can: a scrape takes time from the computation."""

from collections.abc import Iterable

from prometheus_client.core import Metric as Family

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def exposition(families: Iterable[Family]) -> bytes:
    """All samples, a line each. Help texts are those of the registry, single lines."""
    lines: list[str] = []
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        lines += (f"# HELP {name} {family.documentation}", f"# TYPE {name} {family.type}")
        for sample in family.samples:
            labels = ",".join([f'{label}="{text.translate(_ESCAPES)}"' for label, text in sample.labels.items()])
            lines.append(f"{sample.name}{{{labels}}} {sample.value}")
    return ("\n".join(lines) + "\n").encode()
