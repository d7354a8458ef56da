"""AES-128 by the processor's own instructions (AES-NI), inside compiled loops; eight blocks are in flight at a time.

The library in `cryptography` uses the same instructions, but is called from Python: once per level of a tree. Where the
processor has none, or Numba is configured to compile for another one, `AVAILABLE` is False and the library is used.
"""

from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from parties.engines.fss.kernels.compiled import NATIVE, F, compiled
from parties.engines.fss.kernels.loops import Words

ROUNDS = 10
IN_FLIGHT = 8
AVAILABLE = bool(
    llvmlite.binding.get_process_triple().startswith("x86_64")
    and llvmlite.binding.get_host_cpu_features().get("aes")
    and NATIVE
)
_INTEGER = ir.IntType(64)
_BLOCK = ir.VectorType(_INTEGER, 2)


def compiled_with_aes(signature: str) -> Callable[[F], F]:
    """Compiles a loop that uses these instructions, as `loops.compiled` does; leaves it alone where there are none."""
    return compiled(signature) if AVAILABLE else lambda function: function


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def stack_words(typing_context: Any, count: Any) -> Any:  # noqa: ARG001
    """Returns a pointer to `count` words, uint64, on the stack of the calling loop: it allocates nothing."""
    size = count.literal_value

    def generate(_: Any, builder: Any, __: Any, ___: Any) -> Any:
        return cgutils.alloca_once(builder, _INTEGER, size=size)

    return types.CPointer(types.uint64)(count), generate  # type: ignore[attr-defined]


@intrinsic  # type: ignore[untyped-decorator]
def _permute_eight(typing_context: Any, source: Any, first: Any, keys: Any, out: Any) -> Any:  # noqa: ARG001
    """Permutes rows first .. first + 7 of [n, 2] under the round keys [11, 2] into the same rows of `out`."""
    return types.void(source, types.int64, keys, out), _permuted_in_parallel(IN_FLIGHT)


@intrinsic  # type: ignore[untyped-decorator]
def _permute_one(typing_context: Any, source: Any, first: Any, keys: Any, out: Any) -> Any:  # noqa: ARG001
    """Does the same for one row."""
    return types.void(source, types.int64, keys, out), _permuted_in_parallel(1)


def _permuted_in_parallel(count: int) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
        source, first, keys, out = arguments
        pointers = [
            builder.bitcast(context.make_array(kind)(context, builder, array).data, _BLOCK.as_pointer())
            for kind, array in zip(signature.args[::2] + signature.args[3:], (source, keys, out), strict=True)
        ]
        whole = ir.FunctionType(_BLOCK, (_BLOCK, _BLOCK))
        middle, last = (
            builder.module.declare_intrinsic(f"llvm.x86.aesni.{name}", (), whole) for name in ("aesenc", "aesenclast")
        )
        words, schedule, results = pointers

        def load(pointer: Any, place: Any) -> Any:
            return builder.load(builder.gep(pointer, [place]), align=8)

        places = [builder.add(first, ir.Constant(first.type, i)) for i in range(count)]
        round_keys = [load(schedule, ir.Constant(_INTEGER, i)) for i in range(ROUNDS + 1)]
        blocks = [builder.xor(load(words, place), round_keys[0]) for place in places]
        for key in round_keys[1:-1]:
            blocks = [builder.call(middle, (block, key)) for block in blocks]
        for block, place in zip(blocks, places, strict=True):
            builder.store(builder.call(last, (block, round_keys[-1])), builder.gep(results, [place]), align=8)
        return context.get_dummy_value()

    return generate


@compiled_with_aes("void(uint64[:, ::1], uint64[:, ::1], uint64[:, ::1])")
def permute(blocks: Words, round_keys: Words, out: Words) -> None:
    """Permutes blocks [n, 2] into `out` under the round keys [11, 2]."""
    count = blocks.shape[0]
    eights = count - count % IN_FLIGHT
    for i in range(0, eights, IN_FLIGHT):
        _permute_eight(blocks, i, round_keys, out)
    for i in range(eights, count):
        _permute_one(blocks, i, round_keys, out)
