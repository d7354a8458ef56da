"""YAML files that people write: read whole, or refused by what is wrong with them.

A message names the line and never quotes the file, which may contain a prompt or be one.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from orchestrator.experiment.problems import ConfigError, Problem
from parties.text_file import Unreadable, reading

MOST_CHARACTERS = 1_000_000
MOST_VALUES = 100_000
"""Bounds of a file: as it is written, and once its aliases are followed."""

_PREFIX = "tag:yaml.org,2002:"
_KINDS = {
    "map": "a mapping",
    "seq": "a list",
    "str": "a text",
    "null": "nothing",
    "int": "a number",
    "float": "a number",
    "bool": "true or false (on, off, yes and no are, too)",
    "timestamp": "a date",
    "merge": "<<",
    "value": "=",
}
_KEY_FIX = "quote the key; where it is {{…}}, fill the template in"
_FIX = "correct the line named"
_KEY = re.compile(r"[A-Za-z_][\w.+>-]{0,39}", re.ASCII)
_QUOTED = re.compile(r"""(['"])(?P<inner>.*?)\1(?=$|[\s,;:)])""", re.DOTALL)
_TOKEN = re.compile(r"<[a-z ]+>|[^\w\s]{1,3}|\\t")  # what YAML expected or found: `<block end>`, `:`, a tab


class DocumentError(Exception):
    """A text outside the accepted YAML; `fault` names the line without quoting it, `fix` is the change to make."""

    def __init__(self, fault: str, fix: str = _FIX) -> None:
        super().__init__(f"{fault}; {fix}")
        self.fault, self.fix = fault, fix


def read_mapping(path: Path, keys: Iterable[str], document: str) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Args:
        path: The file.
        keys: The allowed keys, for the message.
        document: The page that explains them, for the message.

    Raises:
        ConfigError: There is no such file, or it is not YAML or not a mapping.
    """
    known, source = list(keys), str(path)
    try:
        with reading(path) as file:
            data = parse(file.read(MOST_CHARACTERS + 1))
    except Unreadable as error:
        raise ConfigError(source, [Problem("", str(error), "a readable YAML file", "correct the path")]) from None
    except DocumentError as error:
        raise ConfigError(source, [Problem("", error.fault, "YAML", error.fix)]) from None
    if isinstance(data, dict) and set(known) & set(data):
        return data
    # Something else than an experiment, perhaps the prompt.
    allowed = f"a mapping with the keys {', '.join(known)}"
    raise ConfigError(source, [Problem("", _found(data), allowed, f"see {document}")])


def parse(text: str) -> Any:
    """The only document of a YAML text. Keys are texts, each given once; `<<` merges, and a key of one's own wins.

    Raises:
        DocumentError: With the first thing that is wrong.
    """
    if len(text) > MOST_CHARACTERS:
        fix = "name the YAML file, and keep a prompt in a file of its own"
        raise DocumentError(f"more than {MOST_CHARACTERS:,} characters", fix)
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _Check().values(node)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise _fault(error) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise DocumentError(f"line {line}: a character that YAML does not allow", "take it out") from None
    except RecursionError:
        raise DocumentError("lists and mappings are nested too deeply", "write it flatter") from None
    finally:
        if loader is not None:
            loader.dispose()


def _found(data: object) -> str:
    """The kind of a document, in words that quote nothing of it."""
    if isinstance(data, dict):
        return "a mapping that has none of them"
    return "nothing" if data is None else "a list" if isinstance(data, list) else "a text or a single value"


class _Loader(yaml.SafeLoader):
    """YAML in which a value that cannot be made, such as the date 2026-02-31, is an error with its line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, OverflowError, AttributeError, LookupError):
            raise _at(node, "a value that cannot be read as the number or date it looks like", "quote it") from None


class _Check:
    """Checks all nodes before any value is constructed."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()

    def values(self, node: yaml.Node) -> int:
        """How many values a node holds, those of its aliases counted each time.

        Raises:
            DocumentError: A key is not a text or given twice, a tag is not one of YAML's own, an alias holds itself, or
                there are too many values.
        """
        if id(node) in self._open:
            raise _at(node, "a value that contains itself by an alias", "write it out")
        if id(node) not in self._sizes:
            if _kind(node) not in _KINDS:
                raise _at(node, "a tag (!…), which has no meaning here", "take it out, or quote the value")
            self._open.add(id(node))
            if isinstance(node, yaml.MappingNode):
                _check_keys(node)
            self._sizes[id(node)] = 1 + sum(self.values(inner) for inner in _inside(node))
            self._open.remove(id(node))
        if self._sizes[id(node)] > MOST_VALUES:
            raise _at(node, f"more than {MOST_VALUES:,} values once aliases are followed", "use fewer aliases")
        return self._sizes[id(node)]


def _inside(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        yield from (value for _, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _check_keys(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if _kind(key) not in ("str", "merge"):
            found = _KINDS.get(_kind(key), "of another type")
            raise _at(key, f"a key must be text, and this one is {found}", _KEY_FIX)
        if key.value in seen:
            raise _at(key, f"key {_shown(key.value)} is given twice", "take one of the two out")
        seen.add(key.value)


def _kind(node: yaml.Node) -> str:
    return str(node.tag).removeprefix(_PREFIX)


def _shown(key: str) -> str:
    """A key for a message; hidden if it may be a line of a text."""
    return repr(key) if key == "<<" or _KEY.fullmatch(key) else "of several words"


def _at(node: yaml.Node, fault: str, fix: str) -> DocumentError:
    return DocumentError(f"line {node.start_mark.line + 1}: {fault}", fix)


def _fault(error: yaml.MarkedYAMLError) -> DocumentError:
    """The parser's message without any words of the file."""
    problem = error.problem or ""
    line = f"line {error.problem_mark.line + 1}: " if error.problem_mark is not None else ""
    if "but found another document" in problem:
        return DocumentError(f"{line}a second document begins", "keep one: take the line --- out")
    if r"'\t'" in problem:
        return DocumentError(f"{line}a tab where YAML wants spaces", "indent with spaces")
    message = ": ".join(_without_quotes(part) for part in (error.context, problem) if part)
    return DocumentError(line + message, "fill the template in, or quote the value" if "'%'" in problem else _FIX)


def _without_quotes(message: str) -> str:
    """Keeps quoted tokens of the language, and replaces quoted names and values of the file."""
    return _QUOTED.sub(lambda found: found[0] if _TOKEN.fullmatch(found["inner"]) else "…", message)
