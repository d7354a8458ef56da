"""The board *Hosts*: memory, CPU, GPU and Ray on the hosts of the parties."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models import units

from dashboards.boards.board import board
from dashboards.boards.look import BAD, GOOD, WARNING, Limit
from dashboards.boards.panels import Panel, PanelOptions, bars, graph, number
from dashboards.boards.queries import Query, rate, series

RAY = (
    "ray_node_cpu_utilization",
    "ray_node_mem_used_host",
    "ray_node_mem_total_host",
    "ray_object_store_memory",
    "ray_actors",
)
"""Metrics that Ray serves itself; they carry no label of a run, so no variable filters them."""

_NO_GPU = "No party uses a GPU, or NVML is not installed"
_NO_RAY = "Prometheus does not scrape Ray"


def hosts() -> Dashboard:
    """The board."""
    purpose = "Memory, CPU and GPU of the hosts of the parties, and the metrics of the Ray nodes."
    sections = [
        ("Exporters", _exporters()),
        ("Memory", _memory()),
        ("CPU and network", _cpu()),
        ("GPU and replays", _gpu()),
        ("Ray", _ray()),
    ]
    return board("hosts", "mpcache-bench: Hosts", purpose, sections)


def _of(name: str) -> str:
    """A gauge by party, including the driver, for any cell."""
    return f"max by (party) ({series(f'mpcbench_{name}', party='driver|$party')})"


def _rate(name: str) -> str:
    """The rate of a counter by party, including the driver."""
    return f"max by (party) ({rate(f'mpcbench_{name}', party='driver|$party')})"


def _exporters() -> list[Panel]:
    answers = 'max by (party) (up{run="$run", party=~"driver|$party"})'
    return [
        number(
            PanelOptions(
                title="Exporters up",
                question="Are all parties up? Whether the exporter of each party answered the last scrape.",
                unit=units.NoUnit,
                queries=[Query(answers, "{{party}}", instant=True)],
                limits=[Limit(1, GOOD)],
                height=6,
            ),
            base=BAD,
            words=[("down", BAD), ("up", GOOD)],
        ),
        graph(
            PanelOptions(
                title="Exporters up over time",
                question="When did a party exit? 1 while its exporter answers; the curve ends when its target is "
                "removed.",
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
            PanelOptions(
                title="Host memory in use",
                question="Is a party about to run out of memory? Fraction of the limit that is no longer available.",
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
            PanelOptions(
                title="Resident memory",
                question="Which party grows? Resident set size of its process.",
                unit=units.BytesIEC,
                queries=[Query(_of("resident_bytes"), "{{party}}")],
                lowest=0,
                width=8,
            )
        ),
        graph(
            PanelOptions(
                title="Available memory",
                question="How much memory is left? Up to the limit of the host or of the cgroup of the process.",
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
            PanelOptions(
                title="CPU cores in use by party",
                question="How many cores does each party use? CPU seconds per second.",
                unit=units.Short,
                queries=[Query(_rate("cpu_seconds_total"), "{{party}}")],
                lowest=0,
                width=8,
            )
        ),
        graph(
            PanelOptions(
                title="Host CPU utilisation",
                question="Is a host saturated by all that runs on it? A saturated host slows its parties down.",
                unit=units.PercentUnit,
                queries=[Query(busy, "{{party}}")],
                limits=[Limit(0.9, WARNING)],
                lowest=0,
                highest=1,
                width=8,
            )
        ),
        graph(
            PanelOptions(
                title="Host network traffic",
                question="How much do the interfaces carry? Counted by the kernel, so other traffic is included.",
                unit=units.BytesPerSecondSI,
                queries=[
                    Query(_rate("interface_sent_bytes_total"), "{{party}}, sent"),
                    Query(received, "{{party}}, received"),
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
            PanelOptions(
                title="GPU memory in use",
                question="Is a GPU about to run out of memory? Fraction in use, by all processes.",
                unit=units.PercentUnit,
                queries=[Query(used, "{{party}}")],
                limits=[Limit(0.85, WARNING), Limit(0.95)],
                lowest=0,
                highest=1,
                empty=_NO_GPU,
                width=6,
            ),
            base=GOOD,
        ),
        graph(
            PanelOptions(
                title="GPU memory of tensors",
                question="How much GPU memory do the tensors of a party occupy? Now, and the peak so far.",
                unit=units.BytesIEC,
                queries=[
                    Query(_of("gpu_allocated_bytes"), "{{party}}"),
                    Query(_of("gpu_peak_allocated_bytes"), "{{party}}, peak"),
                ],
                lowest=0,
                empty=_NO_GPU,
                width=6,
            )
        ),
        graph(
            PanelOptions(
                title="GPU utilisation",
                question="Does the GPU compute, or does it wait for the network? Fraction of the time with work on it.",
                unit=units.PercentUnit,
                queries=[Query(_of("gpu_busy_ratio"), "{{party}}")],
                lowest=0,
                highest=1,
                empty=_NO_GPU,
                width=6,
            )
        ),
        graph(
            PanelOptions(
                title="Segments replayed",
                question="Are tokens replayed from recordings? Segments per second that were replayed, as CUDA "
                "graphs on a GPU, and those that were interpreted.",
                unit=units.Short,
                queries=[
                    Query(_rate("replayed_segments_total"), "{{party}}, replayed"),
                    Query(_rate("interpreted_segments_total"), "{{party}}, interpreted"),
                ],
                lowest=0,
                width=6,
            )
        ),
        graph(
            PanelOptions(
                title="Model loaded",
                question="How far is loading? The share of the model's matrices that each party has, meanwhile.",
                unit=units.PercentUnit,
                queries=[Query(_of("loaded_ratio"), "{{party}}")],
                lowest=0,
                highest=1,
                empty="No model is being loaded by the engine fss",
                width=8,
            )
        ),
        graph(
            PanelOptions(
                title="CUDA graphs",
                question="Are graphs captured once and then replayed? Graphs per second; a graph is a stretch of a "
                "segment between two rounds.",
                unit=units.Short,
                queries=[
                    Query(_rate("gpu_graph_replays_total"), "{{party}}, replayed"),
                    Query(_rate("gpu_graph_captures_total"), "{{party}}, captured"),
                ],
                lowest=0,
                empty=_NO_GPU,
                width=8,
            )
        ),
        graph(
            PanelOptions(
                title="GPU time by stage",
                question="What does the GPU of a party compute? Seconds of its graphs per second, by stage, estimated "
                "from one in eight replays.",
                unit=units.PercentUnit,
                queries=[
                    Query(
                        f"sum by (party, stage) ({rate('mpcbench_gpu_kernel_seconds_total')})", "{{party}}, {{stage}}"
                    )
                ],
                lowest=0,
                empty=_NO_GPU,
                width=8,
            )
        ),
    ]


def _ray() -> list[Panel]:
    cpu, used, total, store, actors = RAY
    return [
        graph(
            PanelOptions(
                title="Ray node CPU utilisation",
                question="Is a Ray node saturated? Ray reports every 10 s, so short peaks are missing.",
                unit=units.Percent,
                queries=[Query(f"avg by (instance) ({cpu})", "{{instance}}")],
                lowest=0,
                highest=100,
                empty=_NO_RAY,
                width=6,
            )
        ),
        graph(
            PanelOptions(
                title="Ray node memory in use",
                question="Will Ray kill an actor for lack of memory? It does so near the limit of a node.",
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
            PanelOptions(
                title="Ray object store",
                question="Is the object store of Ray almost empty? Neither shares nor weights pass through it.",
                unit=units.BytesIEC,
                queries=[Query(f"sum by (instance) ({store})", "{{instance}}")],
                lowest=0,
                empty=_NO_RAY,
                width=6,
            )
        ),
        number(
            PanelOptions(
                title="Ray actors",
                question="Are all parties alive in Ray? One actor per party; dead actors belong to earlier groups.",
                unit=units.Short,
                queries=[Query(f"sum by (State) ({actors}) > 0", "{{State}}", instant=True)],
                empty=_NO_RAY,
                width=6,
            )
        ),
    ]
