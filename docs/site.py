"""A hook of MkDocs: pages that lie outside docs/, and links to files of the repository that are not pages."""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
OUTSIDE = {name: name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")} | {"README.md": "index.md"}
"""Files of the repository that are pages of the site, with their names there."""

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> None:
    """Adds the pages that lie outside docs/."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))


def on_page_markdown(markdown: str, page: Any, files: Any, **_: Any) -> str:
    """Has every relative link lead to a page of the site; of a file that is none, the name alone stays."""
    name = page.file.src_uri
    source = next((file for file, known in OUTSIDE.items() if known == name), f"docs/{name}")

    def followed(link: re.Match[str]) -> str:
        mark, text, target, anchor = link.groups(default="")
        path = normpath(str(PurePosixPath(source).parent / target))
        there = OUTSIDE.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(there) is None and (ROOT / path).exists():
            return text
        return f"{mark}[{text}]({relpath(there, str(PurePosixPath(name).parent))}{anchor})"

    return _LINK.sub(followed, markdown)
