"""Writes `docs/policies.md` from the policies themselves: `python -m parties.policies.page`."""

import inspect
from pathlib import Path

from parties.policies import POLICIES
from parties.policies.base import Policy

PAGE = Path(__file__).parents[2] / "docs" / "policies.md"

_HEAD = """\
# Cache policies

<!-- Written by `python -m parties.policies.page`; do not edit by hand. -->

Every policy is written once and runs on every engine. The number of kept tokens follows from its parameters and public
lengths; their identity stays secret. `compression_ratio` has kvpress' name and meaning: the share that is *removed*.
`mpcache-bench policies` lists the policies; [experiments.md](experiments.md) has all parameters.

Costs are per layer and count the expensive operations: comparisons, exponentials, products of secrets, rows moved to a
secret place. n is the number of prompt tokens, T of cached tokens, B of kept tokens, W of steps between two evictions,
H and G of query and key heads, d the head dimension. The attention of a step is not included: an exponential per
attended token and query head. A selection of B among n is a ranking of all pairs, n (n - 1) / 2 comparisons; `fss`
needs fewer from 512 on, and with `ahead` from 24 on ([protocols.md](protocols.md)).

"""


def summary(policy: type[Policy]) -> str:
    """Returns the first sentence of a policy's docstring."""
    return (inspect.getdoc(policy) or "").partition("\n")[0]


def page() -> str:
    """Returns the page as Markdown."""
    rows = ["| policy | what it does |\n| --- | --- |\n"]
    rows += [
        f"| [`{name}`](#{_anchor(name)}){_mark(policy)} | {summary(policy)} |\n" for name, policy in POLICIES.items()
    ]
    return _HEAD + "".join(rows) + "".join(_section(name, policy) for name, policy in POLICIES.items())


def _mark(policy: type[Policy]) -> str:
    return " (experimental)" if policy.experimental else ""


def _anchor(name: str) -> str:
    """Returns GitHub's anchor of a heading."""
    return "".join(letter for letter in name.lower() if letter.isalnum() or letter in "_-")


def _section(name: str, policy: type[Policy]) -> str:
    facts = {
        "keeps": policy.keeps,
        "at the end of the prompt": policy.prefill_cost,
        "each decoded token": policy.step_cost,
        "leaks": policy.leaks,
        "training": policy.training,
        "source": policy.source,
    } | ({"experimental": policy.experimental} if policy.experimental else {})
    table = "".join(f"| {what} | {text} |\n" for what, text in facts.items())
    return f"\n## `{name}`\n\n{summary(policy)}\n\n| | |\n| --- | --- |\n{table}"


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
