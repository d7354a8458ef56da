"""CUDA C for a launch: its instructions as one kernel, whose text says what is computed, but not on what.

Sizes, strides and addresses are words that the kernel is given, so that a text serves all layers, lengths and models
whose steps are the same. Instructions of one shape that do not wait for each other are a phase: a thread reads all that
it needs of an element before it writes, and passes results on in registers.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from parties.engines.fss.recording.launches import Launch, Row, independent, written
from parties.engines.fss.recording.memory import CPU, Buffer, Kind, View
from parties.engines.fss.recording.notes import Instruction
from parties.engines.fss.recording.opcodes import ELEMENTWISE, Op

WARP = 32
_MOST_THREADS, _THREADS = 1024, 256
_MOST_BLOCKS = 4096
_CHUNK = 256  # elements that a warp reduces at a time
_SCATTERED = ("SCATTER", "SCATTER_ADD")
_SINGLY = ELEMENTWISE | {
    Op.PLACE, Op.GATHER_64, Op.GATHER_8, Op.SCATTER_64, Op.SCATTER_8, Op.SCATTER_ADD_64, Op.UNPACK,
}  # fmt: skip
"""Instructions of which a thread computes one element at a time."""

_RESULTS = {
    "COPY": "{0}", "ABS": "{0} < 0 ? SUB(0, {0}) : {0}", "ADD": "ADD({0}, {1})", "SUB": "SUB({0}, {1})",
    "MUL": "MUL({0}, {1})", "AND": "{0} & {1}", "OR": "{0} | {1}", "XOR": "{0} ^ {1}", "SHL": "(S)((U){0} << {1})",
    "SHR": "{0} >> {1}", "MAX": "{0} > {1} ? {0} : {1}", "MIN": "{0} < {1} ? {0} : {1}", "EQ": "{0} == {1}",
    "NE": "{0} != {1}", "LT": "{0} < {1}", "LE": "{0} <= {1}", "WHERE": "{0} ? {1} : {2}",
    "MUL_ADD": "ADD(MUL({0}, {1}), {2})", "MUL_SUB": "SUB(MUL({0}, {1}), {2})", "SUB_MUL": "MUL(SUB({0}, {1}), {2})",
    "SUB_ADD": "ADD(SUB({0}, {1}), {2})", "ADD_ADD": "ADD(ADD({0}, {1}), {2})", "SHR_AND": "({0} >> {1}) & {2}",
}  # fmt: skip
_JOINED = {
    "TOTAL": ("0", "ADD(sum, next)", "atomicAdd((U *)to, (U)sum)"),
    "MUL_TOTAL": ("0", "ADD(sum, next)", "atomicAdd((U *)to, (U)sum)"),
    "LARGEST": ("LEAST", "sum > next ? sum : next", "atomicMax(to, sum)"),
    "SMALLEST": ("GREATEST", "sum < next ? sum : next", "atomicMin(to, sum)"),
}
"""Of a reduction: where it begins, how two results are joined, and how one gets to the output."""

PRELUDE = """\
#define WARP 32
#define EVERY 0xffffffffu
"""
_TEXT = """\
typedef long long S;
typedef unsigned long long U;
typedef unsigned char B;
#define ADD(a, b) ((S)((U)(a) + (U)(b)))
#define SUB(a, b) ((S)((U)(a) - (U)(b)))
#define MUL(a, b) ((S)((U)(a) * (U)(b)))
#define LEAST ((S)0x8000000000000000ull)
#define GREATEST ((S)0x7fffffffffffffffull)
struct Words {{ S w[{words}]; }};
extern "C" __global__ void run(const Words p) {{
    const unsigned at = blockIdx.x * blockDim.x + threadIdx.x, all = gridDim.x * blockDim.x;
    const unsigned lane = threadIdx.x % WARP, warp = at / WARP, warps = all / WARP;
{body}
}}
"""


@dataclass
class Kernel:
    """A launch as a kernel.

    Attributes:
        text: CUDA C, without `PRELUDE`.
        words: What it is given: numbers, and views for their addresses.
        blocks: Blocks of threads.
        threads: Threads of a block.
    """

    text: str
    words: Sequence[int | View]
    blocks: int
    threads: int


def kernel(launch: Launch, wrong: View) -> Kernel:
    """Returns the kernel of a launch of instructions.

    Args:
        launch: The launch.
        wrong: Int64, of one element: set to 1 where an index is outside its dimension.

    Raises:
        Unsupported: The machine has no such instruction.
    """
    notes = [note for note in launch.notes if isinstance(note, Instruction)]
    alone, writer, unsynchronized = launch.programs == 1, _Writer(wrong), list[Instruction]()
    for phase in _phases(notes) if alone else _by_shape(notes):
        if alone and _conflict(unsynchronized, phase):
            writer.line("__syncthreads();")
            unsynchronized.clear()
        unsynchronized += phase
        writer.phase(phase)
    work = max(_threads(note) for note in notes)
    threads = min(_MOST_THREADS if alone else _THREADS, -(-work // WARP) * WARP)
    blocks = 1 if alone else min(-(-work // threads), _MOST_BLOCKS)
    text = _TEXT.format(words=max(1, len(writer.words)), body="\n".join(writer.lines))
    return Kernel(text, writer.words, blocks, threads)


def _phases(notes: Sequence[Instruction]) -> list[list[Instruction]]:
    """Instructions in order; those that follow each other and do not wait for each other are together."""
    made: list[list[Instruction]] = []
    for note in notes:
        if made and _joins(made[-1], note):
            made[-1].append(note)
        else:
            made.append([note])
    return made


def _by_shape(notes: Sequence[Instruction]) -> list[list[Instruction]]:
    """Instructions of which none waits for another one, but at the same elements."""
    made: list[list[Instruction]] = []
    for note in notes:
        phase = next((phase for phase in made if _joins(phase, note)), None)
        if phase is None:
            made.append([note])
        else:
            phase.append(note)
    return made


def _joins(phase: Sequence[Instruction], note: Instruction) -> bool:
    return (
        note.op in _SINGLY
        and phase[0].op in _SINGLY
        and phase[0].shape == note.shape
        and all(independent(before, note) for before in phase)
    )


def _conflict(before: Iterable[Instruction], phase: Sequence[Instruction]) -> bool:
    """Tells whether a phase has to wait for the ones before."""
    return any(
        written(one) & set(other.buffers) or written(other) & set(one.buffers) for one in before for other in phase
    )


def _threads(note: Instruction) -> int:
    """Threads that an instruction has work for."""
    row = Row.of(note)
    if row.name in _JOINED:
        return row.elements * -(-row.extras[0] // _CHUNK) * WARP
    return row.elements * WARP if row.name == "CUMSUM" else row.elements


@dataclass
class _Writer:
    """Writes the lines of a kernel, and the words that they use."""

    wrong: View
    words: list[int | View] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def line(self, text: str, depth: int = 1) -> None:
        self.lines.append("    " * depth + text)

    def word(self, item: int | View) -> str:
        self.words.append(item)
        return f"p.w[{len(self.words) - 1}]"

    def phase(self, notes: Sequence[Instruction]) -> None:
        row = Row.of(notes[0])
        if notes[0].op in _SINGLY:
            self._singly(notes)
        elif row.name == "PACK":
            self._packed(row)
        elif row.name == "CUMSUM":
            self._accumulated(row)
        elif row.operands[0].dtype.itemsize == 1:
            self._decided(row)
        else:
            self._reduced(row)

    # -- operands ------------------------------------------------------------------------------------------------------

    def _place(self, shape: Sequence[int], index: str, depth: int, prefix: str = "x") -> list[str]:
        """Writes the coordinates of a linear index, innermost first; returns their names."""
        if len(shape) == 1:
            return [index]
        names, left = [f"{prefix}{d}" for d in range(len(shape))], index
        for d, name in enumerate(names[:-1]):
            size = f"(unsigned){self.word(shape[d])}"
            self.line(f"const unsigned {name} = {left} % {size}, {prefix}_{d} = {left} / {size};", depth)
            left = f"{prefix}_{d}"
        return [*names[:-1], left]

    def _offset(self, view: View, places: Sequence[str]) -> str:
        """The element of a view whose dimensions are those of `places`."""
        steps = zip(view.strides, places, strict=True)
        return " + ".join(f"(S){place} * {self.word(step)}" for step, place in steps if step) or "0"

    def _address(self, view: View) -> str:
        return f"({'B' if view.dtype.itemsize == 1 else 'S'} *){self.word(view)}"

    def _read(self, view: View, places: Sequence[str], further: str = "") -> str:
        number = _number(view)
        if number is not None:
            return self.word(number)
        return f"(S)({self._address(view)})[{self._offset(view, places)}{further}]"

    # -- phases --------------------------------------------------------------------------------------------------------

    def _singly(self, notes: Sequence[Instruction]) -> None:
        """A loop over elements: reads, computes, writes."""
        rows = [Row.of(note) for note in notes]
        self.line(f"for (unsigned i = at; i < (unsigned){self.word(rows[0].elements)}; i += all) {{")
        places = self._place(rows[0].shape, "i", 2)
        names, stores = (f"v{number}" for number in count()), list[str]()
        held: dict[tuple[Buffer, int, tuple[int, ...], int], str] = {}
        for row in rows:
            self._note(row, places, held, names, stores)
        for text in stores:
            self.line(text, 2)
        self.line("}")

    def _note(
        self,
        row: Row,
        places: Sequence[str],
        held: dict[tuple[Buffer, int, tuple[int, ...], int], str],
        names: Iterator[str],
        stores: list[str],
    ) -> None:
        def operand(view: View) -> str:
            if _same(view) not in held:
                held[_same(view)] = name = next(names)
                self.line(f"const S {name} = {self._read(view, places)};", 2)
            return held[_same(view)]

        out, *operands = row.operands
        result, good, further = next(names), "", ""
        if row.name == "CHECKED_SHIFT":
            total, edge = next(names), self.word(row.extras[1])
            self.line(f"const S {total} = ADD({operand(operands[0])}, {operand(operands[1])});", 2)
            stores.append(f"if ({total} < SUB(0, {edge}) || {total} >= {edge}) *{self._address(operands[2])} = 1;")
            value = f"{total} >> {self.word(row.extras[0])}"
        elif row.name == "UNPACK":
            value = f"((S)({self._address(operands[0])})[i / 8] >> (7 - i % 8)) & 1"
        elif row.name in ("PLACE", "GATHER", *_SCATTERED):
            index, stride, size = (operands[1 if row.name == "PLACE" else 0], *map(self.word, row.extras))
            place, good = next(names), next(names)
            self.line(f"const S {place} = {operand(index)} + ({operand(index)} < 0 ? {size} : 0);", 2)
            self.line(f"const bool {good} = {place} >= 0 && {place} < {size};", 2)
            stores.append(f"if (!{good}) *(S *){self.word(self.wrong)} = 1;")
            step = f"{place} * {stride}"
            if row.name == "PLACE":
                value = f"ADD({operand(operands[0])}, {step})"
            elif row.name == "GATHER":
                value = f"{good} ? {self._read(operands[1], places, f' + {step}')} : 0"
            else:
                value, further = operand(operands[1]), f" + {step}"
        else:
            value = _RESULTS[row.name].format(*map(operand, operands))
        self.line(f"const S {result} = {value};", 2)
        narrow = out.dtype.itemsize == 1
        to = f"{self._address(out)} + {self._offset(out, places)}{further}"
        store = f"atomicAdd((U *)({to}), (U){result});" if row.name == "SCATTER_ADD" else f"*({to}) = {result};"
        stores.append(f"if ({good}) {store}" if good else store)
        if row.name not in _SCATTERED:
            held[_same(out)] = f"({result} & 255)" if narrow else result

    def _packed(self, row: Row) -> None:
        bits, (out, source) = self.word(row.extras[0]), row.operands
        self.line(f"for (unsigned i = at; i < (unsigned){self.word(row.elements)}; i += all) {{")
        self.line("unsigned octet = 0;", 2)
        self.line("for (unsigned j = 0; j < 8; ++j)", 2)
        self.line(f"if (8 * i + j < {bits}) octet |= ({self._address(source)})[8 * i + j] << (7 - j);", 3)
        self.line(f"({self._address(out)})[i] = octet;", 2)
        self.line("}")

    def _reduced(self, row: Row) -> None:
        """Warps reduce chunks of what belongs to an output, and add the results to it."""
        begin, joined, stored = _JOINED[row.name]
        size, outputs = f"(unsigned){self.word(row.extras[0])}", f"(unsigned){self.word(row.elements)}"
        out, *operands = row.operands
        self.line("{")
        self.line(f"const unsigned size = {size}, chunks = (size + {_CHUNK - 1}) / {_CHUNK};", 2)
        self.line(f"for (unsigned task = warp; task < {outputs} * chunks; task += warps) {{", 2)
        self.line(
            f"const unsigned output = task / chunks, start = task % chunks * {_CHUNK}, last = start + {_CHUNK};", 3
        )
        self.line(f"S sum = {begin};", 3)
        self.line("#pragma unroll 8", 0)
        self.line("for (unsigned k = start + lane; k < (last < size ? last : size); k += WARP) {", 3)
        self.line("const unsigned i = output * size + k;", 4)
        places = self._place(row.shape, "i", 4)
        reads = [self._read(view, places) for view in operands]
        self.line(f"const S next = {f'MUL({reads[0]}, {reads[1]})' if row.name == 'MUL_TOTAL' else reads[0]};", 4)
        self.line(f"sum = {joined};", 4)
        self.line("}", 3)
        self.line("for (unsigned d = WARP / 2; d; d /= 2) {", 3)
        self.line(f"const S next = __shfl_xor_sync(EVERY, sum, d); sum = {joined};", 4)
        self.line("}", 3)
        self.line("const unsigned first = output * size;", 3)
        places = self._place(row.shape, "first", 3, "y")
        self.line(f"S *const to = {self._address(out)} + {self._offset(out, places)};", 3)
        self.line(f"if (lane == 0) {stored};", 3)
        self.line("}", 2)
        self.line("}")

    def _decided(self, row: Row) -> None:
        """The block finds whether any of what belongs to an output is 1, or any is 0."""
        size, outputs = f"(unsigned){self.word(row.extras[0])}", f"(unsigned){self.word(row.elements)}"
        out, source = row.operands
        wanted, decided = ("!= 0", "1") if row.name == "LARGEST" else ("== 0", "0")
        self.line(f"for (unsigned output = 0; output < {outputs}; ++output) {{")
        self.line("int found = 0;", 2)
        self.line(f"for (unsigned k = threadIdx.x; k < {size}; k += blockDim.x) {{", 2)
        self.line(f"const unsigned i = output * {size} + k;", 3)
        places = self._place(row.shape, "i", 3)
        self.line(f"found |= ({self._read(source, places)}) {wanted};", 3)
        self.line("}", 2)
        self.line("found = __syncthreads_or(found);", 2)
        self.line(f"const unsigned first = output * {size};", 2)
        places = self._place(row.shape, "first", 2, "y")
        to = f"({self._address(out)})[{self._offset(out, places)}]"
        self.line(f"if (found && threadIdx.x == 0) {to} = {decided};", 2)
        self.line("}")

    def _accumulated(self, row: Row) -> None:
        """A warp writes the cumulative sums of a row."""
        size, rows = f"(unsigned){self.word(row.extras[0])}", f"(unsigned){self.word(row.elements)}"
        out, source = row.operands
        self.line(f"for (unsigned own = warp; own < {rows}; own += warps) {{")
        self.line("S before = 0;", 2)
        self.line(f"for (unsigned start = 0; start < {size}; start += WARP) {{", 2)
        self.line(f"const unsigned k = start + lane, i = own * {size} + k;", 3)
        self.line(f"const bool inside = k < {size};", 3)
        places = self._place(row.shape, "i", 3)
        self.line(f"S sum = inside ? {self._read(source, places)} : 0;", 3)
        self.line("for (unsigned d = 1; d < WARP; d *= 2) {", 3)
        self.line("const S next = __shfl_up_sync(EVERY, sum, d); if (lane >= d) sum = ADD(sum, next);", 4)
        self.line("}", 3)
        self.line(f"if (inside) ({self._address(out)})[{self._offset(out, places)}] = ADD(before, sum);", 3)
        self.line("before = ADD(before, __shfl_sync(EVERY, sum, WARP - 1));", 3)
        self.line("}", 2)
        self.line("}")


def _same(view: View) -> tuple[Buffer, int, tuple[int, ...], int]:
    return view.buffer, view.offset, view.strides, view.dtype.itemsize


def _number(view: View) -> int | None:
    """The number that all elements of a view are, if it is a constant on the host."""
    buffer = view.buffer
    if buffer.kind is not Kind.CONSTANT or any(view.strides) or buffer.memory.device != CPU:
        return None
    return int(View(buffer, view.offset, view.dtype, (), ()).tensor(buffer.memory).item())
