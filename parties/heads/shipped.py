"""Trained heads that come with the project, by the name of their model."""

from pathlib import Path

FOLDER = Path(__file__).parent / "trained"


def shipped(kind: str) -> tuple[str, ...]:
    """Names of the models that heads of a kind come with the project for."""
    return tuple(
        sorted(path.name.removesuffix(f".{kind}.safetensors") for path in FOLDER.glob(f"*.{kind}.safetensors"))
    )


def find(name: str, kind: str) -> Path:
    """The file of heads that a policy's parameter `head` means: a shipped one by its short name, or a path."""
    return FOLDER / f"{name}.{kind}.safetensors" if name in shipped(kind) else Path(name)
