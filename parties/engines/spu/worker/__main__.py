"""The worker: takes the party's commands from an inherited socket until the party closes it.

    python -I worker DESCRIPTOR

Every command is answered, with `error` where it failed. Shares come in and go out as 64-bit words, row-major, with a
last axis of length 2 in ABY3, whose parties each hold two of three parts.
"""

import os
import select
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # -I leaves it out

import numpy as np
import spu
import wire
from links import Link, Log
from programs import decode
from spu.utils import frontend

_CHUNK = 1 << 26  # bytes of a share per message of protobuf, which takes less than 2 GiB


class Worker:
    """One rank of SPU."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._programs: dict[str, bytes] = {}
        self._chunks: list[bytes] = []
        self._public = 0

    def open(self, given: dict[str, Any], _: list[bytearray]) -> wire.Message:
        """Connects to the other ranks."""
        config = spu.RuntimeConfig(
            protocol=spu.parse_protocol_kind(given["protocol"].upper()),
            field=spu.parse_field_type(f"FM{given['field']}"),
            fxp_fraction_bits=given["fxp"],
        )
        config.fxp_exp_mode = spu.RuntimeConfig.ExpMode.EXP_TAYLOR
        config.enable_pphlo_profile = True  # without it SPU does not tell what its links carried
        self._rank, self._parts = given["rank"], 2 if given["protocol"] == "aby3" else 1
        self._storage = f"{given['protocol']}.AShr<FM{given['field']}>"
        self._link = Link(given["rank"], given["addresses"], given["timeout_s"])
        self._io = spu.Io(len(given["addresses"]), config)
        self._runtime = spu.Runtime(self._link.context, config)
        return {"version": spu.__version__}

    def add(self, given: dict[str, Any], blobs: list[bytearray]) -> wire.Message:
        """Takes the next rows of this rank's share of a secret value, which start at a byte of it."""
        for start in range(0, len(blobs[0]), _CHUNK):
            content = memoryview(blobs[0])[start : start + _CHUNK]
            self._chunks.append(_chunk(given["bytes"], given["start"] + start, content))
        return {}

    def put(self, given: dict[str, Any], _: list[bytearray]) -> wire.Message:
        """Makes a secret value of the rows that came."""
        share = spu.libspu.Share()
        share.meta = _meta(given["shape"], self._storage)
        share.share_chunks, self._chunks = self._chunks, []
        self._runtime.set_var(given["name"], share)
        return {}

    def get(self, given: dict[str, Any], _: list[bytearray]) -> tuple[wire.Message, list[memoryview]]:
        """Gives this rank's share of a value."""
        share = self._runtime.get_var(given["name"])
        stored = self._runtime.get_var_meta(given["name"]).storage_type
        if stored != self._storage:
            raise TypeError(f"a share is stored as {stored}, not as {self._storage}")
        parts = []
        for octets in share.share_chunks:
            chunk = spu.ValueChunk()
            chunk.ParseFromString(octets)
            parts.append(chunk.content)
        return {}, [memoryview(b"".join(parts))]

    def compile(self, given: dict[str, Any], _: list[bytearray]) -> wire.Message:
        """Compiles a program."""
        program, inputs = decode(given["graph"])
        executable, _ = frontend.compile(
            frontend.Kind.JAX,
            program,
            [np.zeros(shape, np.float32) for shape, _ in inputs],
            {},
            [str(i) for i in range(len(inputs))],
            [spu.Visibility.VIS_PUBLIC if public else spu.Visibility.VIS_SECRET for _, public in inputs],
            lambda outputs: [str(i) for i in range(len(outputs))],
            copts=_options(),
        )
        self._programs[given["program"]] = executable.code
        return {}

    def run(self, given: dict[str, Any], blobs: list[bytearray]) -> wire.Message:
        """Runs a compiled program; its public inputs come with the command.

        Returns:
            `seconds`, messages `sent` and `received`, and `carried`, bytes sent to and received from each rank.
        """
        public = iter(zip(blobs, given["shapes"], strict=True))
        inputs = [name if name is not None else self._take_public(*next(public)) for name in given["inputs"]]
        code = self._programs[given["program"]]
        executable = spu.Executable(name="p", input_names=inputs, output_names=given["outputs"], code=code)
        self._log.messages()
        before, start = self._link.carried(), time.perf_counter()
        self._runtime.run(executable)
        seconds, after = time.perf_counter() - start, self._link.carried()
        sent, received = self._log.messages()
        for name, given_name in zip(inputs, given["inputs"], strict=True):
            if given_name is None:
                self._runtime.del_var(name)
        carried = {rank: [a - b for a, b in zip(after[rank], before[rank], strict=True)] for rank in after}
        return {"seconds": seconds, "sent": sent, "received": received, "carried": carried}

    def drop(self, names: list[str]) -> None:
        """Frees values."""
        for name in names:
            self._runtime.del_var(name)

    def _take_public(self, octets: bytearray, shape: list[int]) -> str:
        self._public += 1
        name = f"public{self._public}"
        value = np.frombuffer(octets, np.float32).reshape(shape)
        self._runtime.set_var(name, self._io.make_shares(value, spu.Visibility.VIS_PUBLIC)[self._rank])
        return name


def _options() -> Any:
    options = spu.CompilerOptions()
    options.enable_optimize_denominator_with_broadcast = True  # one reciprocal per row of a softmax
    return options


def _meta(shape: list[int], storage: str) -> bytes:
    """SPU's description of a secret float32 value: type, visibility, shape and storage, in protobuf's encoding."""
    dims = b"".join(map(_varint, shape))
    packed = b"\x0a" + _varint(len(dims)) + dims if shape else b""
    return (
        b"\x08" + _varint(spu.DataType.DT_F32.value)
        + b"\x18" + _varint(spu.Visibility.VIS_SECRET.value)
        + b"\x22" + _varint(len(packed)) + packed
        + b"\x2a" + _varint(len(storage)) + storage.encode()
    )  # fmt: skip


def _chunk(total: int, start: int, content: memoryview) -> bytes:
    """A part of a share in protobuf's encoding."""
    head = b"\x08" + _varint(total) + b"\x10" + _varint(start) + b"\x1a" + _varint(len(content))
    return b"".join([head, content])


def _varint(number: int) -> bytes:
    octets = bytearray()
    while number >= 0x80:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*octets, number])


def serve(sock: socket.socket, worker: Worker) -> None:
    """Answers commands until the party closes the socket."""
    while True:
        given, blobs = wire.receive(sock)
        try:
            worker.drop(given.pop("drop"))
            answer = getattr(worker, given.pop("command"))(given, blobs)
        except Exception as error:  # noqa: BLE001 - the party raises it
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).partition('stacktrace')[0].split())}"}
        message, parts = answer if isinstance(answer, tuple) else (answer, [])
        wire.send(sock, message, parts)


def end_with(sock: socket.socket) -> None:
    """Ends this process, even within SPU, which would wait for its peers, once the party closes the socket or ends."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    poll.poll()
    os._exit(0)


def main() -> None:
    """Serves the party."""
    sock = socket.socket(fileno=int(sys.argv[1]))
    threading.Thread(target=end_with, args=(sock,), daemon=True).start()
    folder = tempfile.mkdtemp()
    log = Log(str(Path(folder) / "log"))
    os.rmdir(folder)  # noqa: PTH106 - the log has no name any more
    serve(sock, Worker(log))


main()
