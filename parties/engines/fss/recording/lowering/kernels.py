"""Kernels that the machine runs itself."""

from parties.engines.fss.kernels import device_bits, device_shifts, loops
from parties.engines.fss.recording.lowering.registry import KERNELS, WIDE, reshaped
from parties.engines.fss.recording.memory import View
from parties.engines.fss.recording.notes import Notebook
from parties.engines.fss.recording.opcodes import Op


def _pack(book: Notebook, bits: View, packed: View) -> None:
    book.emit(Op.PACK, reshaped(packed, bits.shape, (0,)), bits)


def _unpack(book: Notebook, packed: View, bits: View) -> None:
    book.emit(Op.UNPACK, bits, reshaped(packed, bits.shape, (0,)))


def _checked_shift(book: Notebook, x: View, shifted: View, outside: View, drop: int, edge: int) -> None:
    book.emit(Op.CHECKED_SHIFT, shifted, x, book.scalar(0, WIDE), outside, extras=(drop, edge))


KERNELS.update({loops.checked_shift: _checked_shift, device_shifts.checked_shift: _checked_shift})
KERNELS.update({loops.pack_bits: _pack, device_bits.pack: _pack})
KERNELS.update({loops.unpack_bits: _unpack, device_bits.unpack: _unpack})
