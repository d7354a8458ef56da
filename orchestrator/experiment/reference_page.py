"""Writes `docs/experiments.md` from the models: `python -m orchestrator.experiment.reference_page`."""

import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from netem import presets
from orchestrator.experiment.allowed import allowed
from orchestrator.experiment.choices import EngineChoice
from orchestrator.experiment.experiment import Experiment
from parties.engines import ENGINES
from parties.options import DraftOptions, SpuOptions
from parties.policies import POLICIES
from parties.roles.job import Prompt

PAGE = Path(__file__).parents[2] / "docs" / "experiments.md"

_HEAD = """\
# Experiment files

<!-- Written by `python -m orchestrator.experiment.reference_page`; do not edit by hand. -->

An experiment file defines a sweep. It is YAML; every key is checked before anything starts, unknown keys and keys
given twice are errors, and all errors are reported at once. Key names contain the units.

```yaml
{example}```

`mpcache-bench run FILE --out DIR` measures its cells: the product of engines, policies, prompt lengths, networks and
repeats. `--dry-run` prints the cells with an estimate and starts nothing. The same command run again resumes: cells
with a record in `DIR` are skipped, failed ones too, unless they were interrupted. `--retry failed` runs those that are
not `ok` again; `--no-resume` runs all cells again and keeps the old records under another name.

A cell's id is a hash of everything that can change its result, so time-outs and ports may change in between. The
*contents* of a prompt file are not part of the id. The folder keeps a salted hash of the prompt instead, and a run
with another text is refused until you put the old one back, choose another folder, or give `--update`.

Keys are texts, each given once. Anchors, aliases and merges work: `{{<<: *base, select: 0.4}}` takes the values of
`&base`, and a key of one's own wins. A file holds one document in UTF-8, of at most a million characters. Messages
never quote it, since it may contain a prompt by mistake.

Exit codes: 0 every cell is `ok`; 1 some cell failed or is `incorrect`; 2 nothing could start; 130 interrupted.

"""


def page(example: str) -> str:
    """The reference as Markdown.

    Args:
        example: A whole experiment file, shown at the top.
    """
    parts = [
        _HEAD.format(example=example),
        "## Keys\n",
        _model(Experiment),
        "\n## `prompt`\n",
        _model(Prompt),
        "\n## `engines`\n",
        "\n| name | what it is |\n| --- | --- |\n",
        *(f"| `{name}` | {text} |\n" for name, text in ENGINES.items()),
        _ENGINES,
        _model(EngineChoice),
        "\n## `spu`\n",
        _model(SpuOptions),
        "\n## `draft`\n",
        _DRAFT,
        _model(DraftOptions),
        "\n## `policies`\n",
        *(_policy(name) for name in POLICIES),
        "\n## `networks`\n",
        _NETWORKS,
        "| preset | shaped | source |\n| --- | --- | --- |\n",
        *(f"| `{p.name}` | {_shape(p)} | {p.source} |\n" for p in presets()),
    ]
    return "".join(parts)


_ENGINES = """
A name, or a mapping, as in `engines: [crypten, {name: crypten, randomness: stock}]`. In an experiment file `crypten` is
`private` by default. Records of earlier versions name no `randomness`: they were made with `stock`, keep
their ids, and are shown as `crypten-stock`. `{name: spu, protocol: semi2k}` is shown as `spu-semi2k`.
"""


_DRAFT = """
`none`, `{lookup: K}` or `{model: MODEL, tokens: K}`, or a list of these: an axis, as in `draft: [none, {lookup: 4}]`.
Greedy text is that of decoding one by one; see running.md for what a draft reveals and where it pays.
"""


_NETWORKS = """
A preset's name, or a mapping of `rate_mbit`, `delay_ms` (one way), `jitter_ms` and `loss_pct`, with a `name` of your
own and, where directions differ, `pairs`:

```yaml
networks: [none, wan, {name: uplink, rate_mbit: 100, delay_ms: 10, pairs: {"client>server": {rate_mbit: 20}}}]
```

`rate_mbit` may be 0.1 to 400,000 and `delay_ms` 0 to 2,000; at the slow end it takes minutes to measure the links
before each cell, and again after it.

Only the links between client, server and dealer are shaped, each direction by itself.

`+tls` behind a preset's name, or `tls: true` among values of one's own, makes the parties use mutual TLS 1.3 with
certificates of the run's own authority: `networks: [lan, lan+tls]` compares the same cells without and with it. See
networks.md.

"""


def _model(model: type[BaseModel]) -> str:
    rows = ["\n| key | allowed | default | meaning |\n| --- | --- | --- | --- |\n"]
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else f"`{_default(field.default)}`"
        rows.append(f"| `{name}` | {allowed(model, [name])} | {default} | {field.description} |\n")
    return "".join(rows)


def _default(value: Any) -> str:
    if value is None or value is PydanticUndefined:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, BaseModel):
        return ", ".join(f"{name}: {each}" for name, each in value)
    if isinstance(value, tuple):
        return f"[{', '.join(str(getattr(item, 'name', item) or 'none') for item in value)}]"
    return str(value)


def _policy(name: str) -> str:
    policy = POLICIES[name]
    text = inspect.getdoc(policy) or ""
    summary = " ".join(text.partition("\n\n")[0].split())
    meanings = attributes(text)
    rows = [f"| `{field.name}` | `{field.default}` | {meanings.get(field.name, '')} |\n" for field in fields(policy)]
    table = ["\n| parameter | default | meaning |\n| --- | --- | --- |\n", *rows] if rows else []
    return f"\n### `{name}`\n\n{summary}\n\nReveals: {policy.leaks}.\n{''.join(table)}"


def attributes(docstring: str) -> dict[str, str]:
    """The description of each attribute in a Google-style docstring, continuation lines included.

    Args:
        docstring: Without its indentation, as `inspect.getdoc` gives it.
    """
    section = docstring.partition("\nAttributes:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^ {4}(\w+): (.+(?:\n {5,}.+)*)$", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def _shape(profile: Any) -> str:
    if not profile.shaped:
        return "nothing"
    if profile.pairs:
        return "a matrix, by ordered pair"
    return f"{profile.default.rate_mbit:g} Mbit/s, {2 * profile.default.delay_ms:g} ms round trip"


def main() -> None:
    """Writes the page."""
    example = (PAGE.parent.parent / "examples" / "quickstart.yaml").read_text(encoding="utf-8")
    PAGE.write_text(page(example), encoding="utf-8")


if __name__ == "__main__":
    main()
