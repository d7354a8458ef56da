"""The key-value cache of one decoder: secret values, public sizes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from parties.decoding.clusters import Selection
from parties.engines.operations import Operations

_MOST_ROOM = 1 / 16
"""Most room that a layer has for tokens to come, beyond a block, as a share of its tokens: the work grows with it, but
segments are recorded anew whenever it is used up."""


@dataclass(frozen=True)
class Rows:
    """Rows of the residual stream, and the input of their norm.

    Attributes:
        x: The rows, [n, hidden].
        for_norm: The same as the engine's `normalise` takes them (`Operations.to_norm`).
    """

    x: Any
    for_norm: Any

    @property
    def shape(self) -> Any:
        """Public shape."""
        return self.x.shape


@dataclass(frozen=True)
class Block:
    """Keys and values with spare rows at the end, so that shapes last for several tokens.

    Attributes:
        k: Keys, [kv_heads, capacity, head_dim]; the spare rows are zero.
        v: Values, the same shape.
        filled: The first rows of both, those of tokens, as the layer shows them.
    """

    k: Any
    v: Any
    filled: tuple[Any, Any] = (None, None)

    @property
    def capacity(self) -> int:
        """Rows, with the spare ones. Public."""
        return int(self.k.shape[1])


@dataclass
class LayerCache:
    """Keys and values of one layer, and the state of its policy.

    Attributes:
        k: Keys with position, [kv_heads, tokens, head_dim].
        v: Values, the same shape.
        alive: 1 where a token counts and 0 where it was evicted but is still there, [groups, tokens]; None: all do.
        state: The policy's secret values by name.
        room: Columns of `alive`, and of what the policy keeps per token, that wait for the next tokens.
        kept: At prefill, the engine's handle on which prompt tokens stayed.
        block: The same keys and values with spare rows, while tokens are decoded; unused once `k` or `v` is replaced.
        newest: The key that was appended last, [kv_heads, 1, head_dim].
        selection: The tokens that the current step attends to.
        weights: Attention weights of the tokens of a pass, [heads, n, tokens], if its policy observes them.
        rows: The next input of the layer, for each chunk of a prompt, or for a token. In a batch, the layers of the
            first sequence hold the tokens' rows of all.
        queries: While the prompt runs, its queries so far, [heads, tokens, head_dim] for each chunk.
    """

    k: Any = None
    v: Any = None
    alive: Any = None
    state: dict[str, Any] = field(default_factory=dict)
    room: int = 0
    kept: Any = None
    block: Block | None = None
    newest: Any = None
    selection: Selection | None = None
    weights: Any = None
    rows: tuple[Rows, ...] = ()
    queries: tuple[Any, ...] = ()

    @property
    def tokens(self) -> int:
        """Cached tokens. Public."""
        return 0 if self.k is None else int(self.k.shape[1])

    def append(self, engine: Operations, k: Any, v: Any) -> None:
        """Appends keys and values [kv_heads, n, head_dim] of new tokens, which are alive."""
        if self.k is None:  # copies: views would keep the queries, which were computed with them, in memory
            self.k, self.v = (engine.cat([rows], dim=1) for rows in (k, v))
            self.newest = self.k[:, -1:]
            return
        self.newest = k[:, -1:]
        count, room, block = k.shape[1], self.room, self.spare()
        if self.alive is not None and count > room:
            ones = engine.constant(torch.ones(self.alive.shape[0], count - room))
            self.alive = engine.cat([self.alive, ones], dim=1)
        if block is not None and count <= room:
            place = self.tokens
            written = (engine.written(old, new, place) for old, new in ((block.k, k), (block.v, v)))
            self.show(Block(*written), place + count)
            return
        self.k, self.v = engine.cat([self.k, k], dim=1), engine.cat([self.v, v], dim=1)
        self.room = max(0, room - count)

    def spare(self) -> Block | None:
        """The keys and values with spare rows, if there are any and they are those of the layer."""
        block = self.block
        if block is None or block.filled[0] is not self.k or block.filled[1] is not self.v:
            return None
        return block

    def values(self) -> dict[str, Any]:
        """Every secret value that is handed over with the layer, by its public name."""
        named = {"k": self.k, "v": self.v, "alive": self.alive, **self.state}
        return {name: value for name, value in named.items() if value is not None}

    def put(self, name: str, value: Any) -> None:
        """Replaces one of `values`."""
        if name in ("k", "v", "alive"):
            setattr(self, name, value)
        else:
            self.state[name] = value

    def make_room(
        self,
        engine: Operations,
        begin: Callable[[int], Mapping[str, torch.Tensor]],
        tokens: int | None = None,
        needed: int = 1,
        wanted: int = 1,
    ) -> None:
        """Makes room for the next token, or for several if the engine's shapes shall last. Local.

        Args:
            engine: The engine.
            begin: See `Policy.begin_tokens`.
            tokens: Cached tokens by which the room is chosen; those of the layer if left out. In a batch they are those
                of the first cache, so that the room of all is used up together.
            needed: Number of tokens that need room now.
            wanted: Number of tokens that will: the room is theirs as far as it costs little (`_MOST_ROOM`).
        """
        place = self.tokens
        if self.k is None or (self.room >= needed and (engine.block == 1 or self.spare() is not None)):
            return
        start = place if tokens is None else tokens
        wanted = min(wanted, max(engine.block, int(_MOST_ROOM * start))) if engine.block > 1 else 1
        count = -(-(start + max(needed, wanted)) // engine.block) * engine.block - start
        for name, numbers in begin(count).items():
            if name in self.state:
                self.state[name] = self._widened(engine, self.state[name], numbers)
        if self.alive is not None:
            self.alive = self._widened(engine, self.alive, torch.ones(count))
        if engine.block > 1:
            k, v = (engine.lengthened(rows, count) for rows in (self.k, self.v))
            self.show(Block(k, v), place)
        self.room = count

    def _widened(self, engine: Operations, value: Any, numbers: torch.Tensor) -> Any:
        """Cuts off what room is left of [groups, n, ...], and appends public numbers, [count], to each row."""
        groups, columns, *rest = value.shape
        more = numbers.reshape(1, -1, *(1 for _ in rest)).expand(groups, -1, *rest).contiguous()
        return engine.cat([value[:, : columns - self.room], engine.constant(more)], dim=1)

    def restore(self, other: "LayerCache", tokens: int) -> None:
        """Takes the first `tokens` tokens of another state of this layer; there is room where the others were."""
        block, columns = other.spare(), other.tokens + other.room
        if block is None:
            self.k, self.v, self.block = other.k[:, :tokens], other.v[:, :tokens], None
        else:
            self.show(block, tokens)
        self.room, self.alive, self.newest = columns - tokens, other.alive, self.k[:, -1:]

    def show(self, block: Block, tokens: int) -> None:
        """Shows the first rows of a block as the layer's keys and values."""
        self.k, self.v = block.k[:, :tokens], block.v[:, :tokens]
        self.block, self.room = Block(block.k, block.v, (self.k, self.v)), block.capacity - tokens


@dataclass
class Cache:
    """All layers, and where the sequence is.

    Attributes:
        layers: The layers.
        position: Position of the next token. Public.
        prompt: Length of the prompt. Public.
        token: The token that is decoded, at its owner, a secret; empty elsewhere. The list stays the same object.
        lanes: Sequences of equal length that the cache holds: axis 0 of all values is that of the first sequence, then
            that of the second, and so on.
    """

    layers: list[LayerCache]
    position: int = 0
    prompt: int = 0
    token: list[int] = field(default_factory=list)
    lanes: int = 1

    @classmethod
    def empty(cls, n_layers: int) -> "Cache":
        """A cache without tokens."""
        return cls([LayerCache() for _ in range(n_layers)])

    @property
    def sequences(self) -> "tuple[Cache, ...]":
        """The cache itself: it is a batch of one."""
        return (self,)

    @property
    def tokens(self) -> tuple[int, ...]:
        """Cached tokens of each layer. Public."""
        return tuple(layer.tokens for layer in self.layers)

    def values(self) -> dict[str, Any]:
        """Every secret value by a public name, as it is shared when a cache is handed over."""
        layers = enumerate(self.layers)
        return {f"{index}.{name}": value for index, layer in layers for name, value in layer.values().items()}

    @classmethod
    def from_values(cls, n_layers: int, position: int, named: dict[str, Any]) -> "Cache":
        """The inverse of `values`, for a cache that holds a prompt up to `position` and nothing else."""
        cache = cls.empty(n_layers)
        cache.position = cache.prompt = position
        for path, value in named.items():
            index, name = path.split(".", 1)
            cache.layers[int(index)].put(name, value)
        return cache

    def snapshot(self) -> Callable[[], None]:
        """Returns a function that restores the current content, any number of times."""
        position, kept = self.position, _copies(self.layers)

        def restore() -> None:
            self.position, self.layers = position, _copies(kept)

        return restore


def _copies(layers: Sequence[LayerCache]) -> list[LayerCache]:
    return [replace(layer, state=dict(layer.state)) for layer in layers]
