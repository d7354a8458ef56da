"""Recordings for a GPU whose generated kernels are compiled for the host, where one thread runs them."""

import ctypes
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parties.engines.fss.recording.cuda_source import kernel
from parties.engines.fss.recording.launches import launches
from parties.engines.fss.recording.memory import Arena, Buffer, View, plan
from parties.engines.fss.recording.notes import Note
from parties.engines.fss.recording.tape import place_kept, readable
from parties.engines.fss.recording.tracer import Tracer
from parties.engines.fss.replay import graphs

PRELUDE = """
#include <algorithm>
#define __global__
#define WARP 1
#define EVERY 0
static const struct { unsigned x; } threadIdx{0}, blockIdx{0}, blockDim{1}, gridDim{1};
template <class T> void atomicAdd(T *to, T number) { *to += number; }
template <class T> void atomicMax(T *to, T number) { *to = std::max(*to, number); }
template <class T> void atomicMin(T *to, T number) { *to = std::min(*to, number); }
template <class T> T __shfl_xor_sync(int, T number, int) { return number; }
template <class T> T __shfl_up_sync(int, T number, int) { return number; }
template <class T> T __shfl_sync(int, T number, int) { return number; }
static int __syncthreads_or(int number) { return number; }
static void __syncthreads() {}
"""


class _Host(graphs._Memory):
    """Memory that kernels read and write where it is, as they do pinned memory."""

    def _place(self, buffer: Buffer) -> tuple[torch.UntypedStorage, int]:
        return super()._place(buffer) if buffer.storage is None else (buffer.storage, 0)


class HostKernels:
    """Compiles kernels into a folder, once each."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._compiled = folder, cache(self._library)

    def replayed(self, program: Callable[[], list[Tensor]], change: Callable[[], None]) -> tuple[list[Tensor], bool]:
        """Records a program, changes its inputs, and runs the recording.

        Returns:
            Its results, and whether an index was outside its dimension.
        """
        wrong = torch.zeros(1, dtype=torch.int64)

        def make(tapes: list[list[Note]], keep: list[tuple[View, Tensor]], arena: Arena) -> list[Tensor]:
            launched = [launch for tape in tapes for launch in launches(tape)]
            kept = torch.empty(place_kept([view.buffer for view, _ in keep]), dtype=torch.uint8)
            arena.reserve(plan([launch.buffers for launch in launched]))
            memory, results = _Host(kept, arena.memory), [readable(view, tensor, kept) for view, tensor in keep]
            change()
            for launch in launched:
                if launch.is_call:
                    memory.call(launch.notes[0])()  # type: ignore[arg-type]
                    continue
                made = kernel(launch, graphs.outside(wrong))
                words = memory.words(made)
                self._compiled(made.text).run((ctypes.c_int64 * max(1, len(words)))(*words))
            return results

        with Tracer() as tracer:
            traced = program()
        found: list[Tensor] = tracer.finish(traced, Arena(), make)
        return found, bool(wrong)

    def _library(self, text: str) -> Any:
        number = len(list(self._folder.iterdir()))
        source, library = self._folder / f"{number}.cpp", self._folder / f"{number}.so"
        by_reference = text.replace("run(const Words p)", "run(const Words &p)")
        source.write_text(PRELUDE + by_reference)
        subprocess.run(["g++", "-O1", "-w", "-shared", "-fPIC", source, "-o", library], check=True)
        return ctypes.CDLL(str(library))
