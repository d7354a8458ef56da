"""Writes the boards to `dashboards/generated/` and their list into `docs/watching.md`: `python -m dashboards`."""

from dashboards.boards import documents
from dashboards.catalogue import DOCUMENT, with_list
from dashboards.names import GENERATED

if __name__ == "__main__":
    GENERATED.mkdir(exist_ok=True)
    for name, text in documents().items():
        (GENERATED / name).write_text(text, encoding="utf-8")
    DOCUMENT.write_text(with_list(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
