"""The board *Hosts*: memory, CPU, GPU and Ray under the parties."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models import units

from dashboards.boards.board import board
from dashboards.boards.look import BAD, GOOD, WARNING, Limit
from dashboards.boards.panels import Facts, Panel, bars, graph, number
from dashboards.boards.queries import Query, rate, series

RAY = (
    "ray_node_cpu_utilization",
    "ray_node_mem_used_host",
    "ray_node_mem_total_host",
    "ray_object_store_memory",
    "ray_actors",
)
"""Metrics that Ray serves itself; they know nothing of our runs, so no variable narrows them down."""

_NO_GPU = "No party uses a GPU, or NVML is not installed"
_NO_RAY = "Prometheus does not scrape Ray"


def hosts() -> Dashboard:
    """The board."""
    purpose = "Memory, CPU and GPU of the parties' hosts, and Ray's own view of its nodes."
    sections = [
        ("Exporters", _exporters()),
        ("Memory", _memory()),
        ("CPU and network", _cpu()),
        ("GPU", _gpu()),
        ("Ray", _ray()),
    ]
    return board("hosts", "mpcache-bench: Hosts", purpose, sections)


def _of(name: str) -> str:
    """A gauge by party, the driver among them, whatever cell runs."""
    return f"max by (party) ({series(f'mpcbench_{name}', party='driver|$party')})"


def _rate(name: str) -> str:
    """How fast a counter grows, by party, the driver among them."""
    return f"max by (party) ({rate(f'mpcbench_{name}', party='driver|$party')})"


def _exporters() -> list[Panel]:
    answers = 'max by (party) (up{run="$run", party=~"driver|$party"})'
    return [
        number(
            Facts(
                title="Who answers",
                question="Is every party there? Whether its exporter answered the last scrape.",
                unit=units.NoUnit,
                queries=[Query(answers, "{{party}}", instant=True)],
                limits=[Limit(1, GOOD)],
                height=6,
            ),
            base=BAD,
            words=[("silent", BAD), ("answers", GOOD)],
        ),
        graph(
            Facts(
                title="Answers over time",
                question="When did a party go? 1 while its exporter answers; its curve ends when it was let go.",
                unit=units.NoUnit,
                queries=[Query(answers, "{{party}}")],
                lowest=0,
                highest=1.2,
                height=6,
            ),
            steps=True,
        ),
    ]


def _memory() -> list[Panel]:
    limit, left = _of("memory_limit_bytes"), _of("memory_available_bytes")
    return [
        bars(
            Facts(
                title="Memory in use on the host",
                question="Is a party about to run out of memory? Share of the limit that is not available any more.",
                unit=units.PercentUnit,
                queries=[Query(f"1 - {left} / {limit}", "{{party}}")],
                limits=[Limit(0.8, WARNING), Limit(0.9)],
                lowest=0,
                highest=1,
                width=8,
            ),
            base=GOOD,
        ),
        graph(
            Facts(
                title="Resident memory",
                question="Which party grows? Resident memory of its process.",
                unit=units.BytesIEC,
                queries=[Query(_of("resident_bytes"), "{{party}}")],
                lowest=0,
                width=8,
            )
        ),
        graph(
            Facts(
                title="Available memory",
                question="How much is left? Before the limit of the host or of the process's cgroup.",
                unit=units.BytesIEC,
                queries=[Query(left, "{{party}}")],
                lowest=0,
                width=8,
            )
        ),
    ]


def _cpu() -> list[Panel]:
    busy = f"{_rate('host_cpu_seconds_total')} / {_of('host_cores')}"
    received = _rate("interface_received_bytes_total")
    return [
        graph(
            Facts(
                title="Cores that a process keeps busy",
                question="How many cores does each party keep busy? CPU seconds in a second.",
                unit=units.Short,
                queries=[Query(_rate("cpu_seconds_total"), "{{party}}")],
                lowest=0,
                width=8,
            )
        ),
        graph(
            Facts(
                title="CPU of the host",
                question="Is a host busy with everything on it? A full one slows its parties down.",
                unit=units.PercentUnit,
                queries=[Query(busy, "{{party}}")],
                limits=[Limit(0.9, WARNING)],
                lowest=0,
                highest=1,
                width=8,
            )
        ),
        graph(
            Facts(
                title="Network of the host",
                question="What do the interfaces carry? The kernel's count: the traffic of others is in it.",
                unit=units.BytesPerSecondSI,
                queries=[
                    Query(_rate("interface_sent_bytes_total"), "{{party}} sends"),
                    Query(received, "{{party}} receives"),
                ],
                lowest=0,
                width=8,
            )
        ),
    ]


def _gpu() -> list[Panel]:
    used = f"{_of('gpu_memory_used_bytes')} / {_of('gpu_memory_limit_bytes')}"
    return [
        bars(
            Facts(
                title="GPU memory in use",
                question="Is a GPU about to run out of memory? Share in use, by all processes.",
                unit=units.PercentUnit,
                queries=[Query(used, "{{party}}")],
                limits=[Limit(0.85, WARNING), Limit(0.95)],
                lowest=0,
                highest=1,
                empty=_NO_GPU,
                width=8,
            ),
            base=GOOD,
        ),
        graph(
            Facts(
                title="GPU memory of the tensors",
                question="How much GPU memory do a party's tensors occupy? Now, and at most so far.",
                unit=units.BytesIEC,
                queries=[
                    Query(_of("gpu_allocated_bytes"), "{{party}}"),
                    Query(_of("gpu_peak_allocated_bytes"), "{{party}}, most"),
                ],
                lowest=0,
                empty=_NO_GPU,
                width=8,
            )
        ),
        graph(
            Facts(
                title="GPU busy",
                question="Does the GPU compute, or does it wait for the network? Share of the time with work on it.",
                unit=units.PercentUnit,
                queries=[Query(_of("gpu_busy_ratio"), "{{party}}")],
                lowest=0,
                highest=1,
                empty=_NO_GPU,
                width=8,
            )
        ),
    ]


def _ray() -> list[Panel]:
    cpu, used, total, store, actors = RAY
    return [
        graph(
            Facts(
                title="CPU of Ray's nodes",
                question="Does Ray see a busy node? Ray reports every 10 s, so short peaks are missing.",
                unit=units.Percent,
                queries=[Query(f"avg by (instance) ({cpu})", "{{instance}}")],
                lowest=0,
                highest=100,
                empty=_NO_RAY,
                width=6,
            )
        ),
        graph(
            Facts(
                title="Memory of Ray's nodes",
                question="Will Ray kill an actor for memory? It does so near the limit of a node.",
                unit=units.PercentUnit,
                queries=[
                    Query(f"max by (instance) ({used}) / max by (instance) ({total})", "{{instance}}"),
                ],
                limits=[Limit(0.95, BAD)],
                lowest=0,
                highest=1,
                empty=_NO_RAY,
                width=6,
            )
        ),
        graph(
            Facts(
                title="Ray's object store",
                question="Is Ray's object store as good as empty? No shares or weights pass through it.",
                unit=units.BytesIEC,
                queries=[Query(f"sum by (instance) ({store})", "{{instance}}")],
                lowest=0,
                empty=_NO_RAY,
                width=6,
            )
        ),
        number(
            Facts(
                title="Ray's actors",
                question="Are all parties alive to Ray? One actor a party; dead ones are those of earlier groups.",
                unit=units.Short,
                queries=[Query(f"sum by (State) ({actors}) > 0", "{{State}}", instant=True)],
                empty=_NO_RAY,
                width=6,
            )
        ),
    ]
