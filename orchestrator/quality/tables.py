"""The report of a study: tables in Markdown and LaTeX, and the frontier as a figure."""

from collections.abc import Sequence
from io import StringIO

import matplotlib as mpl
from matplotlib.figure import Figure

from orchestrator.quality.averages import Line, Mean, accuracy
from orchestrator.quality.frontier import NETWORKS, Price, undominated

_QUESTIONS = ("visible", "hidden")
_HEADS = {"visible": "question visible", "hidden": "question hidden", "none": ""}


Priced = Sequence[tuple[Line, Price]]


def markdown(title: str, lines: Sequence[Line], priced: Priced) -> str:
    """The complete report: for each length the frontier, then every measure."""
    parts = [f"# {title}: quality and private cost of cache policies", _PREFACE]
    for length in sorted({line.length for line in lines}):
        here = [(line, price) for line, price in priced if line.length == length]
        parts += [
            f"## {length:,} tokens",
            _frontier(here),
            *_measures([line for line in lines if line.length == length]),
        ]
    return "\n\n".join(parts) + "\n"


def latex(priced: Priced) -> str:
    """The frontier as a `tabular` with the rules of booktabs."""
    rows = [
        f"{line.length:,} & {_tex(line.name)} & {line.attended:.1%} & ".replace("%", r"\%")
        + " & ".join(
            [*(_plain(_quality(line, name)) for name in _QUESTIONS), *(f"{price.seconds[n]:.2f}" for n in NETWORKS)]
        )
        + rf" & {price.online_bytes / 1e6:.1f} \\"
        for line, price in priced
    ]
    head = r"length & policy & attended & visible & hidden & lan s & wan s & online MB \\"
    return "\n".join(
        [r"\begin{tabular}{rlrrrrrr}", r"\toprule", head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", ""]
    )


def figure(priced: Priced, length: int, question: str, network: str) -> str:
    """Accuracy against seconds per token at one length, the frontier joined by a line; SVG, legible without colour."""
    here = [
        (line.name, price.seconds[network], found.value)
        for line, price in priced
        if line.length == length and (found := _quality(line, question)) is not None
    ]
    points = [(seconds, value) for _, seconds, value in here]
    best = undominated(points)
    with mpl.rc_context({"svg.hashsalt": "quality", "font.size": 8}):
        drawing = Figure(figsize=(8, 5), layout="constrained")
        axes = drawing.subplots()
        axes.plot(*zip(*sorted({p for p, on in zip(points, best, strict=True) if on}), strict=True), "k-", lw=1)
        for (name, seconds, value), on in zip(here, best, strict=True):
            axes.plot(seconds, value, "ko" if on else "kx", fillstyle="full" if on else "none", ms=5)
            axes.annotate(name, (seconds, value), xytext=(4, 3), textcoords="offset points", fontsize=6)
        axes.set_xlabel(f"seconds per token, engine fss, network {network}")
        axes.set_ylabel(f"accuracy, {_HEADS[question]}")
        axes.set_title(f"{length:,} tokens; filled: nothing is cheaper and as good")
        text = StringIO()
        drawing.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


_PREFACE = """Accuracy is the mean over the tasks, ± a standard error. Every token of an answer was decoded through the
compressed cache. *Visible*: compressed with the question in sight; *hidden*: before it was known. Cost is a token of
engine `fss`: bytes and rounds exact, seconds predicted by the cost model unless marked *m*, measured. **Bold**: on the
frontier, nothing else being as good and cheaper on that network."""


def _quality(line: Line, question: str) -> Mean | None:
    """Quality of a policy: its accuracy or, for tasks without questions, its agreement with the full cache."""
    return accuracy(line, question) or next(
        (mean for (_, _, measure), mean in line.columns.items() if measure == "agreement"), None
    )


def _frontier(here: Priced) -> str:
    marked = {
        (question, network): undominated(
            [
                (price.seconds[network], mean.value if (mean := _quality(line, question)) else -1.0)
                for line, price in here
            ]
        )
        for question in _QUESTIONS
        for network in NETWORKS
    }
    head = ["policy", "cached", "attended", *_HEADS.values()][:5]
    rows = [[*head, *(f"s per token, {name}" for name in NETWORKS), "online bytes", "rounds"], ["---", *["---:"] * 8]]
    for i, (line, price) in enumerate(here):
        bold = {q: any(marked[q, network][i] for network in NETWORKS) for q in _QUESTIONS}
        rows.append(
            [
                line.name,
                f"{line.cached:.1%}",
                f"{line.attended:.1%}",
                *(_bold(_shown(_quality(line, question)), bold[question]) for question in _QUESTIONS),
                *(f"{price.seconds[name]:.2f}{' *m*' if name in price.measured else ''}" for name in NETWORKS),
                f"{price.online_bytes / 1e6:.1f} MB",
                f"{price.rounds:,.0f}",
            ]
        )
    return _table(rows)


def _measures(lines: Sequence[Line]) -> list[str]:
    """Every measure that was taken, by kind of question."""
    parts = []
    for question in ("none", *_QUESTIONS):
        keys = list(dict.fromkeys(key for line in lines for key in line.columns if key[1] == question))
        if keys:
            head = ["policy", *(f"{task}" if measure == "accuracy" else measure for task, _, measure in keys)]
            body = [[line.name, *(_shown(line.columns.get(key)) for key in keys)] for line in lines]
            n = max(mean.n for line in lines for key in keys if (mean := line.columns.get(key)))
            title = f"### {_HEADS[question].capitalize() or 'Beside the full cache, on text'} (n = {n})"
            parts += [title, _table([head, ["---", *["---:"] * len(keys)], *body])]
    return parts


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _shown(mean: Mean | None) -> str:
    if mean is None:
        return ""
    return f"{mean.value:.3f}" if mean.error is None else f"{mean.value:.3f} ± {mean.error:.3f}"


def _plain(mean: Mean | None) -> str:
    return "" if mean is None else f"{mean.value:.3f}"


def _bold(text: str, on: bool) -> str:
    return f"**{text}**" if on and text else text


def _tex(text: str) -> str:
    return text.replace("_", r"\_").replace("%", r"\%")
