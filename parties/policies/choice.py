"""A policy by name, as experiments, records and jobs hold it."""

from dataclasses import asdict, fields
from typing import Any

from pydantic import BaseModel, ConfigDict

from parties.policies import POLICIES, make
from parties.policies.base import LATER, Policy


def parameters_of(policy: Policy) -> dict[str, Any]:
    """Returns a policy's parameters by name; one that came later (`base.LATER`) only if it is not at its default."""
    return {
        field.name: value
        for field in fields(policy)
        if (value := getattr(policy, field.name)) != field.default or field.metadata != LATER
    }


class PolicyChoice(BaseModel):
    """A cache policy by name; its parameters are further keys next to the name."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The policy's parameters, without its name."""
        return dict(self.model_extra or {})

    def build(self) -> Policy:
        """The policy.

        Raises:
            ValueError: Unknown name or parameter, or a value outside its range; the message names the allowed values.
        """
        return make(self.name, **self.parameters)

    def __str__(self) -> str:
        """The name, with those parameters that are not the defaults; with all, if the policy is not of this package."""
        defaults = asdict(PolicyChoice(name=self.name).build()) if self.name in POLICIES else {}
        changed = [f"{key}={value}" for key, value in self.parameters.items() if value != defaults.get(key)]
        return f"{self.name}({', '.join(changed)})" if changed else self.name
