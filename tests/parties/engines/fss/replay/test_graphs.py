"""Recordings on a GPU compute what torch does, bit for bit."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from parties.engines.fss.recording.memory import Arena
from parties.engines.fss.recording.tracer import NotRecordable, Tracer
from tests.helpers.traced import Function, bits, elementwise, fused, indices, products, reductions

pytestmark = pytest.mark.gpu


def recorded(tracer: Tracer, kept: list[Tensor], count: Callable[[float], None] = lambda _: None) -> Any:
    from parties.engines.fss.replay.graphs import GraphRecording, KernelClock
    from parties.engines.fss.replay.turns import Turns

    making = partial(GraphRecording, before=lambda: None, clock=KernelClock(count), turns=Turns())
    return tracer.finish(kept, Arena(torch.device("cuda")), making)


@pytest.mark.parametrize("shape", [(3, 5), (9, 528), (27, 11), (32, 1040), (2, 22_016)])
@pytest.mark.parametrize("function", [elementwise, reductions, indices, bits, products, fused])
def test_a_graph_computes_what_torch_does(function: Function, shape: tuple[int, ...]) -> None:
    x, y = (torch.randint(-(2**62), 2**62, shape, device="cuda") for _ in range(2))
    with Tracer() as tracer:
        traced = function(x, y)
    recording = recorded(tracer, traced)
    for _ in range(2):
        x.random_()
        y.random_()
        for graph in recording.tapes:
            graph.run()
        for found, expected in zip(recording.tensors, function(x, y), strict=True):
            assert torch.equal(found, expected)


def test_what_no_graph_can_do_is_refused() -> None:
    x = torch.ones([2] * 6, dtype=torch.int64, device="cuda")
    with Tracer() as tracer:
        traced = x + x.permute(5, 3, 1, 4, 2, 0)
    with pytest.raises(NotRecordable, match="no instruction"):
        recorded(tracer, [traced])


def test_an_index_outside_its_dimension_is_reported() -> None:
    x, places = torch.arange(4, device="cuda"), torch.zeros(2, dtype=torch.int64, device="cuda")
    with Tracer() as tracer:
        traced = x[places]
    recording = recorded(tracer, [traced])
    places[1] = 4
    with pytest.raises(IndexError, match="outside its dimension"):
        recording.tapes[0].run()


def test_graphs_share_a_pool_that_outlives_them() -> None:
    from parties.engines.fss.replay.graphs import captured

    x = torch.arange(4, device="cuda")
    pools = [captured(partial(torch.add, x, x)).__self__.pool() for _ in range(2)]  # type: ignore[attr-defined]
    assert pools[0] == pools[1]


def test_one_in_eight_replays_is_timed_and_more_of_the_first() -> None:
    seconds: list[float] = []
    x = torch.ones(1 << 20, dtype=torch.int64, device="cuda")
    with Tracer() as tracer:
        traced = x * x
    recording = recorded(tracer, [traced], seconds.append)
    for _ in range(8 + 8 + 8):
        recording.tapes[0].run()
    assert len(seconds) == 3 + 2
    assert min(seconds) > 0
