"""Compiles CUDA C with NVRTC, which comes with torch, and launches it through the driver.

Compiled code is kept in the folder of `compiled.code_folder`, by its text, so that another process finds it there.
"""

import ctypes
import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from parties.engines.fss.kernels.compiled import code_folder
from parties.engines.fss.kernels.driver import DriverRefused, check, driver


def bound(text: str, name: str, words: Sequence[int], blocks: int, threads: int) -> Callable[[], None]:
    """Returns what launches a kernel on torch's current stream.

    Args:
        text: CUDA C.
        name: Name of the kernel, `extern "C"`; its only parameter is a structure of `words`.
        words: Words of 64 bits, at least one.
        blocks: Blocks of threads.
        threads: Threads of a block.

    Raises:
        DriverRefused: The text does not compile, or the code cannot be loaded.
    """
    structure = (ctypes.c_int64 * max(1, len(words)))(*words)
    parameters = (ctypes.c_void_p * 1)(ctypes.addressof(structure))
    sizes = (blocks, 1, 1, threads, 1, 1, 0)
    return partial(_launch, _function(text, name), sizes, parameters, structure)


def _launch(function: int, sizes: tuple[int, ...], parameters: Any, _: Any) -> None:
    stream = torch.cuda.current_stream().cuda_stream
    check("cuLaunchKernel", driver().cuLaunchKernel(function, *sizes, ctypes.c_void_p(stream), parameters, None))


@cache
def _function(text: str, name: str) -> Any:
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    code = _code(text, "sm_{}{}".format(*torch.cuda.get_device_capability()))
    check("cuModuleLoadData", driver().cuModuleLoadData(ctypes.byref(module), code))
    check("cuModuleGetFunction", driver().cuModuleGetFunction(ctypes.byref(function), module, name.encode()))
    return function


def _code(text: str, architecture: str) -> bytes:
    """Returns compiled code, from the folder if it is there."""
    folder = code_folder()
    if folder is None:
        return _compiled(text, architecture)
    described = f"{architecture}\n{torch.version.cuda}\n{text}".encode()
    path = folder / "cuda" / f"{hashlib.blake2b(described, digest_size=20).hexdigest()}.cubin"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        code = _compiled(text, architecture)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(code)
    os.replace(file.name, path)  # noqa: PTH105 - at once, since other parties look for it, too
    return code


def _compiled(text: str, architecture: str) -> bytes:
    nvrtc, program, size = _nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    options = [f"--gpu-architecture={architecture}".encode()]
    created = nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"launch.cu", 0, None, None)
    check("nvrtcCreateProgram", created)
    try:
        status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        if status:
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            nvrtc.nvrtcGetProgramLog(program, log)
            raise DriverRefused(f"NVRTC: {log.value.decode(errors='replace')}")
        check("nvrtcGetCUBINSize", nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)))
        code = ctypes.create_string_buffer(size.value)
        check("nvrtcGetCUBIN", nvrtc.nvrtcGetCUBIN(program, code))
        return code.raw
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


@cache
def _nvrtc() -> Any:
    """NVRTC of the CUDA version that torch was built for: where the loader finds it, or in torch's wheels."""
    name = f"libnvrtc.so.{(torch.version.cuda or '').partition('.')[0]}"
    wheels = Path(torch.__file__).parent.parent
    for place in (name, *map(str, sorted(wheels.glob(f"nvidia/*/lib/{name}")))):
        try:
            return ctypes.CDLL(place)
        except OSError:
            continue
    raise DriverRefused(f"{name} was not found; it comes with torch's wheels for CUDA")
