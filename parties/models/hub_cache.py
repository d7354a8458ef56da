"""Finds models in the local cache of the Hugging Face hub; never uses the network.

Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache. A repository is a folder
`models--OWNER--NAME`; `refs/BRANCH` holds the commit of a branch or tag, and `snapshots/COMMIT` its files.
"""

from pathlib import Path

from parties.errors import ModelError

_MAIN = "main"


def snapshot(repository: str, revision: str = "") -> Path:
    """The folder of a cached model.

    Args:
        repository: `owner/name`, or the name alone.
        revision: Branch, tag or commit; empty for `main`.

    Raises:
        ModelError: It is not in the cache.
    """
    from huggingface_hub import constants  # slow to import, and rarely needed

    return _snapshot(Path(constants.HF_HUB_CACHE, f"models--{repository.replace('/', '--')}"), repository, revision)


def is_repository(folder: Path) -> bool:
    """Whether a folder is that of a repository in a cache, which holds its revisions."""
    return folder.name.startswith("models--") and (folder / "snapshots").is_dir()


def main_branch(folder: Path) -> Path:
    """The folder of a cached model, given that of its repository: its branch main.

    Raises:
        ModelError: The branch main is not in the cache.
    """
    return _snapshot(folder, folder.name.removeprefix("models--").replace("--", "/"), "")


def _snapshot(folder: Path, repository: str, revision: str) -> Path:
    cached = _cached(folder)
    wanted = revision or _MAIN
    commit = cached.get(wanted, wanted)
    found = folder / "snapshots" / commit
    if commit in cached.values() and found.is_dir():
        return found
    download = f"{repository} --revision {revision}" if revision else repository
    if not cached:
        raise ModelError(
            f"model {repository!r} is neither a local path nor in the hub cache; run: hf download {download}"
        )
    names = ", ".join(sorted(f"{repository}@{name}" for name in cached))
    raise ModelError(
        f"revision {wanted!r} of {repository} is not in the hub cache, which has {names}; run: hf download {download}"
    )


def _cached(folder: Path) -> dict[str, str]:
    """The commit of each revision of a repository: its branches and tags, and commits without a name."""
    refs, snapshots = folder / "refs", folder / "snapshots"
    named = {
        path.relative_to(refs).as_posix(): path.read_text(encoding="utf-8").strip()
        for path in sorted(refs.rglob("*"))
        if path.is_file()
    }
    there = {path.name for path in snapshots.glob("*") if path.is_dir()}
    return {name: commit for name, commit in named.items() if commit in there} | {
        commit: commit for commit in there - set(named.values())
    }
