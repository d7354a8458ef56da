"""Reads safetensors files, and finds out what a file is that cannot be read."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from parties.errors import ModelError
from parties.text_file import LFS_POINTER, is_lfs_pointer

_FLOATS = ("F64", "F32", "F16", "BF16")
_LONGEST_HEADER = 10**8  # bytes, the limit of the library
_PAGE = (b"<!doctype", b"<html", b"<?xml")


def read_shapes(path: Path) -> dict[str, list[int]]:
    """The shape of each tensor of a file, by name; reads its header only.

    Raises:
        ModelError: The file cannot be read.
    """
    with _open(path) as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - not a mapping


def read_tensor(path: Path, name: str) -> Tensor:
    """One tensor of a file, with the type that it is stored in.

    Raises:
        ModelError: The file cannot be read, or the tensor is not of floating-point numbers.
    """
    with _open(path) as file:
        kind = file.get_slice(name).get_dtype()
        if kind not in _FLOATS:
            raise ModelError(
                f"{path}: tensor {name} is {kind}; supported: {', '.join(_FLOATS)}; save the model with one of them "
                f"(a quantised one with model.dequantize())"
            )
        tensor: Tensor = file.get_tensor(name)
        return tensor


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ModelError(_explain(path, error)) from error


def _explain(path: Path, error: Exception) -> str:
    """The reason why a file cannot be read, and the fix."""
    if is_lfs_pointer(path):
        return f"{path}: {LFS_POINTER}"
    if not path.exists():
        lost = "is a link to a file that is not there" if path.is_symlink() else "is missing"
        return f"{path} {lost}; the download is not complete: fetch it again"
    try:
        with path.open("rb") as file:
            start, size = file.read(100), path.stat().st_size
        if start.lstrip().lower().startswith(_PAGE):
            return f"{path} is a web page, such as one that asks to log in, not the file itself; fetch it again"
        needed = _needed(path)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return f"{path} cannot be read as safetensors ({error}); it is corrupt: fetch it again"
    if size < needed:
        return f"{path} is truncated: it has {size:,} of at least {needed:,} bytes; fetch it again"
    return f"{path} cannot be read as safetensors ({error}); it is corrupt: fetch it again"


def _needed(path: Path) -> int:
    """The number of bytes of a file, as far as it has a header that says so.

    Raises:
        ValueError: The file has no such header.
    """
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if length > _LONGEST_HEADER:
            raise ValueError("not a header")
        header = file.read(length)
    if len(start) < 8 or len(header) < length:
        return 8 + max(1, length)
    places = [tensor["data_offsets"] for name, tensor in json.loads(header).items() if name != "__metadata__"]
    return 8 + length + max(int(end) for _, end in places)
