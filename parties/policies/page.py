"""Writes `docs/policies.md` from the policies themselves: `python -m parties.policies.page`."""

import inspect
from pathlib import Path

from parties.policies import POLICIES
from parties.policies.base import Policy

PAGE = Path(__file__).parents[2] / "docs" / "policies.md"

_HEAD = """\
# Cache policies

<!-- Written by `python -m parties.policies.page`; do not edit by hand. -->

Every policy is written once and runs on every engine. How many tokens it keeps follows from its parameters and public
lengths; which ones stays secret. `compression_ratio` is kvpress' name and meaning: the share that is *removed*.
`mpcache-bench policies` lists them; [experiments.md](experiments.md) has all parameters.

Costs count what is expensive inside the computation, for one layer: comparisons, exponentials, products of secrets,
rows that move to a secret place. n is the prompt's tokens, T those cached, B those kept, W the steps between two
evictions, H and G the query and the key heads, d a head's width. Attention over what a step attends to comes on top:
an exponential for each token and query head. A selection of B among n is a ranking of all pairs, n (n - 1) / 2
comparisons; `fss` makes do with fewer from 512 on ([protocols.md](protocols.md)).

"""


def summary(policy: type[Policy]) -> str:
    """The first sentence of a policy's docstring."""
    return (inspect.getdoc(policy) or "").partition("\n")[0]


def page() -> str:
    """The page as Markdown."""
    rows = ["| policy | what it does |\n| --- | --- |\n"]
    rows += [
        f"| [`{name}`](#{_anchor(name)}){_mark(policy)} | {summary(policy)} |\n" for name, policy in POLICIES.items()
    ]
    return _HEAD + "".join(rows) + "".join(_section(name, policy) for name, policy in POLICIES.items())


def _mark(policy: type[Policy]) -> str:
    return " (experimental)" if policy.experimental else ""


def _anchor(name: str) -> str:
    """What GitHub makes of a heading."""
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
