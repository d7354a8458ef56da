"""Trained heads that come with the project, by model name."""

from pathlib import Path

FOLDER = Path(__file__).parent / "trained"


def shipped(kind: str) -> tuple[str, ...]:
    """Returns the names of the models for which heads of a kind come with the project."""
    return tuple(
        sorted(path.name.removesuffix(f".{kind}.safetensors") for path in FOLDER.glob(f"*.{kind}.safetensors"))
    )


def find(name: str, kind: str) -> Path:
    """Returns the file for a policy's parameter `head`: that of a shipped head, by model name, or a path."""
    return FOLDER / f"{name}.{kind}.safetensors" if name in shipped(kind) else Path(name)
