"""The full cache: keeps every token, attends to every token."""

from dataclasses import dataclass
from typing import ClassVar

from parties.policies.base import Policy


@dataclass(frozen=True)
class Full(Policy):
    """No compression: the baseline."""

    name: ClassVar[str] = "full"
    keeps: ClassVar[str] = "every token; a step attends to all"
    step_cost: ClassVar[str] = "attention alone: H T exponentials"
    source: ClassVar[str] = "-"
    in_order: ClassVar[bool] = True
