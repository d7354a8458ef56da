"""KV-cache policies: which tokens are kept, and which of them a step attends to.

Read in this order: `base` (what a policy is), `full`, `eviction` and `decoding` (eviction after the prompt and while
decoding), `clusters` and `page_bounds` (selection at each step), `prompt_scores`, `lowest` and `quantise` (what several
policies share), then one module per policy. `page` writes docs/policies.md.
"""

import inspect
from dataclasses import MISSING, Field, fields, is_dataclass
from importlib import import_module
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


class UnknownPolicy(ValueError):  # noqa: N818 - named for what happened
    """No policy of this package has the name, and nothing can be imported by it."""


def policy_class(name: str) -> type[Policy]:
    """The class of a policy of this package, or of one that is named as `module:Class` and imported.

    Only names from a user's own files and jobs may come here: an import runs the module's code.

    Raises:
        UnknownPolicy: There is no such policy; the message gives the reason.
    """
    if name in POLICIES:
        return POLICIES[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise UnknownPolicy(f"no policy {name!r}; there are {', '.join(sorted(POLICIES))}, or module:Class")
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:  # whatever a user's module raises
        raise UnknownPolicy(f"{type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Policy) and is_dataclass(found)):
        raise UnknownPolicy(f"{attribute} is not a dataclass below parties.policies.base.Policy")
    if inspect.isabstract(found) or any(_required(field) for field in fields(found)):
        raise UnknownPolicy(f"{attribute} cannot be made without parameters; give each a default")
    if found.name != name:
        raise UnknownPolicy(f"the class calls itself {found.name}; write that, or leave its `name` out")
    return found


def _required(field: "Field[Any]") -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def make(name: str, **parameters: Any) -> Policy:
    """Builds a policy from its name, as `policy_class` takes it, and parameters.

    Raises:
        ValueError: Unknown name or parameter, or a value outside its range; the message names the allowed values.
    """
    policy = policy_class(name)
    known = {field.name for field in fields(policy)}
    if unknown := sorted(set(parameters) - known):
        allowed = ", ".join(sorted(known)) or "no parameters"
        raise ValueError(f"{unknown[0]}: policy {name!r} has no such parameter; it takes {allowed}")
    return policy(**parameters)
