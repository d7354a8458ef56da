"""Generated kernels, compiled for the host, compute what torch does; `replay.test_graphs` runs them on a GPU."""

import pytest
import torch
from torch import Tensor

from parties.engines.fss.recording.cuda_source import kernel
from parties.engines.fss.recording.launches import launches
from parties.engines.fss.recording.tracer import Tracer
from parties.engines.fss.replay.graphs import outside
from tests.helpers.host_kernels import HostKernels
from tests.helpers.needs import needs
from tests.helpers.traced import Function, bits, elementwise, fused, indices, reductions


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> HostKernels:
    return HostKernels(tmp_path_factory.mktemp("kernels"))


def texts(function: Function, x: Tensor, y: Tensor) -> list[str]:
    """The kernels of a function's recording."""

    def make(tapes: list[list[object]], *_: object) -> list[str]:
        wrong = outside(torch.zeros(1, dtype=torch.int64))
        return [kernel(each, wrong).text for tape in tapes for each in launches(tape) if not each.is_call]  # type: ignore[arg-type]

    with Tracer() as tracer:
        traced = function(x, y)
    found: list[str] = tracer.finish(traced, None, make)
    return found


@needs("g++")
@pytest.mark.parametrize("shape", [(3, 5), (9, 528), (27, 11), (2, 3000)])  # of one block of threads, and of several
@pytest.mark.parametrize("function", [elementwise, reductions, indices, bits, fused])
def test_a_kernel_computes_what_torch_does(host: HostKernels, function: Function, shape: tuple[int, ...]) -> None:
    x, y = (torch.randint(-(2**62), 2**62, shape) for _ in range(2))

    def change() -> None:
        for tensor in (x, y):
            tensor.random_(-(2**62), 2**62)

    found, wrong = host.replayed(lambda: function(x, y), change)
    assert not wrong
    for result, expected in zip(found, function(x, y), strict=True):
        assert torch.equal(result, expected)


@needs("g++")
def test_an_index_outside_its_dimension_is_reported(host: HostKernels) -> None:
    x, places = torch.arange(4), torch.zeros(2, dtype=torch.int64)

    def change() -> None:
        places[1] = 4

    _, wrong = host.replayed(lambda: [x[places]], change)
    assert wrong


@pytest.mark.parametrize("function", [elementwise, reductions, bits, fused])
def test_a_text_serves_other_lengths(function: Function) -> None:
    one, other = ([torch.zeros(shape, dtype=torch.int64) for _ in range(2)] for shape in ((9, 528), (9, 544)))
    assert texts(function, *one) == texts(function, *other)


def test_what_waits_for_another_instruction_comes_after_a_barrier() -> None:
    x = torch.arange(6).reshape(2, 3)
    (text,) = texts(lambda a, b: [(a * b).transpose(0, 1).contiguous()], x, x)
    assert text.count("__syncthreads()") == 1
    (text,) = texts(lambda a, b: [(a * b) + (a << 1)], x, x)
    assert text.count("__syncthreads()") == 0
