"""Parses a GGUF file's header: its facts and where its tensors lie, never the tensors themselves.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little endian.
"""

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from parties.errors import ModelError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies.

    Attributes:
        shape: as numpy has it: [out, in] for a matrix.
        kind: how its numbers are packed.
        start: first byte in the file.
        size: bytes.
    """

    shape: tuple[int, ...]
    kind: gguf.GGMLQuantizationType
    start: int
    size: int


@dataclass(frozen=True)
class GgufFile:
    """The header of a GGUF file.

    Attributes:
        path: the file.
        facts: metadata by key.
        tensors: place of each tensor by name.
    """

    path: Path
    facts: dict[str, Any]
    tensors: dict[str, GgufTensor]

    def read(self, name: str) -> Tensor:
        """One tensor, dequantised to float32.

        Raises:
            ModelError: the file has no such tensor or packs it in an unknown way.
        """
        if name not in self.tensors:
            raise ModelError(f"{self.path}: tensor {name} is missing; the file is incomplete or of another model")
        tensor = self.tensors[name]
        try:
            raw = np.fromfile(self.path, dtype=np.uint8, count=tensor.size, offset=tensor.start)
            rows = raw.reshape(*tensor.shape[:-1], -1)
            with np.errstate(all="ignore"):  # numbers that are none are found when all weights are checked
                numbers = gguf.dequantize(rows, tensor.kind).astype(np.float32).reshape(tensor.shape)
        except (NotImplementedError, ValueError, OSError) as error:
            raise ModelError(f"{self.path}: tensor {name} ({tensor.kind.name}) cannot be unpacked: {error}") from error
        return torch.from_numpy(numbers)


def read_header(path: Path) -> GgufFile:
    """Reads the header of a GGUF file and checks that every tensor lies inside the file.

    Raises:
        ModelError: the file is missing, no GGUF, corrupt or truncated.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Parser(data).parse(path)
    except (OSError, ValueError, struct.error, OverflowError) as error:  # mmap: an empty file is a ValueError
        raise ModelError(f"cannot read {path} as GGUF: {error}; it is corrupt or truncated: fetch it again") from error


class _Parser:
    """Walks through the bytes of a header."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def parse(self, path: Path) -> GgufFile:
        if self.data[:4] != b"GGUF":
            raise ValueError("it does not begin with the letters GGUF")
        self.at = 4
        if (version := self.number("I")) not in (2, 3):
            raise ValueError(f"format version {version}; supported: 2 and 3, little endian")
        n_tensors, n_facts = self.number("Q"), self.number("Q")
        facts = {self.string(): self.value(self.number("I")) for _ in range(n_facts)}
        places = [(self.string(), self.place()) for _ in range(n_tensors)]
        step = facts.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
        if type(step) is not int or step < 1:
            raise ValueError(f"general.alignment is {step!r}; it must be a positive whole number")
        first = -(-self.at // step) * step
        return GgufFile(path, facts, {name: self.tensor(name, first, *place) for name, place in places})

    def number(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at += struct.calcsize(f"<{code}")
        return value

    def string(self) -> str:
        length = self.number("Q")
        if length > len(self.data) - self.at:
            raise ValueError(f"a text of {length} bytes at byte {self.at} of {len(self.data)}")
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
            raise ValueError(f"unknown kind of value {kind} at byte {self.at}")
        return self.number(_SCALARS[kind])

    def place(self) -> tuple[tuple[int, ...], int, int]:
        dimensions = self.number("I")
        shape = tuple(self.number("Q") for _ in range(dimensions))
        return shape[::-1], self.number("I"), self.number("Q")

    def tensor(self, name: str, first: int, shape: tuple[int, ...], code: int, offset: int) -> GgufTensor:
        kind = gguf.GGMLQuantizationType(code)
        per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        size = math.prod(shape) // per_block * block_bytes
        if first + offset + size > len(self.data):
            raise ValueError(f"tensor {name} ends at byte {first + offset + size} of {len(self.data)}")
        return GgufTensor(shape, kind, first + offset, size)
