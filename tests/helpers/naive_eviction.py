"""The eviction policies written once more from their papers: loops over heads and tokens, on lists and dictionaries.

Nothing ever leaves the reference's cache: a policy selects, for each key head, the positions that count. That is
independent of how the project moves rows and stores its state.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from parties.models.spec import ModelSpec
from tests.helpers.naive_decoder import linear, mlp, norm
from tests.helpers.naive_mpcache import NaiveMPCache, Rows, Settings, best, dot, softmax

Weights = list[dict[int, float]]
"""For each query head the attention of the current query to each position that counts."""


def causal_attention(queries: Rows, keys: Rows, i: int) -> list[float]:
    """Weights of query i of a prompt."""
    return softmax([dot(queries[i], keys[j]) / math.sqrt(len(queries[i])) for j in range(i + 1)])


class Choice:
    """A policy as the positions that count: all, unless a subclass overrides it."""

    def __init__(self, ratio: float, interval: int = 1) -> None:
        self.ratio, self.interval = ratio, interval

    def prompt(self, q: list[Rows], k: list[Rows]) -> list[list[int]]:
        """Positions of the prompt that count, for each key head."""
        self.n, self.group, self.heads = len(k[0]), len(q) // len(k), len(k)
        self.budget, self.steps = max(1, int(self.n * (1 - self.ratio))), 0
        return [list(range(self.n)) for _ in k]

    def looked_at(self, q: list[list[float]], keys: list[Rows], alive: list[list[int]]) -> list[list[int]]:
        """Positions that each query head attends to."""
        return [alive[head // self.group] for head in range(len(q))]

    def stepped(self, weights: Weights, alive: list[list[int]]) -> list[list[int]]:
        """Positions that count from the next step on; `alive` has the newest one."""
        self.steps += 1
        if self.steps % self.interval or len(alive[0]) <= self.budget:
            return alive
        return self.evict(weights, alive)

    def evict(self, weights: Weights, alive: list[list[int]]) -> list[list[int]]:
        raise NotImplementedError

    def of_group(self, weights: Weights, head: int, position: int) -> list[float]:
        return [weights[head * self.group + i].get(position, 0.0) for i in range(self.group)]


def keep(alive: list[int], score: Mapping[int, float], count: int, last: int) -> list[int]:
    """The `last` newest, and the best of the others up to `count` in all, in order."""
    recent = alive[len(alive) - last :]
    return sorted([*best(alive[: len(alive) - last], score, count - last), *recent])


class Streaming(Choice):
    def __init__(self, ratio: float, interval: int, sinks: int) -> None:
        super().__init__(ratio, interval)
        self.sinks = sinks

    def prompt(self, q: list[Rows], k: list[Rows]) -> list[list[int]]:
        return self.evict([], super().prompt(q, k))

    def evict(self, weights: Weights, alive: list[list[int]]) -> list[list[int]]:
        sinks = min(self.sinks, self.budget)
        return [row[:sinks] + row[len(row) - self.budget + sinks :] for row in alive]


class HeavyHitters(Choice):
    def __init__(self, ratio: float, interval: int, recent: float) -> None:
        super().__init__(ratio, interval)
        self.recent = recent

    def prompt(self, q: list[Rows], k: list[Rows]) -> list[list[int]]:
        alive = super().prompt(q, k)
        self.total = [dict.fromkeys(range(self.n), 0.0) for _ in k]
        for head, queries in enumerate(q):
            for i in range(self.n):
                for j, weight in enumerate(causal_attention(queries, k[head // self.group], i)):
                    self.total[head // self.group][j] += weight
        return self.evict([], alive)

    def stepped(self, weights: Weights, alive: list[list[int]]) -> list[list[int]]:
        for head, row in enumerate(alive):
            for position in row:
                self.total[head][position] = self.total[head].get(position, 0.0) + sum(
                    self.of_group(weights, head, position)
                )
        return super().stepped(weights, alive)

    def evict(self, weights: Weights, alive: list[list[int]]) -> list[list[int]]:
        last = int(self.budget * self.recent)
        return [keep(row, total, self.budget, last) for row, total in zip(alive, self.total, strict=True)]


class CurrentQuery(Choice):
    def prompt(self, q: list[Rows], k: list[Rows]) -> list[list[int]]:
        alive = super().prompt(q, k)
        weights = [dict(enumerate(causal_attention(rows, k[h // self.group], self.n - 1))) for h, rows in enumerate(q)]
        return self.evict(weights, alive)

    def evict(self, weights: Weights, alive: list[list[int]]) -> list[list[int]]:
        mean = {position: sum(row[position] for row in weights) / len(weights) for position in alive[0]}
        return [keep(row, mean, self.budget, 1) for row in alive]


class Snap(Choice):
    def __init__(self, ratio: float, window: int, kernel: int, pool: Any) -> None:
        super().__init__(ratio, 10**9)
        self.window, self.kernel, self.pool = window, kernel, pool

    def prompt(self, q: list[Rows], k: list[Rows]) -> list[list[int]]:
        alive, window = super().prompt(q, k), min(self.window, self.budget)
        rest, half = self.n - window, self.kernel // 2
        score = [dict.fromkeys(range(rest), 0.0) for _ in k]
        for head, queries in enumerate(q):
            seen = [0.0] * rest
            for i in range(rest, self.n):
                for j, weight in enumerate(causal_attention(queries, k[head // self.group], i)[:rest]):
                    seen[j] += weight
            for j in range(rest):
                near = [seen[i] if 0 <= i < rest else 0.0 for i in range(j - half, j + half + 1)]
                score[head // self.group][j] += self.pool(near)
        return [keep(row, of, self.budget, window) for row, of in zip(alive, score, strict=True)]


class Recurrence(Choice):
    def __init__(self, ratio: float, interval: int, alpha: float) -> None:
        super().__init__(ratio, interval)
        self.alpha = alpha

    def prompt(self, q: list[Rows], k: list[Rows]) -> list[list[int]]:
        self.seen = [dict.fromkeys(range(len(k[0])), 0) for _ in k]
        self.longest = [dict.fromkeys(range(len(k[0])), 0) for _ in k]
        return super().prompt(q, k)

    def stepped(self, weights: Weights, alive: list[list[int]]) -> list[list[int]]:
        now = self.steps + 1
        for head, row in enumerate(alive):
            self.seen[head].setdefault(row[-1], now)
            self.longest[head].setdefault(row[-1], 0)
            for position in row:
                if max(self.of_group(weights, head, position)) >= self.alpha:
                    gap = now - self.seen[head][position]
                    self.longest[head][position] = max(self.longest[head][position], gap)
                    self.seen[head][position] = now
        return super().stepped(weights, alive)


def recurrence_score(age: float, longest: float) -> float:
    """The released code's formula."""
    first = 2 / (1 + math.exp(min(700.0, 1 + age / (longest + 1e-5))))
    return first + (2 / (1 + math.exp(longest - 1)) if longest else 0.0)


class Pages(Choice):
    def __init__(self, ratio: float, size: int) -> None:
        super().__init__(ratio, 10**9)
        self.size = size

    def looked_at(self, q: list[list[float]], keys: list[Rows], alive: list[list[int]]) -> list[list[int]]:
        result = []
        for head, query in enumerate(q):
            rows = keys[head // self.group]
            pages = [range(i, min(i + self.size, len(rows))) for i in range(0, len(rows), self.size)]
            budget = math.ceil(max(1, int(len(rows) * (1 - self.ratio))) / self.size) - 1
            bounds = {i: self.bound(query, [rows[j] for j in page]) for i, page in enumerate(pages[:-1])}
            chosen = best(range(len(pages) - 1), bounds, budget)
            result.append([j for i in sorted([*chosen, len(pages) - 1]) for j in pages[i]])
        return result

    @staticmethod
    def bound(query: list[float], rows: Rows) -> float:
        columns = list(zip(*rows, strict=True))
        return sum(max(x * min(column), x * max(column)) for x, column in zip(query, columns, strict=True))


class NaiveEviction(NaiveMPCache):
    """Decodes with one `Choice` for each layer; `counted` are the positions that count after each step."""

    def __init__(
        self, spec: ModelSpec, weights: Mapping[str, Tensor], prompt: Sequence[int], choices: list[Choice]
    ) -> None:
        self.choices, self.counted = choices, [[[0]]] * spec.n_layers
        super().__init__(spec, weights, prompt, Settings())

    def _compress(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> None:
        self.counted[layer] = self.choices[layer].prompt(q.tolist(), k.tolist())
        self.k.append(k.tolist())
        self.v.append(v.tolist())

    def logits(self, token: int) -> Tensor:
        """[vocab]."""
        w, x = self.weights, self.weights["embed"][[token]]
        for layer in range(self.spec.n_layers):
            at = f"layers.{layer}"
            queries = self._take_in(layer, norm(self.spec, w, f"{at}.attn_norm", x))
            alive = [[*row, len(self.k[layer][0]) - 1] for row in self.counted[layer]]
            looked_at = self.choices[layer].looked_at(queries, self.k[layer], alive)
            x = x + linear(w, f"{at}.o", self._attention(layer, queries, looked_at))
            keys = self._by_query_head(self.k[layer])
            seen = [
                dict(zip(row, softmax([dot(q, k[j]) / math.sqrt(len(q)) for j in row]), strict=True))
                for q, k, row in zip(queries, keys, looked_at, strict=True)
            ]
            self.counted[layer] = self.choices[layer].stepped(seen, alive)
            x = x + mlp(self.spec, w, at, norm(self.spec, w, f"{at}.mlp_norm", x))
        self.position += 1
        x = norm(self.spec, w, "final_norm", x)
        logits: Tensor = (x @ w["embed"].T)[0]
        return logits
