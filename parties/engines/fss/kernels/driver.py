"""CUDA's driver, for what torch has no function for or takes long to do. All calls are on torch's default stream.

The driver is called with the interpreter's lock held, since each of these calls only enqueues.
"""

import ctypes
from functools import cache
from typing import Any

import numpy as np

_GREATER_OR_EQUAL = 0  # CU_STREAM_WAIT_VALUE_GEQ


class DriverRefused(Exception):  # noqa: N818 - named for what happened
    """The driver refused a call: its name and its error."""


def check(name: str, status: int) -> None:
    """Raises an error of the driver, or of NVRTC.

    Raises:
        DriverRefused: The status is not 0.
    """
    if status:
        raise DriverRefused(f"{name}: error {status} of CUDA")


@cache
def driver() -> Any:
    """Returns the driver's library."""
    return ctypes.PyDLL("libcuda.so.1")


def copy(address: int, octets: memoryview) -> None:
    """Enqueues a copy of bytes to the device. They have to stay until the stream has come so far."""
    host = np.frombuffer(octets, np.uint8)
    check("cuMemcpyHtoDAsync", _copy()(address, host.__array_interface__["data"][0], host.size, None))


def wait_for(address: int, number: int) -> None:
    """Lets the stream wait until a number of 64 bits in memory of the host is at least `number`."""
    check("cuStreamWaitValue64", _wait()(None, address, number, _GREATER_OR_EQUAL))


def write(address: int, number: int) -> None:
    """Lets the stream write a number of 64 bits to memory of the host when all before is done."""
    check("cuStreamWriteValue64", _write()(None, address, number, 0))


@cache
def _copy() -> Any:
    function = driver().cuMemcpyHtoDAsync_v2
    function.argtypes = [ctypes.c_uint64, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    return function


@cache
def _wait() -> Any:
    return _on_memory(driver().cuStreamWaitValue64_v2)


@cache
def _write() -> Any:
    return _on_memory(driver().cuStreamWriteValue64_v2)


def _on_memory(function: Any) -> Any:
    function.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint]
    return function
