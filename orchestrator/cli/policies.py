"""`mpcache-bench policies`: every cache policy in a line."""

from rich.table import Table

from orchestrator.cli.common import say, show


def policies() -> None:
    """List the cache policies: what each does, what it has to be trained with, and which are experimental."""
    from parties.policies import POLICIES  # torch comes with it, and most commands do without
    from parties.policies.page import summary

    table = Table(box=None, pad_edge=False)
    for column in ("policy", "what it does", "training", ""):
        table.add_column(column, no_wrap=column == "policy")
    for name, policy in POLICIES.items():
        table.add_row(
            name,
            summary(policy),
            "trained heads" if policy.trained else "none",
            "experimental" if policy.experimental else "",
        )
    show(table)
    say(*(f"{name} is experimental: {policy.experimental}" for name, policy in POLICIES.items() if policy.experimental))
    say("parameters: docs/experiments.md; costs, leaks and sources: docs/policies.md")
