"""The instructions of the tape machine.

An instruction is a row of int64 words:

    length, opcode, rank, operands, first extra, second extra, shape [rank], then for each operand
    its address and its strides [rank]

Strides are in bytes for the outer dimensions and in elements for the innermost one. The first operand is written, and
the flag of a checked shift.
"""

from enum import IntEnum, unique

HEADER = 6
MAX_RANK = 8


@unique
class Op(IntEnum):
    """Opcodes. The suffix is the width of the operands; 8 stands for uint8 and bool."""

    COPY_64 = 0
    COPY_8 = 1
    WIDEN = 2  # uint8 to int64
    NARROW = 3  # the low 8 bits
    ABS_64 = 4
    ADD_64 = 5
    SUB_64 = 6
    MUL_64 = 7
    AND_64 = 8
    OR_64 = 9
    XOR_64 = 10
    SHL_64 = 11
    SHR_64 = 12
    MAX_64 = 13
    MIN_64 = 14
    EQ_64 = 15
    NE_64 = 16
    LT_64 = 17
    LE_64 = 18
    ADD_8 = 19
    SUB_8 = 20
    MUL_8 = 21
    AND_8 = 22
    OR_8 = 23
    XOR_8 = 24
    NE_8 = 25
    WHERE_64 = 26  # output, condition, where it is true, where it is false
    WHERE_8 = 27
    TOTAL_64 = 28  # adds to the output, whose stride is 0 along the summed dimensions
    TOTAL_8 = 29  # uint8 to int64
    LARGEST_64 = 30
    SMALLEST_64 = 31
    ANY_8 = 32
    ALL_8 = 33
    CUMSUM_64 = 34  # along the innermost dimension
    CUMSUM_8 = 35  # uint8 to int64
    PLACE = 36  # output = second + index * first extra; the index is checked against the second extra
    GATHER_64 = 37  # output = third[second * first extra]; the index is checked against the second extra
    GATHER_8 = 38
    SCATTER_64 = 39  # output[second * first extra] = third
    SCATTER_8 = 40
    SCATTER_ADD_64 = 41
    PACK = 42  # `loops.pack_bits`; the shape is that of the bits
    UNPACK = 43  # `loops.unpack_bits`
    CHECKED_SHIFT = 44  # output = (second + third) >> first extra; sets the flag, the fourth: see `loops.checked_shift`
    MUL_ADD_64 = 45  # second * third + fourth, and so on
    MUL_SUB_64 = 46
    SUB_MUL_64 = 47
    SUB_ADD_64 = 48
    ADD_ADD_64 = 49
    SHR_AND_64 = 50
    MUL_TOTAL_64 = 51  # adds second * third to the output


ELEMENTWISE = frozenset(op for op in Op if op <= Op.WHERE_8 or Op.CHECKED_SHIFT <= op <= Op.SHR_AND_64)
"""Opcodes that compute each element of the output from the same elements of the operands."""

REDUCTIONS = frozenset({Op.TOTAL_64, Op.TOTAL_8, Op.MUL_TOTAL_64, Op.LARGEST_64, Op.SMALLEST_64, Op.ANY_8, Op.ALL_8})
"""Opcodes that reduce the dimensions in which the output has stride 0."""

ACCUMULATING = REDUCTIONS | {Op.SCATTER_64, Op.SCATTER_8, Op.SCATTER_ADD_64}
"""Opcodes whose output depends on what it was before."""

ORDERED = frozenset({Op.CUMSUM_64, Op.CUMSUM_8})
"""Opcodes whose innermost dimension is fixed."""

SWAPPED = {
    Op.ADD_64: Op.ADD_64, Op.MUL_64: Op.MUL_64, Op.AND_64: Op.AND_64, Op.OR_64: Op.OR_64, Op.XOR_64: Op.XOR_64,
    Op.MAX_64: Op.MAX_64, Op.MIN_64: Op.MIN_64, Op.EQ_64: Op.EQ_64, Op.NE_64: Op.NE_64,
    Op.ADD_8: Op.ADD_8, Op.MUL_8: Op.MUL_8, Op.AND_8: Op.AND_8, Op.OR_8: Op.OR_8, Op.XOR_8: Op.XOR_8,
    Op.NE_8: Op.NE_8, Op.CHECKED_SHIFT: Op.CHECKED_SHIFT, Op.MUL_ADD_64: Op.MUL_ADD_64, Op.MUL_SUB_64: Op.MUL_SUB_64,
    Op.ADD_ADD_64: Op.ADD_ADD_64, Op.MUL_TOTAL_64: Op.MUL_TOTAL_64,
}  # fmt: skip
"""Opcodes whose second and third operands commute."""
