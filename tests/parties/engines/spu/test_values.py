"""Local work of the engine spu, which waits for the next operation, and the programs that it becomes."""

import json

import torch

from parties.engines.spu.values import Graph, SpuValue, cat, computed_once


def variable(*shape: int) -> SpuValue:
    value = SpuValue(shape)
    value.become("v", lambda _: None)
    return value


def rotated(x: SpuValue, angle: float) -> SpuValue:
    cos = torch.full((1, 4), angle).cos()
    return x * cos + cat([-x[:, 2:], x[:, :2]], dim=1) * 0.5


def test_shapes_are_those_of_tensors() -> None:
    x = variable(2, 3, 4)
    assert x[:, -1:].shape == (2, 1, 4)
    assert x[1].transpose(0, 1).shape == (4, 3)
    assert x.reshape(-1, 4).sum(0).shape == (4,)
    assert (x * torch.ones(5, 1, 1, 4)).shape == (5, 2, 3, 4)
    assert x[torch.arange(2).unsqueeze(1), torch.tensor([[0, 2], [1, 1]])].shape == (2, 2, 4)


def test_the_same_work_on_other_values_is_the_same_program() -> None:
    first, second = (Graph([rotated(variable(1, 4), angle)]) for angle in (0.3, 0.7))
    assert str(first) == str(second)
    assert str(first) != str(Graph([rotated(variable(2, 4), 0.3)])), "a shape of its own"


def test_public_numbers_are_inputs_and_not_part_of_a_program() -> None:
    graph = Graph([rotated(variable(1, 4), 0.3)])
    assert json.loads(str(graph))["inputs"] == [[[1, 4], False], [[1, 4], True]]


def test_an_operand_is_computed_once_whatever_its_shape_is_in_the_operation() -> None:
    x = variable(4) + variable(4)
    assert computed_once([x.reshape(2, 2).transpose(0, 1), x, variable(4)]) == [x]


def test_a_value_that_nobody_holds_is_freed() -> None:
    freed: list[str] = []
    value = SpuValue((3,))
    value.become("v7", freed.append)
    assert not freed
    del value
    assert freed == ["v7"]
