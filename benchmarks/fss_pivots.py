"""What choosing the best by pivots costs beside comparing all pairs: comparisons, rounds and bytes, exact.

    python benchmarks/fss_pivots.py [--comparison carry]

The flags of the best k of n, without the shuffle's matrix, which both ways need: a walk of the protocol with shapes
alone, which is what the dealer does and what `mpcache-bench cost` counts.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor

from parties.decoding.program import Program, run
from parties.engines.fss.arithmetic.opening import Opening, dealers
from parties.engines.fss.arithmetic.values import Masked
from parties.engines.fss.cost.counting import CountingSource
from parties.engines.fss.cost.meta_tensors import MetaTensors, meta_tensor
from parties.engines.fss.topk.pivots import highest
from parties.engines.fss.topk.ranking import ranked
from parties.engines.fss.topk.sample_sizes import caps
from parties.engines.fss.topk.selection import distinct
from parties.metering.meter import StageMeter


def cost(n: int, how: Literal["dcf", "prefix"], program: Callable[[Masked], Program[Any]]) -> tuple[int, int, int]:
    """Rounds, online bytes each way and offline bytes to both parties, of a choice among n shuffled keys."""
    sent: list[int] = []
    dealt: list[int] = []

    def exchange(wanted: Sequence[Opening]) -> list[Any]:
        sent.append(sum(8 * o.hidden.numel() if isinstance(o.hidden, Tensor) else o.hidden.size for o in wanted))
        return dealers(wanted)

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
        pairs = cost(n, how, ranked)
        print(_row(n, "any", "all pairs", n * (n - 1) // 2, pairs))
        for k in (8, n // 10, 2 * n // 5):
            sizes = caps(n, k)
            by_pivots = cost(n, how, lambda x, sizes=sizes: highest(x, sizes))  # type: ignore[misc]
            print(_row(n, f"{k:,}", "pivots", sizes.comparisons, by_pivots))


def _row(n: int, k: str, way: str, comparisons: int, counted: tuple[int, int, int]) -> str:
    rounds, online, offline = counted
    return f"| {n:,} | {k} | {way} | {comparisons:,} | {rounds} | {online:,} | {offline / 1e6:,.1f} |"


if __name__ == "__main__":
    main()
