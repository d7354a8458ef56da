"""Memory that each role of a cell takes: declared formulas of public sizes.

With W folded parameters and P parameters of the model, L the numbers of its largest matrix, C those of the cache that
is held at the end, and 8 bytes per number of the ring or of float64:

| role | weights | cache | recordings | randomness | while loading |
| --- | --- | --- | --- | --- | --- |
| client, `fss` | 8 W | 16 C: X and the mask | 2 M | what the dealer may send ahead | none |
| server, `fss` | 8 W | 16 C | 2 M | the same | 4 P + 8 L: float32, of which a matrix is folded and encoded |
| dealer, `fss` | 8 W: masks | 16 C | none | what it queues for both | none |
| client, server, `crypten` | 8 W: shares | 8 C | none | none | 4 P + 20 L at the server |
| dealer, `crypten` | none | none | none | 20 L while it makes the largest triple | none |
| referee | 8 W | 8 R | none | none | 4 P + 8 L |

M are the bytes that client and server send each other for a token: recorded segments hold what is hidden, and what is
opened. The referee keeps the rows that enter each layer, R numbers, for other policies (`KeptPrompts`). The
prefilled cache and the one that it decodes with, 16 C, count as its work: it frees them once the shares are sent.

On a GPU are weights, cache and the work of a step; they are loaded through the host's memory, matrix by matrix. The
referee keeps its weights there in float32, 4 W, and computes in float64.

The work of a step comes on top (`_Sizes.step`, `_Sizes.masked`, `_Sizes.prompt`): the widest function of a step, among
them the private choice among all logits, or the part of a cache that is masked at once. Loading and decoding do not
overlap, so the larger of the two counts. The logits of all tokens are kept for the check, and count as cache. In a
batch, cache, logits and the work of a step are those of all sequences; prompts are run one after the other.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

from orchestrator.experiment.cells import Cell
from orchestrator.experiment.experiment import model_spec
from orchestrator.predict.forecast import Forecast, known_forecast
from orchestrator.predict.prediction import COUNTED_TOKENS
from parties.policies.base import Policy

ROLES = ("client", "server", "dealer", "referee")
PROCESS_BYTES = 600_000_000
"""A process with torch, transformers and compiled kernels in it, and the free memory that its allocator keeps."""

_WORKER_BYTES = 300_000_000  # of a process with SPU and jax in it
_QUERIES = 64  # of the plain engine's blocks
_MASKED_AT_ONCE = 1 << 23  # numbers of a cache, by `fss`
_SCORES = 1 << 23  # of a prompt that a policy rates at once
_CHUNK_BYTES = 1 << 28
_AHEAD_BYTES, _QUEUED_BYTES = 256 << 20, 64 << 20  # of a receiver's credit, and of a sender beyond it
_PER_NUMBER = {"fss": 1024, "crypten": 256}  # bytes while a function of one number is computed
_PER_DEALT_NUMBER = 2400  # the same at the dealer of `fss`, which also copies the largest tensor that it sends
_PER_MASKED_NUMBER = 48
_PER_LOADED_NUMBER = {"plain": 8, "fss": 8, "crypten": 20, "spu": 8}  # of the largest matrix


@dataclass(frozen=True)
class Need:
    """Memory of one role, in bytes.

    Attributes:
        weights: The role's part of the model.
        cache: Keys, values, and the logits of all tokens.
        recordings: Numbers that recorded segments open.
        randomness: Correlated randomness in flight.
        work: Values of the largest step.
        loading: On top of the weights while they are read and shared.
        worker: The process beside it in which `spu` computes.
        disk: Correlated randomness stored on disk, not part of the total.
    """

    weights: int = 0
    cache: int = 0
    recordings: int = 0
    randomness: int = 0
    work: int = 0
    loading: int = 0
    worker: int = 0
    disk: int = 0

    @property
    def steady(self) -> int:
        """Memory between two steps, with that of the process."""
        return self._processes + self.weights + self.cache + self.recordings + self.randomness

    @property
    def peak(self) -> int:
        """Memory at its peak."""
        return max(self._processes + self.weights + self.loading, self.steady + self.work)

    @property
    def _processes(self) -> int:
        return PROCESS_BYTES + self.worker

    def __str__(self) -> str:
        parts = {"process": self._processes, "weights": self.weights}
        if self._processes + self.weights + self.loading > self.steady + self.work:
            parts |= {"loading them": self.loading}
        else:
            parts |= {"cache": self.cache, "recordings": self.recordings, "randomness": self.randomness}
            parts |= {"a step": self.work}
        return ", ".join(f"{name} {size / 1e9:.1f}" for name, size in parts.items() if size > 5e7)


@dataclass(frozen=True)
class _Sizes:
    """Numbers of values, from public sizes."""

    parameters: int
    folded: int
    largest: int
    cached: int
    logits: int
    step: int
    masked: int
    prompt: int
    kept: int
    plain_prompt: int


def together(needs: Iterable[Need]) -> int:
    """Memory of several roles on one host, in bytes: their peaks do not coincide, so the highest above all counts."""
    every = list(needs)
    return sum(need.steady for need in every) + max((need.peak - need.steady for need in every), default=0)


def memory_needs(cell: Cell, on_gpu: Collection[str] = ()) -> dict[str, Need]:
    """The memory of each role of a cell on its host.

    Args:
        cell: The cell.
        on_gpu: Roles that compute on a GPU: weights and the work of a step are there, and on the host is only what
            passes through it.
    """
    needs = {role: _need(role, cell) for role in ROLES}
    return {role: replace(need, weights=0, work=0) if role in on_gpu else need for role, need in needs.items()}


def gpu_needs(cell: Cell) -> dict[str, Need]:
    """The memory of each role of a cell on a GPU, if it has one; a CUDA context takes about `PROCESS_BYTES`."""
    needs = {role: replace(_need(role, cell), randomness=0, loading=0, disk=0) for role in ROLES}
    return needs | {"referee": replace(needs["referee"], weights=needs["referee"].weights // 2)}


def _need(role: str, cell: Cell) -> Need:
    inside, chosen = cell.prefill == "mpc", cell.argmax == "private"
    sizes = _sizes(cell.model, cell.policy.build(), cell.seq_len, cell.new_tokens, cell.batch, inside, chosen)
    if cell.draft:
        sizes = replace(sizes, step=sizes.step * (cell.draft.count + 1))
    return _ENGINES[cell.engine.name](role, sizes, cell)


@lru_cache(maxsize=512)
def _sizes(model: str, policy: Policy, seq_len: int, new_tokens: int, batch: int, inside: bool, chosen: bool) -> _Sizes:
    from parties.models.folding import folded_shapes  # torch comes with it, and most commands do without

    spec, prompt = model_spec(model), seq_len - 1
    shapes = [prod(shape) for shape in folded_shapes(spec).values()]
    held = policy.held(prompt, new_tokens)
    rows = 2 * spec.intermediate + 4 * spec.hidden + spec.n_heads * spec.head_dim + spec.cached_numbers
    evicting = policy.cached(prompt) < prompt
    rated = 4 * min(_SCORES, 256 * spec.n_heads * prompt) if evicting else 0
    moved = spec.n_kv_heads * policy.cached(prompt) * prompt if evicting else 0
    scores = 3 * min(_QUERIES, prompt) * spec.n_heads * prompt
    keys = batch * spec.n_layers * spec.cached_numbers
    return _Sizes(
        parameters=spec.parameters,
        folded=sum(shapes),
        largest=max(shapes),
        cached=keys * held,
        logits=batch * new_tokens * spec.vocab,
        step=batch * max(spec.intermediate, spec.n_heads * policy.attended(held), spec.vocab if chosen else 0),
        masked=0 if inside else min(_MASKED_AT_ONCE, keys * held),
        prompt=prompt * rows * 2 + moved if inside else 0,
        kept=0 if inside or policy.chunk else batch * spec.n_layers * spec.hidden * prompt,
        plain_prompt=prompt * rows + max(scores, rated) + prompt * prompt // 8,
    )


def _fss(role: str, sizes: _Sizes, cell: Cell) -> Need:
    if role == "referee":
        return _referee(sizes)
    chunk = _CHUNK_BYTES if sizes.prompt else 0
    per_number = _PER_DEALT_NUMBER if role == "dealer" else _PER_NUMBER["fss"]
    need = Need(
        weights=8 * sizes.folded,
        cache=16 * (sizes.cached + sizes.logits),
        work=max(per_number * sizes.step + 8 * sizes.prompt + chunk, _PER_MASKED_NUMBER * sizes.masked),
        loading=_loading(sizes, "fss") if role == "server" else 0,
    )
    dealt, message = _traffic(cell)
    if role == "dealer":
        return replace(need, randomness=sum(min(_QUEUED_BYTES, size) for size in dealt.values()))
    need = replace(need, recordings=2 * message)
    if cell.offline == "stored":
        return replace(need, disk=dealt[role])
    return replace(need, randomness=min(_AHEAD_BYTES, dealt[role]))


def _loading(sizes: _Sizes, engine: str) -> int:
    return 4 * sizes.parameters + _PER_LOADED_NUMBER[engine] * sizes.largest


def _traffic(cell: Cell) -> tuple[dict[str, int], int]:
    """Bytes that the dealer sends to each party in the cell, and those of a party's messages for a token.

    Where they are not known here, as much as may be ahead, and none.
    """
    found: Forecast | None = known_forecast(cell, COUNTED_TOKENS)
    if found is None:
        return {"client": _AHEAD_BYTES, "server": _AHEAD_BYTES}, 0
    phases = [found.decode, *([found.prefill] if found.prefill else [])]
    dealt = {role: round(sum(phase.dealt[role] for phase in phases)) for role in ("client", "server")}
    return dealt, round(max(found.decode.sent.values()) / cell.new_tokens)


def _crypten(role: str, sizes: _Sizes, cell: Cell) -> Need:
    if role == "referee":
        return _referee(sizes)
    widest = max(sizes.largest, sizes.cached // model_spec(cell.model).n_layers)
    if role == "dealer":
        return Need(work=20 * widest)
    return Need(
        weights=8 * sizes.folded,
        cache=8 * (sizes.cached + sizes.logits),
        work=40 * widest + _PER_NUMBER["crypten"] * sizes.step + 8 * sizes.prompt,
        loading=_loading(sizes, "crypten") if role == "server" else 0,
    )


def _plain(role: str, sizes: _Sizes, cell: Cell) -> Need:  # noqa: ARG001 - as the other engines
    return _referee(sizes) if role == "referee" else Need()


def _spu(role: str, sizes: _Sizes, cell: Cell) -> Need:
    """A party and its worker, which has one share of every number, or two in ABY3; no record has confirmed it yet."""
    if role == "referee":
        return _referee(sizes)
    from parties.engines.spu.protocols import PROTOCOLS

    roles = PROTOCOLS[cell.spu.protocol].roles
    if role not in roles:
        return Need()
    share = 8 * (len(roles) - 1)
    loading = share * sizes.largest + (_loading(sizes, "spu") if role == "server" else 0)  # a matrix is copied into SPU
    cache = share * (sizes.cached + sizes.logits)
    return Need(weights=share * sizes.folded, cache=cache, loading=loading, worker=_WORKER_BYTES)


def _referee(sizes: _Sizes) -> Need:
    return Need(
        weights=8 * sizes.folded,
        cache=8 * (sizes.logits + sizes.kept),
        work=16 * sizes.cached + 8 * sizes.plain_prompt,
        loading=_loading(sizes, "plain"),
    )


_ENGINES: dict[str, Callable[[str, _Sizes, Cell], Need]] = {
    "fss": _fss,
    "crypten": _crypten,
    "plain": _plain,
    "spu": _spu,
}
