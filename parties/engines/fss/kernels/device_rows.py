"""The format of the instructions that `tape_machine` runs on a GPU.

An instruction is a row of `LENGTH` words, int64: opcode, elements (of a reduction: of its output; of cumulative sums:
rows), rank, first and second extra (of a reduction: elements per output, 0; of cumulative sums: elements per row, 0; of
a checked shift: bits, edge), a bit for each narrow operand (the output is bit 0), operands, shape; then for each of
four operands, the output first, its address and its strides in elements. Dimensions are sorted from the innermost one.
Addresses may be those of pinned memory of the host.
"""

LENGTH = 32
SHAPE = 7
OPERANDS = tuple(SHAPE + 4 + 5 * operand for operand in range(4))
MAX_RANK = 4
BLOCK = 1024
"""Elements that a program takes at a time."""

NAMES = (
    "COPY", "ABS", "ADD", "SUB", "MUL", "AND", "OR", "XOR", "SHL", "SHR", "CHECKED_SHIFT", "MAX", "MIN", "EQ", "NE",
    "LT", "LE", "WHERE", "MUL_ADD", "MUL_SUB", "SUB_MUL", "SUB_ADD", "ADD_ADD", "SHR_AND", "PLACE", "GATHER",
    "SCATTER", "SCATTER_ADD", "PACK", "UNPACK", "TOTAL", "LARGEST", "SMALLEST", "MUL_TOTAL", "CUMSUM",
)  # fmt: skip
"""Operations, by opcode. The width of operands is not part of them."""
