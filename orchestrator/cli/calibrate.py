"""`mpcache-bench calibrate`: the ranges of a model's numbers, and the bounds that they need."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.common import ExitCode, interruptible, note, refuse, refusing, say, show
from orchestrator.experiment.problems import Rejected

if TYPE_CHECKING:
    from orchestrator.ranges.propose import Proposal


class PrivateEngine(StrEnum):
    """Engines with declared ranges."""

    FSS = "fss"
    CRYPTEN = "crypten"


def calibrate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model, as in an experiment file.")],
    text: Annotated[
        list[Path],
        typer.Option(metavar="FILE", help="UTF-8 text like the prompts to come; may be given several times."),
    ],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Bounds to write, for `bounds:` of a cell.")] = None,
    engine: Annotated[PrivateEngine, typer.Option(help="Only fss takes bounds of a model.")] = PrivateEngine.FSS,
    policy: Annotated[str, typer.Option(help="Cache policy, whose numbers are measured too.")] = "full",
    tokens: Annotated[int, typer.Option(min=2, metavar="N", help="Most tokens of a text.")] = 512,
    new: Annotated[int, typer.Option(min=1, metavar="N", help="Tokens to decode after each text.")] = 4,
    headroom: Annotated[
        float, typer.Option(min=1.0, help="Least factor between the largest number found and its bound.")
    ] = 1.25,
    narrow: Annotated[
        bool, typer.Option("--narrow", help="Also narrow bounds: fewer segments are run again, and more is revealed.")
    ] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Also print the ranges by layer.")] = False,
) -> None:
    """Measure the ranges of a model's numbers in the clear, and propose bounds for them.

    Run it where the weights are: it uses the weights and texts of the server's choice. The file that it writes is
    public; the ranges that it prints are not.
    """
    from orchestrator.cli.range_tables import by_layer, by_number
    from orchestrator.experiment.choices import chosen_policy
    from orchestrator.ranges.measure import measure  # torch comes with it, and most commands do without
    from orchestrator.ranges.propose import bounds_of, propose
    from parties.engines.factory import engine_class
    from parties.engines.fss.bounds import NARROWED, WIDEST
    from parties.errors import PartyError

    widest = WIDEST if engine is PrivateEngine.FSS else {}
    with interruptible(), refusing(PartyError, Rejected):
        built, bounds = chosen_policy(policy).build(), engine_class(engine.value).bounds
        progress = lambda name: note(f"running {name}")  # noqa: E731
        measured = measure(model, text, built, bounds, tokens=tokens, new=new, progress=progress)
        proposals = propose(measured, widest, headroom, NARROWED if narrow and widest else ())
    show(by_number(proposals, engine.value))
    if layers:
        show(by_layer(measured))
    if measured.policy:
        say(f"{measured.policy}; the policy {policy} declares that range, and no file widens it")
    refused = [each for each in proposals if each.refused]
    for each in refused:
        say(f"{engine.value} would compute wrong results: {each.bound.number} reaches {each.found.magnitude:,.4g}")
    if refused or measured.policy:
        raise typer.Exit(ExitCode.FAILED)
    _write(out, bounds_of(proposals), model, headroom, proposals)


def _write(out: Path | None, bounds: dict[str, int], model: str, headroom: float, proposals: "list[Proposal]") -> None:
    if not bounds:
        say("The engine's own bounds suffice; no file is needed.")
        return
    lines = [
        f"# Bounds of {model}, from `mpcache-bench calibrate` with a head-room of {headroom:g}. All parties see them."
    ]
    lines += [f"{number}: {limit}" for number, limit in bounds.items()]
    if out is None:
        say(*lines)
    else:
        try:
            out.write_text("\n".join(lines) + "\n", encoding="utf-8")
        except OSError as error:
            refuse(f"cannot write {out}: {error.strerror}; choose another file")
        say(f"{out}: {', '.join(f'{number} up to {limit:,}' for number, limit in bounds.items())}")
    tight = [each.bound.number for each in proposals if each.tight]
    if tight:
        say(f"without the whole head-room: {', '.join(tight)}")
    say(_REVEALS)


_REVEALS = """\
What this reveals about the weights: for each number in the file, that it stays below a power of two over your texts, or
rarely exceeds it, and that it exceeds half of the engine's own bound, or of that power, in some layer. Client, dealer
and every reader of the report see that. The table above is more precise; it is computed from the weights, so keep it
where they are."""
