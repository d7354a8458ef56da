"""The cells of an experiment: linked axes, exclusions, warm-up, order."""

import random
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.experiment.cells import Cell, expand, schedule
from orchestrator.experiment.experiment import Experiment
from orchestrator.experiment.problems import problems_of
from tests.helpers import samples


def points(**changes: Any) -> list[tuple[str, str, int, str]]:
    cells = expand(samples.experiment(**changes))
    return [(cell.network.name, cell.engine.name, cell.seq_len, cell.policy.name) for cell in cells]


def message(**changes: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        samples.experiment(**changes)
    return "\n".join(map(str, problems_of(caught.value, Experiment)))


def test_linked_axes_advance_together() -> None:
    found = points(networks=["lan", "wan"], seq_lens=[128, 256], linked=[["networks", "seq_lens"]], policies=["full"])
    assert found == [("lan", "crypten", 128, "full"), ("wan", "crypten", 256, "full")]


def test_an_exclusion_needs_every_axis_that_it_names() -> None:
    exclude = [{"engine": "crypten", "seq_len": [256, 512]}, {"engine": "plain", "policy": "mpcache"}]
    found = points(engines=["crypten", "plain"], exclude=exclude)
    assert [point[1:] for point in found] == [
        ("crypten", 128, "full"), ("crypten", 128, "mpcache"),
        ("plain", 128, "full"), ("plain", 256, "full"), ("plain", 512, "full"),
    ]  # fmt: skip


def test_a_policy_is_excluded_by_name_or_by_its_label() -> None:
    policies = [{"name": "mpcache", "select": 0.1}, "mpcache", "full"]
    assert len(points(policies=policies, exclude=[{"policy": "mpcache"}])) == 3
    assert len(points(policies=policies, exclude=[{"policy": "mpcache(select=0.1)"}])) == 6


def test_batches_are_an_axis_and_one_prompt_is_the_default() -> None:
    cells = expand(samples.experiment(batch=[1, 4], seq_lens=[128], policies=["full"]))
    assert [cell.batch for cell in cells] == [1, 4]
    assert cells[0] == samples.cell(seq_lens=[128], policies=["full"])
    assert "4 x 128 tokens" in str(cells[1])
    fewer = samples.experiment(batch=[1, 4], seq_lens=[128], policies=["full"], exclude=[{"batch": 1}])
    assert expand(fewer) == (cells[1],)


def test_a_batch_out_of_range_or_of_a_chat_is_refused() -> None:
    assert "batch[1]: 0; allowed: whole number from 1 to 1024" in message(batch=[1, 0])
    assert "batch[0]: 2 cannot be used: a chat is one prompt" in message(batch=2, prompt={"messages": "chat.yaml"})
    assert "lines: True" in message(prompt={"random_tokens": True, "lines": True})


def test_warm_up_runs_come_first_and_are_distinguished() -> None:
    cells = expand(samples.experiment(seq_lens=[128], policies=["full"], warmup=1, repeats=2))
    assert [(cell.warmup, cell.repeat) for cell in cells] == [(True, 0), (False, 0), (False, 1)]
    assert len({cell.id for cell in cells}) == 3
    assert str(cells[0]).endswith("warm-up")


def test_blocks_of_equal_network_and_engine_stay_whole_and_are_shuffled_by_the_seed() -> None:
    experiment = samples.experiment(networks=["none", "wan"], engines=["plain", "crypten"], repeats=4, warmup=1)
    cells = expand(experiment)
    ordered = schedule(cells, 7)
    assert sorted(cell.id for cell in ordered) == sorted(cell.id for cell in cells)
    assert ordered == schedule(cells, 7)
    assert ordered != schedule(cells, 8)

    def block(cell: Cell) -> tuple[str, str]:
        return cell.network.name, cell.engine.name

    in_turn = [("none", "plain"), ("wan", "plain"), ("none", "crypten"), ("wan", "crypten")]
    assert list(dict.fromkeys(map(block, ordered))) == in_turn
    changes = sum(block(a) != block(b) for a, b in pairwise(ordered))
    assert changes == 3
    for each in dict.fromkeys(map(block, cells)):
        warm = [cell.warmup for cell in ordered if block(cell) == each]
        assert warm == sorted(warm, reverse=True)


def test_the_order_leaves_the_global_generator_alone() -> None:
    random.seed(3)
    before = random.getstate()
    schedule(expand(samples.experiment()), 1)
    assert random.getstate() == before


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"linked": [["networks", "lengths"]]}, r"linked[0][1]: 'lengths'; allowed: axes networks"),
        ({"linked": [["networks", "seq_lens"]]}, "networks has 1, seq_lens has 3"),
        ({"linked": [["engines", "networks"], ["engines"]]}, "linked[1][0]: 'engines'; allowed: each axis once"),
        (
            {"exclude": [{"engine": "fss"}]},
            "exclude[0]: {'engine': ['fss']} cannot be used: no cell has engine fss; allowed: values that",
        ),
        ({"exclude": [{"engine": "crypten"}]}, "exclude: 1; allowed: exclusions that leave at least one cell"),
        ({"exclude": [{}]}, "exclude[0]: {}; allowed: a mapping with at least one of network, engine"),
        ({"exclude": [{"speed": 3}]}, "exclude[0].speed"),
        ({"exclude": [{"seq_len": "long"}]}, "exclude[0].seq_len"),
        ({"warmup": -1}, "warmup: -1"),
        ({"order": "random"}, "order: 'random'"),
    ],
)
def test_invalid_axes_are_refused_by_name(changes: dict[str, Any], expected: str) -> None:
    assert expected in message(**changes)
