"""KV-cache policies: which tokens stay, and which of them a step looks at."""

from dataclasses import fields
from typing import Any

from parties.policies.attention_gate import AttentionGate
from parties.policies.base import Policy
from parties.policies.full import Full
from parties.policies.h2o import H2O
from parties.policies.infllm import InfLLM
from parties.policies.kivi import KIVI
from parties.policies.lazy_eviction import LazyEviction
from parties.policies.locret import Locret
from parties.policies.mikv import MiKV
from parties.policies.mpcache import MPCache
from parties.policies.mpcache_plus import MPCachePlus
from parties.policies.pyramidkv import PyramidKV
from parties.policies.quest import Quest
from parties.policies.random import Random
from parties.policies.snapkv import SnapKV
from parties.policies.streaming_llm import StreamingLLM
from parties.policies.tova import TOVA

__all__ = ["POLICIES", "Full", "MPCache", "Policy", "make"]

_ALL: tuple[type[Policy], ...] = (
    Full, Random, StreamingLLM, H2O, TOVA, SnapKV, PyramidKV, LazyEviction, Locret, AttentionGate, Quest, InfLLM,
    MPCache, MPCachePlus, KIVI, MiKV,
)  # fmt: skip

POLICIES: dict[str, type[Policy]] = {policy.name: policy for policy in _ALL}
"""Name of each policy and its dataclass."""


def make(name: str, **parameters: Any) -> Policy:
    """Builds a policy from its name and parameters.

    Raises:
        ValueError: unknown name or parameter, or a value outside its range; the message says what is allowed.
    """
    if name not in POLICIES:
        raise ValueError(f"name: no policy {name!r}; there are {', '.join(sorted(POLICIES))}")
    known = {field.name for field in fields(POLICIES[name])}
    if unknown := sorted(set(parameters) - known):
        allowed = ", ".join(sorted(known)) or "no parameters"
        raise ValueError(f"{unknown[0]}: policy {name!r} has no such parameter; it takes {allowed}")
    return POLICIES[name](**parameters)
