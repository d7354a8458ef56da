"""MPCache (arXiv 2501.06807) written once more from its equations: loops over heads, clusters and tokens, on lists.

Only keys and values are stored between steps: all bounds are recomputed from all keys of a cluster.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from parties.models.spec import ModelSpec
from tests.helpers.naive_decoder import forward, heads, linear, mlp, norm, rotate

Vector = list[float]
Rows = list[Vector]


@dataclass(frozen=True)
class Settings:
    """The paper's values."""

    static_keep: float = 0.4
    select: float = 0.2
    coarse: float = 0.5
    alpha: float = 0.6
    window: float = 0.2
    fine_size: int = 16
    coarse_size: int = 32
    share_from: int = 2
    share_layers: int = 2
    ahead: bool = False
    by: str = "query_head"


@dataclass(frozen=True)
class Step:
    """One decoded token.

    Attributes:
        logits: [vocab].
        attended: For each layer and query head the cached tokens that it attended to, ascending.
    """

    logits: Tensor
    attended: list[list[list[int]]]


def dot(x: Vector, y: Vector) -> float:
    return sum(a * b for a, b in zip(x, y, strict=True))


def softmax(scores: Vector) -> Vector:
    largest = max(scores)
    parts = [math.exp(score - largest) for score in scores]
    total = sum(parts)
    return [part / total for part in parts]


def best(candidates: Sequence[int], score: Mapping[int, float], count: int) -> list[int]:
    """The `count` candidates with the highest score; among equals the lower index."""
    return sorted(candidates, key=lambda candidate: (-score[candidate], candidate))[:count]


def source_layers(n_layers: int, settings: Settings) -> list[int]:
    """For each layer the first of its group: alone at first, then groups of adjacent layers."""
    result: list[int] = []
    for layer in range(n_layers):
        starts_group = layer < settings.share_from or (layer - settings.share_from) % settings.share_layers == 0
        result.append(layer if starts_group else result[-1])
    return result


def received_attention(q: list[Rows], k: list[Rows], window: float) -> dict[int, float]:
    """Attention that each prompt token gets from the last queries of all heads."""
    n, scale = len(k[0]), math.sqrt(len(k[0][0]))
    received = dict.fromkeys(range(n), 0.0)
    for head, queries in enumerate(q):
        keys = k[head * len(k) // len(q)]
        for i in range(n - max(1, int(window * n)), n):
            weights = softmax([dot(queries[i], keys[j]) / scale for j in range(i + 1)])
            for j, weight in enumerate(weights):
                received[j] += weight
    return received


def kept_tokens(q: list[Rows], k: list[Rows], settings: Settings) -> list[int]:
    """Static eviction: a fixed share of the prompt by rank, in the prompt's order."""
    n = len(k[0])
    count = max(1, round(settings.static_keep * n))
    return sorted(best(range(n), received_attention(q, k, settings.window), count))


def clusters(tokens: int, size: int) -> list[list[int]]:
    """Runs of adjacent tokens; the last one may be short."""
    return [list(range(start, min(start + size, tokens))) for start in range(0, tokens, size)]


def similarity(q: Vector, keys: Rows, cluster: list[int], alpha: float) -> float:
    """Returns q . (alpha * max + (1 - alpha) * min) over the keys of a cluster."""
    total = 0.0
    for i, component in enumerate(q):
        column = [keys[token][i] for token in cluster]
        total += component * (alpha * max(column) + (1 - alpha) * min(column))
    return total


def chosen_tokens(q: Vector, keys: Rows, settings: Settings) -> list[int]:
    """Dynamic selection by one query head: coarse clusters, then fine clusters among their children."""
    coarse, fine = clusters(len(keys), settings.coarse_size), clusters(len(keys), settings.fine_size)

    inner = range(1, len(coarse) - 1)
    score = {c: similarity(q, keys, coarse[c], settings.alpha) for c in inner}
    alive = [0, len(coarse) - 1, *best(inner, score, int(len(coarse) * settings.coarse))]

    candidates = [f for f in range(1, len(fine) - 1) if fine[f][0] // settings.coarse_size in alive]
    score = {f: similarity(q, keys, fine[f], settings.alpha) for f in candidates}
    selected = best(candidates, score, int(len(fine) * settings.select))
    return [token for f in sorted({0, *selected, len(fine) - 1}) for token in fine[f]]


class NaiveMPCache:
    """Decodes token by token with a compressed cache.

    Attributes:
        k: Keys of each layer, key head and cached token.
        v: Values, likewise.
        kept: For each layer the prompt tokens that survived static eviction.
    """

    def __init__(
        self, spec: ModelSpec, weights: Mapping[str, Tensor], prompt: Sequence[int], settings: Settings
    ) -> None:
        self.spec, self.weights, self.settings = spec, weights, settings
        self.source_layers = source_layers(spec.n_layers, settings)
        self.k: list[list[Rows]] = []
        self.v: list[list[Rows]] = []
        self.kept: list[list[int]] = []
        self.position = len(prompt)
        forward(spec, weights, prompt, observe=self._compress)

    def _compress(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> None:
        is_source = self.source_layers[layer] == layer
        kept = kept_tokens(q.tolist(), k.tolist(), self.settings) if is_source else self.kept[-1]
        self.kept.append(kept)
        self.k.append([[rows[token] for token in kept] for rows in k.tolist()])
        self.v.append([[rows[token] for token in kept] for rows in v.tolist()])

    def step(self, token: int) -> Step:
        spec, w = self.spec, self.weights
        attended: list[list[list[int]]] = []
        before, x = None, w["embed"][[token]]
        if spec.family == "gpt2":
            x = x + w["positions"][[self.position]]
        for layer in range(spec.n_layers):
            at = f"layers.{layer}"
            queries = self._take_in(layer, norm(spec, w, f"{at}.attn_norm", x))
            if self.source_layers[layer] == layer:
                attended.append(self._chosen(layer, queries, before))
            else:
                attended.append(attended[-1])
            before = x
            x = x + linear(w, f"{at}.o", self._attention(layer, queries, attended[-1]))
            x = x + mlp(spec, w, at, norm(spec, w, f"{at}.mlp_norm", x))
        self.position += 1
        x = norm(spec, w, "final_norm", x)
        return Step((x @ (w["embed"].T if spec.tied else w["lm_head.weight"]))[0], attended)

    def _chosen(self, layer: int, queries: list[Vector], before: Tensor | None) -> list[list[int]]:
        """Tokens by query head, by the layer's queries or, ahead, by those of the input of the layer before."""
        if self.settings.ahead and before is None:
            return [list(range(len(self.k[layer][0])))] * self.spec.n_heads
        if self.settings.ahead:
            normal = norm(self.spec, self.weights, f"layers.{layer}.attn_norm", before)
            guess = heads(linear(self.weights, f"layers.{layer}.q", normal), self.spec.n_heads)
            if self.spec.family == "llama":
                guess = self._rotated(guess)
            queries = [row[0].tolist() for row in guess]
        if self.settings.by == "key_head":
            size = self.spec.n_heads // self.spec.n_kv_heads
            groups = [queries[start : start + size] for start in range(0, self.spec.n_heads, size)]
            queries = [[sum(parts) / size for parts in zip(*group, strict=True)] for group in groups for _ in group]
        keys = self._by_query_head(self.k[layer])
        return [chosen_tokens(q, k, self.settings) for q, k in zip(queries, keys, strict=True)]

    def _take_in(self, layer: int, x: Tensor) -> list[Vector]:
        """Adds the token's key and value to the cache; returns its query for each head."""
        q, k, v = (
            heads(linear(self.weights, f"layers.{layer}.{name}", x), count)
            for name, count in (("q", self.spec.n_heads), ("k", self.spec.n_kv_heads), ("v", self.spec.n_kv_heads))
        )
        if self.spec.family == "llama":
            q, k = self._rotated(q), self._rotated(k)
        for head in range(self.spec.n_kv_heads):
            self.k[layer][head].append(k[head, 0].tolist())
            self.v[layer][head].append(v[head, 0].tolist())
        return [q[head, 0].tolist() for head in range(self.spec.n_heads)]

    def _rotated(self, x: Tensor) -> Tensor:
        """`rotate` starts at position 0, so rows of zeros stand for the tokens before."""
        before = torch.zeros(x.shape[0], self.position, x.shape[2], dtype=x.dtype)
        return rotate(torch.cat([before, x], dim=1), self.spec.rope_theta)[:, -1:]

    def _by_query_head(self, rows: list[Rows]) -> list[Rows]:
        group = self.spec.n_heads // self.spec.n_kv_heads
        return [rows[head // group] for head in range(self.spec.n_heads)]

    def _attention(self, layer: int, queries: list[Vector], attended: list[list[int]]) -> Tensor:
        """Exact softmax attention over the attended tokens, heads concatenated: [1, heads * head_dim]."""
        keys, values = self._by_query_head(self.k[layer]), self._by_query_head(self.v[layer])
        mixed: Vector = []
        for q, k, v, tokens in zip(queries, keys, values, attended, strict=True):
            weights = softmax([dot(q, k[token]) / math.sqrt(len(q)) for token in tokens])
            for i in range(len(q)):
                mixed.append(sum(weight * v[token][i] for weight, token in zip(weights, tokens, strict=True)))
        return torch.tensor([mixed], dtype=torch.float64)
