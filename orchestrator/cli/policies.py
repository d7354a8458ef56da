"""`mpcache-bench policies`: every cache policy in a line."""

import typer
from rich.console import Console
from rich.table import Table


def policies() -> None:
    """List the cache policies: what each does, and what it has to be trained with."""
    from parties.policies import POLICIES  # torch comes with it, and most commands do without
    from parties.policies.page import summary

    table = Table(box=None, pad_edge=False)
    for column in ("policy", "what it does", "training"):
        table.add_column(column, no_wrap=column == "policy")
    for name, policy in POLICIES.items():
        table.add_row(name, summary(policy), "trained heads" if policy.trained else "none")
    console = Console(highlight=False)
    # a pipe has no width of its own: make room for whole rows
    Console(highlight=False, width=None if console.is_terminal else 200).print(table)
    typer.echo("parameters: docs/experiments.md; costs, leaks and sources: docs/policies.md")
