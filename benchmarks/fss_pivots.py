"""The cost of top-k by pivots and of comparing all pairs: comparisons, rounds and bytes, exact.

    python benchmarks/fss_pivots.py [--comparison prefix]

Counts the places of the top k of n in each of several rows, without the shuffle's matrix, which both need, in a dry run
of the protocol on shapes, as the dealer and `mpcache-bench cost` do it.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any, Literal

from parties.decoding.program import Program, run
from parties.engines.fss.arithmetic.opening import Opening, dealer_openings
from parties.engines.fss.arithmetic.values import Masked
from parties.engines.fss.cost.counting import CountingSource
from parties.engines.fss.cost.meta_tensors import MetaTensors, meta_tensor
from parties.engines.fss.topk.pivots import top_k_by_pivots
from parties.engines.fss.topk.ranking import open_ranking
from parties.engines.fss.topk.sample_sizes import sample_sizes
from parties.engines.fss.topk.selection import distinct
from parties.metering.meter import StageMeter


def cost(
    rows: int, n: int, how: Literal["dcf", "prefix"], program: Callable[[Masked], Program[Any]]
) -> tuple[int, int, int]:
    """Returns rounds, online bytes each way and offline bytes to both, for a top-k of shuffled keys [rows, n]."""
    sent: list[int] = []
    dealt: list[int] = []

    def exchange(wanted: Sequence[Opening]) -> list[Any]:
        sent.append(sum(o.hidden.nbytes for o in wanted))
        return dealer_openings(wanted)

    with MetaTensors():
        source = CountingSource(StageMeter(), dealt.append, dealt.append)
        source.comparison = how
        keys = distinct(Masked(source, meta_tensor((rows, n)), meta_tensor((rows, n)), 16, 8.0, Masked.CONSTANT))
        run(program(keys), exchange)
        source.flush()
    return len(sent), sum(sent), sum(dealt)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparison", choices=["dcf", "prefix"], default="dcf")
    how = parser.parse_args().comparison
    print("| rows | n | k | way | comparisons | rounds | online bytes each way | offline MB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for rows, n in ((9, 24), (9, 50), (9, 128), (9, 255), (1, 512), (1, 1024), (1, 4096)):
        pairs = cost(rows, n, how, open_ranking)
        print(_row(rows, n, "any", "all pairs", rows * n * (n - 1) // 2, pairs))
        for k in (n // 10, 2 * n // 5):
            sizes = sample_sizes(n, k, rows)
            by_pivots = cost(rows, n, how, lambda x, sizes=sizes: top_k_by_pivots(x, sizes))
            print(_row(rows, n, f"{k:,}", "pivots", sizes.comparisons, by_pivots))


def _row(rows: int, n: int, k: str, way: str, comparisons: int, counted: tuple[int, int, int]) -> str:
    rounds, online, offline = counted
    return f"| {rows} | {n:,} | {k} | {way} | {comparisons:,} | {rounds} | {online:,} | {offline / 1e6:,.1f} |"


if __name__ == "__main__":
    main()
