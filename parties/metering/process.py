"""Memory, CPU time, interface counters and GPU of this process and its host, from the kernel and the GPU driver."""

import ctypes
import gc
import math
import re
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from parties.metering.cgroup import memory
from parties.metering.interfaces import INTERFACES
from parties.metering.nvml import memory_and_busy_share

Reading = tuple[str, float]  # metric, value


def process_readings() -> Iterator[Reading]:
    """The readings that every process of a run serves about itself."""
    process = psutil.Process()
    with process.oneshot():
        cpu = process.cpu_times()
        yield "mpcbench_resident_bytes", process.memory_info().rss
    yield "mpcbench_peak_resident_bytes", peak_resident_bytes()
    yield "mpcbench_cpu_seconds_total", cpu.user + cpu.system
    yield from _host_readings()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # other queries would allocate GPU memory
        yield from _gpu_readings(torch.cuda.current_device())


def peak_resident_bytes() -> float:
    """Peak resident memory of this process, in bytes.

    Unlike `ru_maxrss`, this does not inherit the peak of the parent process.
    """
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found[1]) * 1024 if found else math.nan


def release_memory() -> None:
    """Frees cycles, and returns free memory to the system: glibc keeps what lies below memory that is in use."""
    gc.collect()
    trim_heap()


def keep_what_is_loaded() -> None:
    """Lets collections pass over what there is now, modules for the most part: each takes a tenth of a second less."""
    gc.collect()
    gc.freeze()


def trim_heap() -> None:
    """Returns free memory to the system, but frees no cycles, which takes longer."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other libraries have none
    if trim is not None:
        trim(0)


def _host_readings() -> Iterator[Reading]:
    usable = memory()
    yield "mpcbench_memory_limit_bytes", usable.limit
    yield "mpcbench_memory_available_bytes", usable.available
    cpu = psutil.cpu_times()
    # guest time is part of user time, and waiting for a disk counts as idle
    busy = cpu.user + cpu.nice + cpu.system + cpu.irq + cpu.softirq + cpu.steal
    yield "mpcbench_host_cpu_seconds_total", busy
    yield "mpcbench_host_cores", psutil.cpu_count() or 1
    sent, received = INTERFACES.read()
    yield "mpcbench_interface_sent_bytes_total", sent
    yield "mpcbench_interface_received_bytes_total", received


def _gpu_readings(device: int) -> Iterator[Reading]:
    yield "mpcbench_gpu_allocated_bytes", torch.cuda.memory_allocated()
    yield "mpcbench_gpu_peak_allocated_bytes", torch.cuda.max_memory_allocated()
    found = memory_and_busy_share(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    if found is None:
        return
    used, total, busy = found
    yield "mpcbench_gpu_memory_used_bytes", used
    yield "mpcbench_gpu_memory_limit_bytes", total
    yield "mpcbench_gpu_busy_ratio", busy
