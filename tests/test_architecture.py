"""Holds every room to its contract: what it may import, and that nothing unpickles what came from a peer."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import pytest

from tests.helpers.paths import ROOT


@dataclass(frozen=True)
class Room:
    """What a room may import: `ours` of our own, and of the rest all but `never`, or only `others` if given."""

    ours: tuple[str, ...]
    never: tuple[str, ...] = ()
    others: tuple[str, ...] | None = None


ROOMS = {
    "netem": Room(ours=("netem",), others=("pyroute2",)),
    "parties": Room(
        ours=("parties",),
        never=("ray", "pyroute2", "typer", "rich", "jinja2", "matplotlib", "pandas", "grafana_client"),
    ),
    "orchestrator": Room(
        ours=("orchestrator", "netem", "parties", "dashboards"), never=("crypten", "pyroute2", "grafana_client")
    ),
    "dashboards": Room(ours=("dashboards", "parties.metering.registry"), never=("ray", "torch", "crypten", "pyroute2")),
}
OUR_ROOTS = (*ROOMS, "tests", "benchmarks")
UNPICKLERS = ("pickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "torch.load")


@dataclass
class Names(ast.NodeVisitor):
    """Every dotted name that a module imports, or reads from what it imported."""

    package: tuple[str, ...]
    imported: list[tuple[int, str]] = field(default_factory=list)
    read: list[tuple[int, str]] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.imported.append((node.lineno, alias.name))
            self.aliases[alias.asname or alias.name.partition(".")[0]] = (
                alias.name if alias.asname else alias.name.partition(".")[0]
            )

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = self.package[: len(self.package) - node.level + 1] if node.level else ()
        module = ".".join((*base, *([node.module] if node.module else [])))
        for alias in node.names:
            self.imported.append((node.lineno, f"{module}.{alias.name}"))
            self.aliases[alias.asname or alias.name] = f"{module}.{alias.name}"

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
            self.imported.append((node.lineno, str(node.args[0].value)))
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.value, ast.Name) and node.value.id in self.aliases:
            self.read.append((node.lineno, f"{self.aliases[node.value.id]}.{node.attr}"))
        self.generic_visit(node)


def within(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == module or name.startswith(module + ".") for module in modules)


def may_import(room: Room, name: str) -> bool:
    if within(name, OUR_ROOTS):
        return within(name, room.ours)
    if room.others is not None:
        return within(name, room.others) or name.partition(".")[0] in sys.stdlib_module_names
    return not within(name, room.never)


def violations(path: str, source: str) -> Iterator[str]:
    """What the module at `path`, relative to the project, does that its room must not."""
    *package, _ = PurePosixPath(path).parts
    names = Names(tuple(package))
    names.visit(ast.parse(source, path))
    for line, name in names.imported:
        if not may_import(ROOMS[package[0]], name):
            yield f"{path}:{line}: {package[0]}/ must not import {name}"
    if package[0] == "parties":
        for line, name in (*names.imported, *names.read):
            if within(name, UNPICKLERS):
                yield f"{path}:{line}: {name} can run what a peer sent; use JSON or raw tensors"


def modules() -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def test_every_module_keeps_to_its_room() -> None:
    found = modules()
    assert found
    broken = [line for path in found for line in violations(path, (ROOT / path).read_text(encoding="utf-8"))]
    assert not broken, "\n".join(broken)


ALLOWED = {
    "the standard library anywhere": ("netem/a.py", "import socket, os.path\nfrom collections.abc import Mapping"),
    "netlink in netem": ("netem/a.py", "from pyroute2 import IPRoute"),
    "a room of itself": ("netem/lab/a.py", "from netem.profile import Profile"),
    "a room of itself, relatively": ("parties/engines/a.py", "from ..link import Link\nfrom . import base"),
    "torch in parties": ("parties/a.py", "import torch\ntorch.save(1, 2)\njson.load(3)"),
    "parties in the orchestrator": (
        "orchestrator/a.py",
        "from parties.roles.party import Party\nimport ray, netem.profile",
    ),
    "dashboards in the orchestrator": ("orchestrator/a.py", "from dashboards.rules import rules"),
    "the registry in dashboards": (
        "dashboards/a.py",
        "from parties.metering.registry import METRICS\nimport parties.metering.registry",
    ),
    "the registry by its package": ("dashboards/a.py", "from parties.metering import registry"),
    "a module that only begins like a forbidden one": ("parties/a.py", "import rayon\nimport pickleball"),
}
FORBIDDEN = {
    "torch in netem": ("netem/a.py", "import torch", "torch"),
    "a package in netem": ("netem/a.py", "from pydantic import BaseModel", "pydantic"),
    "parties in netem": ("netem/a.py", "from parties.transport.link import Link", "parties.transport.link"),
    "ray in parties": ("parties/a.py", "import ray", "ray"),
    "part of ray in parties": ("parties/a.py", "from ray.util import metrics", "ray.util"),
    "netem in parties": ("parties/a.py", "import netem", "netem"),
    "orchestrator in parties": (
        "parties/engines/a.py",
        "from orchestrator.experiment.cells import Cell",
        "orchestrator",
    ),
    "a lazy import": ("parties/a.py", "def f():\n    import ray\n", "ray"),
    "an import for types": ("parties/a.py", "if TYPE_CHECKING:\n    from ray import ObjectRef", "ray"),
    "an import by name": ("parties/a.py", "importlib.import_module('ray')", "ray"),
    "an import out of the room": ("parties/engines/a.py", "from ...orchestrator import cells", "orchestrator"),
    "CrypTen in the orchestrator": ("orchestrator/a.py", "import crypten.mpc", "crypten"),
    "the orchestrator in dashboards": ("dashboards/a.py", "from orchestrator import cli", "orchestrator"),
    "more of parties in dashboards": (
        "dashboards/a.py",
        "from parties.metering.meter import STAGES",
        "parties.metering.meter",
    ),
    "all of parties in dashboards": ("dashboards/a.py", "import parties", "parties"),
    "beside the registry in dashboards": (
        "dashboards/a.py",
        "from parties.metering import registry, meter",
        "parties.metering.meter",
    ),
    "tests anywhere": ("orchestrator/a.py", "from tests.parties import wires", "tests"),
    "pickle in parties": ("parties/a.py", "import pickle", "pickle"),
    "loads in parties": ("parties/a.py", "from pickle import loads", "pickle.loads"),
    "torch.load in parties": ("parties/a.py", "import torch\nx = torch.load('f')", "torch.load"),
    "torch.load under another name": ("parties/a.py", "import torch as t\nx = t.load('f')", "torch.load"),
    "load of torch": ("parties/a.py", "from torch import load as get", "torch.load"),
}


@pytest.mark.parametrize(("path", "source"), ALLOWED.values(), ids=ALLOWED)
def test_what_a_room_may_do_is_let_through(path: str, source: str) -> None:
    assert list(violations(path, source)) == []


@pytest.mark.parametrize(("path", "source", "name"), FORBIDDEN.values(), ids=FORBIDDEN)
def test_what_a_room_must_not_do_is_found_and_named(path: str, source: str, name: str) -> None:
    found = list(violations(path, source))
    assert len(found) == 1
    assert path in found[0]
    assert name in found[0]


def test_the_registry_of_metrics_brings_no_torch_along() -> None:
    heavy = "{'torch', 'ray', 'crypten', 'transformers'}"
    script = f"import sys, parties.metering.registry; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
