"""The cost of top-k by pivots and of comparing all pairs: comparisons, rounds and bytes, exact.

    python benchmarks/fss_pivots.py [--comparison prefix]

Counts the flags of the top k of n, without the shuffle's matrix, which both need, in a dry run of the protocol on
shapes, as the dealer and `mpcache-bench cost` do it.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor

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


def cost(n: int, how: Literal["dcf", "prefix"], program: Callable[[Masked], Program[Any]]) -> tuple[int, int, int]:
    """Returns rounds, online bytes each way and offline bytes to both parties, for a top-k of n shuffled keys."""
    sent: list[int] = []
    dealt: list[int] = []

    def exchange(wanted: Sequence[Opening]) -> list[Any]:
        sent.append(sum(8 * o.hidden.numel() if isinstance(o.hidden, Tensor) else o.hidden.size for o in wanted))
        return dealer_openings(wanted)

    with MetaTensors():
        source = CountingSource(StageMeter(), dealt.append, dealt.append)
        source.comparison = how
        keys = distinct(Masked(source, meta_tensor((1, n)), meta_tensor((1, n)), 16, 8.0, Masked.CONSTANT))
        run(program(keys), exchange)
        source.flush()
    return len(sent), sum(sent), sum(dealt)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparison", choices=["dcf", "prefix"], default="dcf")
    how = parser.parse_args().comparison
    print("| n | k | way | comparisons | rounds | online bytes each way | offline MB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for n in (512, 1024, 4096):
        pairs = cost(n, how, open_ranking)
        print(_row(n, "any", "all pairs", n * (n - 1) // 2, pairs))
        for k in (8, n // 10, 2 * n // 5):
            sizes = sample_sizes(n, k)
            by_pivots = cost(n, how, lambda x, sizes=sizes: top_k_by_pivots(x, sizes))
            print(_row(n, f"{k:,}", "pivots", sizes.comparisons, by_pivots))


def _row(n: int, k: str, way: str, comparisons: int, counted: tuple[int, int, int]) -> str:
    rounds, online, offline = counted
    return f"| {n:,} | {k} | {way} | {comparisons:,} | {rounds} | {online:,} | {offline / 1e6:,.1f} |"


if __name__ == "__main__":
    main()
