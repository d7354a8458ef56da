"""Holds every room to its contract: its allowed imports, and no unpickling of data from a peer."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath

import pytest

from tests.helpers.paths import ROOT


@dataclass(frozen=True)
class Room:
    """Allowed imports of a room: `ours` of our own, and of the rest all but `never`, or only `others` if given."""

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
# The decoder's contract with engines and policies. Its parts import one another; no two modules do.
CONTRACT = (
    "decoding",
    "policies.base",
    "engines.__init__",
    "engines.base",
    "engines.attention",
    "engines.operations",
    "engines.bounds",
    "engines.limits",
    "engines.keystream",
)
# For each package, its rooms, and the rooms or modules directly below each. A room may import itself and what is
# below it, at any depth. `*` stands for the modules that lie directly in the package, unless they have a row.
INSIDE: dict[str, dict[str, tuple[str, ...]]] = {
    "orchestrator": {
        "*": ("run",),  # the Python API of the package
        "experiment": (),
        "records": ("experiment",),
        "predict": ("records",),
        "report": ("records",),
        "watch": ("predict", "report.words"),
        "run": ("watch",),
        "quality": ("predict",),
        "ranges": ("records",),
        "training": ("records",),
        "doctor": ("run",),
        "submit": ("run",),
        "cli": ("report", "quality", "ranges", "training", "doctor", "submit"),
    },
    "parties": {
        "*": (),
        "metering": ("*",),
        "transport": ("metering",),
        "models": ("metering",),
        **dict.fromkeys(CONTRACT, (*CONTRACT, "models")),
        "policies": CONTRACT,
        "heads": ("policies.base",),
        "engines.plain": CONTRACT,
        "engines.watched": ("engines.plain",),
        "engines.crypten": (*CONTRACT, "transport"),
        "engines.fss": ("engines.plain", "policies", "heads", "transport"),
        "engines.spu": (*CONTRACT, "transport"),
        "engines.factory": ("engines.plain", "engines.crypten", "engines.fss", "engines.spu"),
        "roles": ("engines.factory", "engines.watched"),
    },
    "parties.engines.fss": {
        "__init__": (),
        "bounds": (),
        "kernels": (),
        "recording": ("kernels",),
        "randomness": ("recording", "bounds"),
        "arithmetic": ("randomness",),
        "compare": ("arithmetic",),
        "functions": ("compare", "bounds"),
        "topk": ("compare",),
        "programs": ("functions", "topk"),
        "computation": ("programs",),
        "replay": ("computation",),
        "dealing": ("replay",),
        "cost": ("dealing",),
        "engine": ("dealing",),
    },
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
    """Violations of its room by the module at `path`, relative to the project."""
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


def module(path: str) -> str:
    """The dotted name of the module at `path`; that of a package ends with `__init__`."""
    return ".".join(PurePosixPath(path).with_suffix("").parts)


def imported(path: str, source: str, modules: frozenset[str]) -> set[str]:
    """Those of `modules` that the module at `path` imports: for types, inside functions and by name, too."""
    names = Names(PurePosixPath(path).parts[:-1])
    names.visit(ast.parse(source, path))
    found = set()
    for _, name in names.imported:
        parts = name.split(".")
        prefixes = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
        candidates = [known for prefix in prefixes for known in (prefix, f"{prefix}.__init__")]
        found.update([known for known in candidates if known in modules][:1])
    return found - {module(path)}


def room_of(name: str, rooms: Mapping[str, tuple[str, ...]]) -> str | None:
    """The row of `rooms` that holds the module, given by its name inside the package; the longest wins."""
    held = [room for room in rooms if within(name, (room,))]
    return max(held, key=len, default="*" if "*" in rooms and "." not in name else None)


def below(room: str, rooms: Mapping[str, tuple[str, ...]]) -> set[str]:
    """The room and all that it may import."""
    found, open_ends = set(), [room]
    while open_ends:
        if (name := open_ends.pop()) not in found:
            found.add(name)
            open_ends += rooms.get(name, ())
    return found


def inner_violations(path: str, imports: set[str]) -> Iterator[str]:
    """Forbidden imports of the module at `path` from its own package."""
    for package, rooms in INSIDE.items():
        if not within(module(path), (package,)):
            continue
        room = room_of(module(path).removeprefix(f"{package}."), rooms)
        if room is None:
            yield f"{path}: lies in no room of {package}; give it a row in INSIDE"
            continue
        allowed = below(room, rooms)
        for name in sorted(each for each in imports if within(each, (package,))):
            inner = name.removeprefix(f"{package}.")
            if room_of(inner, rooms) not in allowed and not within(inner, tuple(allowed)):
                yield f"{path}: {package}.{room} must not import {name}"


def circle(imports: Mapping[str, set[str]]) -> list[str]:
    """Modules of which each imports the next, and the last is the first; nothing if there is no circle."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def sources() -> dict[str, str]:
    """All modules of the project, by their path."""
    paths: list[Path] = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


SOURCES = sources()
MODULES = frozenset(map(module, SOURCES))


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """The imports of each module, given by its path, from the project."""
    return {path: imported(path, source, MODULES) for path, source in SOURCES.items()}


def test_every_module_keeps_to_its_room() -> None:
    assert SOURCES
    broken = [line for path, source in SOURCES.items() for line in violations(path, source)]
    assert not broken, "\n".join(broken)


def test_every_module_keeps_to_its_room_inside_its_package(imports: dict[str, set[str]]) -> None:
    broken = [line for path, names in imports.items() for line in inner_violations(path, names)]
    assert not broken, "\n".join(broken)


def test_no_modules_import_one_another_in_a_circle(imports: dict[str, set[str]]) -> None:
    found = circle({module(path): names for path, names in imports.items()})
    assert not found, " imports ".join(found)


@pytest.mark.parametrize("package", ["orchestrator", "parties.engines.fss"])
def test_no_rooms_may_import_one_another_in_a_circle(package: str) -> None:
    rooms = INSIDE[package]
    assert circle({room: {room_of(name, rooms) or name for name in names} for room, names in rooms.items()}) == []


@pytest.mark.parametrize("package", INSIDE)
def test_every_room_inside_a_package_holds_a_module(package: str) -> None:
    held = {room_of(name.removeprefix(f"{package}."), INSIDE[package]) for name in MODULES if within(name, (package,))}
    assert set(INSIDE[package]) <= held


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
        "from parties.metering.stages import STAGES",
        "parties.metering.stages",
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
def test_allowed_imports_pass(path: str, source: str) -> None:
    assert list(violations(path, source)) == []


@pytest.mark.parametrize(("path", "source", "name"), FORBIDDEN.values(), ids=FORBIDDEN)
def test_forbidden_imports_are_found_and_named(path: str, source: str, name: str) -> None:
    found = list(violations(path, source))
    assert len(found) == 1
    assert path in found[0]
    assert name in found[0]


INSIDE_ALLOWED = {
    "the room below": ("orchestrator/run/a.py", "from orchestrator.watch.push import Push"),
    "a room far below": ("orchestrator/cli/a.py", "import orchestrator.experiment.cells"),
    "a module of a room that is not below": ("orchestrator/watch/a.py", "from orchestrator.report import words"),
    "another package": ("orchestrator/experiment/a.py", "from parties.roles.job import Job"),
    "errors at the bottom": ("parties/metering/a.py", "from parties.errors import PartyError"),
    "the contract in the decoder": ("parties/decoding/a.py", "from parties.engines.base import Engine"),
    "the decoder in the contract": ("parties/engines/base.py", "from parties.decoding.program import Program"),
    "names of the engines": ("parties/engines/crypten/a.py", "from parties.engines import ENGINES"),
    "the plain engine in fss": ("parties/engines/fss/functions/a.py", "from parties.engines.plain import PlainEngine"),
    "a room of itself in fss": ("parties/engines/fss/topk/a.py", "from . import ranking\nfrom ..compare import signs"),
}
INSIDE_FORBIDDEN = {
    "a room above": ("orchestrator/records/a.py", "from orchestrator.run.sweep import sweep", "orchestrator.run.sweep"),
    "a room beside": ("orchestrator/quality/a.py", "import orchestrator.training.loop", "orchestrator.training.loop"),
    "more of a room": ("orchestrator/watch/a.py", "from orchestrator.report.rows import x", "orchestrator.report.rows"),
    "lazily": ("orchestrator/predict/a.py", "def f():\n    from orchestrator.cli import main", "orchestrator.cli.main"),
    "for types": (
        "parties/metering/a.py",
        "if TYPE_CHECKING:\n    from parties.transport.link import Link",
        "parties.transport.link",
    ),
    "by name": ("parties/models/a.py", "importlib.import_module('parties.roles.job')", "parties.roles.job"),
    "anything at the bottom": ("parties/errors.py", "from parties.metering import meter", "parties.metering.meter"),
    "a policy in the decoder": ("parties/decoding/a.py", "from parties.policies import Full", "parties.policies"),
    "an engine in the contract": ("parties/engines/base.py", "from .plain import PlainEngine", "parties.engines.plain"),
    "an engine in another": (
        "parties/engines/crypten/a.py",
        "from parties.engines.fss import bounds",
        "parties.engines.fss.bounds",
    ),
    "links in the decoder": ("parties/decoding/a.py", "from parties.transport import link", "parties.transport.link"),
    "roles in fss": ("parties/engines/fss/dealing/a.py", "import parties.roles.job", "parties.roles.job"),
    "a room above in fss": (
        "parties/engines/fss/kernels/a.py",
        "from ..arithmetic import ring",
        "parties.engines.fss.arithmetic.ring",
    ),
    "no room": ("parties/a/b.py", "import socket", "no room of parties"),
}


@pytest.mark.parametrize(("path", "source"), INSIDE_ALLOWED.values(), ids=INSIDE_ALLOWED)
def test_allowed_inner_imports_pass(path: str, source: str) -> None:
    assert list(inner_violations(path, imported(path, source, MODULES))) == []


@pytest.mark.parametrize(("path", "source", "name"), INSIDE_FORBIDDEN.values(), ids=INSIDE_FORBIDDEN)
def test_forbidden_inner_imports_are_found_and_named(path: str, source: str, name: str) -> None:
    (found,) = inner_violations(path, imported(path, source, MODULES))
    assert path in found
    assert name in found


CIRCLES = {
    "of two": {"a/b.py": "import a.c", "a/c.py": "from a import b"},
    "for types": {"a/b.py": "from a.c import C", "a/c.py": "if TYPE_CHECKING:\n    from a.b import B"},
    "lazily": {"a/b.py": "from .c import C", "a/c.py": "def f():\n    from a.b import B"},
    "of three": {"a/b.py": "import a.c", "a/c.py": "import a.d", "a/d.py": "import a.b"},
    "through a package": {"a/__init__.py": "from a.b import B", "a/b.py": "from a import B"},
}


@pytest.mark.parametrize("files", CIRCLES.values(), ids=CIRCLES)
def test_a_circle_is_found(files: dict[str, str]) -> None:
    modules = frozenset(map(module, files))
    found = circle({module(path): imported(path, source, modules) for path, source in files.items()})
    assert found[0] == found[-1]
    assert set(found) == modules


def test_modules_that_import_a_third_are_not_a_circle() -> None:
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("parties.metering.registry", "torch ray crypten transformers"),
        ("orchestrator.run.actors, parties.transport.mesh", "torch crypten transformers"),
    ],
)
def test_what_is_imported_early_does_not_import_what_takes_seconds(modules: str, heavy: str) -> None:
    script = f"import sys, {modules}; print(*set({heavy.split()}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
