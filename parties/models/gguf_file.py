"""Parses the header of a GGUF file: its metadata and the location of its tensors, but not the tensors.

A split model is read from its first part, which holds the metadata; llama.cpp's tools name the parts
`NAME-00001-of-00003.gguf` and so on.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little endian.
"""

import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, TypeVar

import gguf
import numpy as np
import torch
from torch import Tensor

from parties.errors import ModelError
from parties.text_file import LFS_POINTER, is_lfs_pointer

T = TypeVar("T")

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MOST_DIMENSIONS = 4  # ggml's
_LONGEST_NAME = 64  # ggml's limit for names of tensors; a damaged one may have megabytes


@dataclass(frozen=True)
class GgufTensor:
    """Location of a tensor.

    Attributes:
        path: Path of the file: the model's, or one of its parts.
        shape: Shape in the order of numpy: [out, in] for a matrix.
        kind: Quantisation type.
        start: Offset of the first byte in the file.
        size: Size in bytes.
    """

    path: Path
    shape: tuple[int, ...]
    kind: gguf.GGMLQuantizationType
    start: int
    size: int


@dataclass(frozen=True)
class GgufFile:
    """The header of a GGUF file, and those of all other parts of a split model.

    Attributes:
        path: Path of the file, or of the first part.
        facts: Metadata by key.
        tensors: Location of each tensor by name.
    """

    path: Path
    facts: dict[str, Any]
    tensors: dict[str, GgufTensor]

    def read(self, name: str) -> Tensor:
        """One tensor, dequantised to float32.

        Raises:
            ModelError: The file has no such tensor, or its quantisation is not supported.
        """
        if name not in self.tensors:
            raise ModelError(
                f"{self.path}: tensor {name} is missing; the file is incomplete or belongs to another model"
            )
        tensor = self.tensors[name]
        try:
            raw = np.fromfile(tensor.path, dtype=np.uint8, count=tensor.size, offset=tensor.start)
            rows = raw.reshape(*tensor.shape[:-1], -1)
            with np.errstate(all="ignore"):  # NaN is detected when all weights are checked
                numbers = gguf.dequantize(rows, tensor.kind).astype(np.float32).reshape(tensor.shape)
        except (NotImplementedError, ValueError, OSError) as error:
            raise ModelError(
                f"{tensor.path}: tensor {name} ({tensor.kind.name}) cannot be unpacked: {error}"
            ) from error
        return torch.from_numpy(numbers)


def read_header(path: Path) -> GgufFile:
    """Reads the header of a GGUF file and checks that every tensor lies inside its file.

    Args:
        path: The file, or the first part of a split model.

    Raises:
        ModelError: A file is missing, not GGUF, corrupt or truncated, a Git LFS pointer, or quantised in a way that the
            package `gguf` cannot unpack; or the file is not the first part of its model.
    """
    first = _read_one(path)
    number, count = _part(first)
    if count == 1:
        return first
    if number:
        raise ModelError(f"{path} is part {number + 1} of {count} of a split model; name its first part instead")
    tensors = dict(first.tensors)
    for index in range(1, count):
        part = _read_one(_sibling(path, index, count))
        if _part(part) != (index, count):
            raise ModelError(f"{part.path} is not part {index + 1} of {count}, as its name says; fetch the parts again")
        if twice := tensors.keys() & part.tensors.keys():
            raise ModelError(f"{part.path} repeats tensor {min(twice)} of another part; fetch the parts again")
        tensors |= part.tensors
    if len(tensors) != first.facts.get("split.tensors.count", len(tensors)):
        raise ModelError(f"{path}: its parts do not have the number of tensors that it names; fetch the parts again")
    return GgufFile(path, first.facts, tensors)


def _read_one(path: Path) -> GgufFile:
    """The header of one file.

    Raises:
        ModelError: See `read_header`.
    """
    if is_lfs_pointer(path):
        raise ModelError(f"{path}: {LFS_POINTER}")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            parsed = _Parser(data, path).parse()
    except (OSError, ValueError) as error:  # mmap: an empty file is a ValueError
        raise ModelError(f"cannot read {path} as GGUF: {error}; it is corrupt or truncated: fetch it again") from error
    return parsed


class _Parser:
    """Parses the bytes of a header; raises `ValueError` if they are inconsistent with the file."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0

    def parse(self) -> GgufFile:
        if self.data[:4] != b"GGUF":
            raise ValueError("it does not begin with the bytes GGUF")
        self.at = 4
        if (version := self.number("I")) not in (2, 3):
            raise ValueError(f"format version {version}; supported: 2 and 3, little endian")
        n_tensors, n_facts = self.number("Q"), self.number("Q")
        facts = _unique((self.string(), self.value(self.number("I"))) for _ in range(n_facts))
        places = _unique((self.string(), self.place()) for _ in range(n_tensors))
        step = facts.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
        if type(step) is not int or step < 1:
            raise ValueError(f"general.alignment is {step!r}; it must be a positive whole number")
        first = -(-self.at // step) * step
        kinds = {name: _kind(self.path, name, code) for name, (_, code, _) in places.items()}
        tensors = {
            name: self.tensor(name, shape, kinds[name], first + offset) for name, (shape, _, offset) in places.items()
        }
        return GgufFile(self.path, facts, tensors)

    def number(self, code: str) -> Any:
        size = struct.calcsize(f"<{code}")
        if size > len(self.data) - self.at:
            raise ValueError(f"its header extends beyond its last byte, {len(self.data)}")
        (value,) = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at += size
        return value

    def string(self) -> str:
        length = self.number("Q")
        if length > len(self.data) - self.at:
            raise ValueError(f"a string of {length} bytes at byte {self.at} of {len(self.data)}")
        text = self.data[self.at : self.at + length].decode("utf-8")
        self.at += length
        return text

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            inner, length = self.number("I"), self.number("Q")
            if inner == _ARRAY:
                raise ValueError(f"an array of arrays at byte {self.at}, which no supported model has")
            return [self.value(inner) for _ in range(length)]
        if kind not in _SCALARS:
            raise ValueError(f"unknown value type {kind} at byte {self.at}")
        return self.number(_SCALARS[kind])

    def place(self) -> tuple[tuple[int, ...], int, int]:
        """Shape in the order of numpy, quantisation type, and offset from the first tensor."""
        dimensions = self.number("I")
        if not 0 < dimensions <= _MOST_DIMENSIONS:
            raise ValueError(f"a tensor of {dimensions} dimensions at byte {self.at}")
        shape = tuple(self.number("Q") for _ in range(dimensions))
        return shape[::-1], self.number("I"), self.number("Q")

    def tensor(self, name: str, shape: tuple[int, ...], kind: gguf.GGMLQuantizationType, start: int) -> GgufTensor:
        per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        if min(shape) < 1 or shape[-1] % per_block:
            raise ValueError(f"tensor {name} has the shape {shape}, in blocks of {per_block}")
        size = math.prod(shape) // per_block * block_bytes
        if start + size > len(self.data):
            raise ValueError(f"tensor {name} ends at byte {start + size} of {len(self.data)}")
        return GgufTensor(self.path, shape, kind, start, size)


def _unique(pairs: Iterator[tuple[str, T]]) -> dict[str, T]:
    """Pairs as a dictionary.

    Raises:
        ValueError: A name occurs twice.
    """
    found: dict[str, T] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"it names {name[:_LONGEST_NAME]!r} twice")
        found[name] = value
    return found


def _part(file: GgufFile) -> tuple[int, int]:
    """The number of a part, from 0, and of all parts.

    Raises:
        ModelError: They are not numbers that fit together.
    """
    number, count = file.facts.get("split.no", 0), file.facts.get("split.count", 0) or 1
    if type(number) is not int or type(count) is not int or not 0 <= number < count:
        raise ModelError(f"{file.path}: split.no is {number!r} and split.count {count!r}; fetch the file again")
    return number, count


def _sibling(first: Path, index: int, count: int) -> Path:
    """The path of another part of a split model.

    Raises:
        ModelError: The first part does not have the usual name, or the other one is missing.
    """
    end = "-{:05}-of-{:05}.gguf"
    name = first.name.removesuffix(end.format(1, count))
    if name == first.name:
        fix = f"rename the parts to {first.stem}{end.format(1, count)} and so on"
        raise ModelError(f"{first} is the first of {count} parts of a split model, but is not named as one; {fix}")
    path = first.with_name(name + end.format(index + 1, count))
    if not path.exists():
        raise ModelError(f"{path} is missing, part {index + 1} of {count} of a split model; fetch it as well")
    return path


def _kind(path: Path, name: str, code: int) -> gguf.GGMLQuantizationType:
    try:
        kind = gguf.GGMLQuantizationType(code)
        _require_unpacker(kind)
    except (ValueError, NotImplementedError):
        known = {kind.value: f"{code} ({kind.name})" for kind in gguf.GGMLQuantizationType}.get(code, code)
        raise ModelError(
            f"{path}: tensor {name[:_LONGEST_NAME]} has quantisation kind {known}, which the package gguf "
            f"{version_of('gguf')} cannot unpack; take another quantisation, such as Q8_0 (if the file is not meant to "
            f"have it, the file is corrupt: fetch it again)"
        ) from None
    return kind


@cache
def _require_unpacker(kind: gguf.GGMLQuantizationType) -> None:
    """Unpacks one block of a quantisation type.

    Raises:
        NotImplementedError: The package `gguf` cannot unpack this type.
    """
    _, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    with np.errstate(all="ignore"):
        gguf.dequantize(np.zeros((1, block_bytes), dtype=np.uint8), kind)
