"""The referee computes a prompt's attention once for all policies, and keeps it no longer than its model."""

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from parties.decoding.cache import Cache
from parties.engines.plain import PlainEngine
from parties.metering.cgroup import Memory
from parties.metering.meter import StageMeter
from parties.metering.progress import Progress
from parties.policies import Full
from parties.policies.base import Policy
from parties.roles import kept_prompts
from parties.roles.job import Job
from parties.roles.kept_prompts import KeptPrompts
from parties.roles.party import Party
from parties.roles.referee import Referee, Reference
from tests.helpers.policy_cases import case
from tests.helpers.tiny import LLAMA


class Observed(Referee):
    """A referee whose cells' references and attended prompts are seen; a prompt is attended to by several queries."""

    def __init__(self) -> None:
        meter = StageMeter()
        super().__init__({}, meter, Progress(meter))  # type: ignore[arg-type]  # a cell of `plain` asks nobody
        self.reference: Reference | None = None

    def _decode(self, *arguments: Any) -> Reference:
        self.reference = super()._decode(*arguments)
        return self.reference

    def logits(self, job: Job) -> Tensor:
        """Runs a cell."""
        self.run(job)
        assert self.reference is not None
        return torch.cat(self.reference.logits)


@pytest.fixture
def attended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of queries of each attention to a prompt."""
    calls: list[int] = []
    attend: Any = PlainEngine.attend

    def counted(self: PlainEngine, q: Tensor, layer: Any, mask: Any = None, *, window: int = 0) -> Any:
        calls.extend([q.shape[1]] if q.shape[1] > 1 else [])
        return attend(self, q, layer, mask, window=window)

    monkeypatch.setattr(PlainEngine, "attend", counted)
    return calls


def cell(policy: str = "full", **changes: Any) -> Job:
    """A cell of the engine `plain`."""
    return Job.model_validate({
        "engine": "plain", "model": "random:tiny-llama", "policy": {"name": policy}, "prompt": {"random_tokens": True},
        "seq_len": 80, "new_tokens": 3, **changes,
    })  # fmt: skip


@pytest.mark.parametrize("policy", ["h2o", "mpcache", "snapkv", "quest", "tova", "kivi", "infllm", "streaming_llm"])
def test_the_next_policy_with_the_same_prompt_computes_no_attention_and_decodes_the_same(
    attended: list[int], policy: str
) -> None:
    expected = Observed().logits(cell(policy))
    referee = Observed()
    referee.run(cell())
    attended.clear()
    torch.testing.assert_close(referee.logits(cell(policy)), expected, rtol=0.0, atol=1e-9)
    assert not attended


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"seq_len": 79}, {"model": "random:tiny-gpt2"}, {"options": {"prefill": "mpc"}}]
)
def test_another_prompt_length_or_model_or_a_private_prompt_is_computed_anew(
    attended: list[int], changes: dict[str, Any]
) -> None:
    expected = Observed().logits(cell("h2o", **changes))
    referee = Observed()
    referee.run(cell())
    attended.clear()
    torch.testing.assert_close(referee.logits(cell("h2o", **changes)), expected, rtol=0.0, atol=0.0)
    assert attended


def test_two_prompts_in_turn_are_computed_once_each(attended: list[int]) -> None:
    referee = Observed()
    referee.run(cell())
    referee.run(cell(seed=1))
    attended.clear()
    referee.run(cell("h2o"))
    referee.run(cell("h2o", seed=1))
    assert not attended


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of free memory, in a list that a test changes."""
    available = [1 << 40]
    monkeypatch.setattr(kept_prompts, "memory", lambda: Memory(1 << 40, available[0], "the host"))
    return available


def filled(prompts: KeptPrompts, tokens: list[int], policy: Policy | None = None) -> bool | None:
    """Asks for a prompt and completes it: whether it was known; None if it is not kept."""
    inputs = prompts.inputs(tokens, LLAMA, policy or Full())
    if inputs is None:
        return None
    known = bool(inputs)
    inputs[:] = [torch.zeros(len(tokens), LLAMA.hidden, dtype=torch.float64)] * LLAMA.n_layers
    return known


def test_a_policy_in_chunks_neither_uses_nor_drops_a_kept_prompt(free: list[int]) -> None:
    prompts = KeptPrompts()
    assert filled(prompts, [1, 2, 3]) is False
    assert filled(prompts, [1, 2, 3], case("locret in chunks")) is None
    assert filled(prompts, [1, 2, 3], case("locret")) is True


def test_the_prompt_used_longest_ago_goes_when_memory_does_not_suffice(free: list[int]) -> None:
    prompts, row = KeptPrompts(), LLAMA.n_layers * LLAMA.hidden * 8
    first, second, third = [1] * 10, [2] * 10, [3] * 10
    assert [filled(prompts, tokens) for tokens in (first, second, first)] == [False, False, True]
    free[0] = kept_prompts.SHARE * 20 * row - 20 * row  # two prompts may be kept, and are
    assert filled(prompts, third) is False
    assert filled(prompts, first) is True
    assert filled(prompts, second) is False


def test_nothing_is_kept_without_memory(free: list[int]) -> None:
    prompts = KeptPrompts()
    free[0] = 0
    assert filled(prompts, [1, 2]) is None


def rows_of(referee: Referee) -> "weakref.ref[Tensor]":
    """A kept tensor of the referee, of which there is at least one."""
    session: Any = vars(referee)["_session"]
    ((rows, *_),) = vars(session.prompts)["_inputs"].values()
    return weakref.ref(rows)


def test_another_model_frees_the_prompt() -> None:
    referee = Observed()
    referee.run(cell())
    kept = rows_of(referee)
    assert kept() is not None
    referee.run(cell(model="random:tiny-gpt2"))
    gc.collect()
    assert kept() is None


def test_closing_the_party_frees_the_prompt() -> None:
    party, referee = Party("referee", "127.0.0.1", "a session"), Observed()
    vars(party)["_worker"] = referee
    referee.run(cell())
    kept = rows_of(referee)
    party.close()
    del referee
    gc.collect()
    assert kept() is None


def test_the_referees_share_of_threads_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    during: list[int] = []
    empty: Any = Cache.empty
    monkeypatch.setattr("parties.roles.referee.usable_cpus", lambda: 3.0)
    monkeypatch.setattr(Cache, "empty", lambda n: during.append(torch.get_num_threads()) or empty(n))
    before = torch.get_num_threads()
    Observed().run(cell())
    assert during == [max(3, before)]
    assert torch.get_num_threads() == before
