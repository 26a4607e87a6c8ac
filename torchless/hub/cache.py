"""What is in the caches: the hub's own, and that of files from other servers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torchless.errors import ModelNotFoundError
from torchless.hub.names import HubName, WebName, parse_name
from torchless.hub.selection import gguf_models, quant_of

__all__ = ["CachedModel", "cached_models", "cached_snapshot", "models_of", "remove_model"]


@dataclass(frozen=True, slots=True)
class CachedModel:
    """A model in a cache.

    Attributes:
        name: what to call it to load it.
        path: the file or folder to open.
        num_bytes: of its weights and other files.
        modified: seconds since 1970 when it came.
        files: paths in the cache.
    """

    name: str
    path: Path
    num_bytes: int
    modified: float
    files: tuple[Path, ...]


def cached_models() -> list[CachedModel]:
    """All models in the caches by name. Repositories that hold no model are left out."""
    return sorted([*_hub_models(), *_web_models()], key=lambda model: model.name.lower())


def models_of(name: HubName) -> list[CachedModel]:
    """Those that the name means: one quantisation, or all of a repository."""
    return [model for model in cached_models() if _is_meant(name, model.name)]


def cached_snapshot(repo: str, revision: str | None) -> Path | None:
    """The folder of a repository's cached revision; None where there is none."""
    found = _repositories().get(repo)
    if found is None:
        return None
    for item in found.revisions:
        if (revision or "main") in item.refs or item.commit_hash == revision:
            return Path(item.snapshot_path)
    return None


def remove_model(name: str) -> list[CachedModel]:
    """Deletes a model from the cache: one quantisation, or all of a repository. Returns what was there.

    Raises:
        ModelNotFoundError: it is not in the cache; says what is.
    """
    models = cached_models()
    parsed = parse_name(name)
    if isinstance(parsed, HubName):
        found = [model for model in models if _is_meant(parsed, model.name)]
    else:
        found = [model for model in models if isinstance(parsed, WebName) and model.name == parsed.url]
    if not found:
        listed = ", ".join(model.name for model in models[:8]) or "nothing"
        raise ModelNotFoundError(f"{name}: not in the cache, which holds {listed}")
    whole = isinstance(parsed, HubName) and (parsed.choice is None or _is_only_model(parsed, models))
    if whole:
        assert isinstance(parsed, HubName)
        info = _scan()
        repo = _repositories(info)[parsed.repo]
        # Only among this repository's revisions: another one may have a revision of the same name.
        info = replace(info, repos=frozenset({repo}))
        info.delete_revisions(*(item.commit_hash for item in repo.revisions)).execute()
    else:
        for model in found:
            _delete_files(model)
    return found


def _is_meant(wanted: HubName, name: str) -> bool:
    if "://" in name:
        return False
    found = parse_name("hf:" + name)
    assert isinstance(found, HubName)
    if found.repo != wanted.repo:
        return False
    return wanted.choice is None or wanted.choice.upper() == (found.choice or "").upper()


def _is_only_model(wanted: HubName, models: list[CachedModel]) -> bool:
    """Whether a repository's cache holds nothing but the model that is wanted."""
    return sum(_is_meant(HubName(wanted.repo), model.name) for model in models) == 1


def _delete_files(model: CachedModel) -> None:
    """Deletes a model's files, and the data behind links once no other link leads there."""
    for path in model.files:
        blob = path.resolve()
        path.unlink(missing_ok=True)
        if blob != path and not _is_linked(blob, path):
            blob.unlink(missing_ok=True)


def _is_linked(blob: Path, path: Path) -> bool:
    snapshots = next((parent for parent in path.parents if parent.name == "snapshots"), path.parent)
    return any(item.is_symlink() and item.resolve() == blob for item in snapshots.rglob("*"))


def _scan() -> Any:
    from torchless.hub.download import hub_library

    hub = hub_library()
    try:
        return hub.scan_cache_dir()
    except hub.CacheNotFound:
        return None


def _repositories(info: Any = None) -> dict[str, Any]:
    info = _scan() if info is None else info
    return {} if info is None else {item.repo_id: item for item in info.repos if item.repo_type == "model"}


def _hub_models() -> Iterator[CachedModel]:
    for repo in _repositories().values():
        seen: set[str] = set()
        for revision in sorted(
            repo.revisions, key=lambda item: ("main" not in item.refs, -item.last_modified)
        ):
            snapshot = Path(revision.snapshot_path)
            at = (
                ""
                if "main" in revision.refs
                else "@" + (min(revision.refs, default=None) or revision.commit_hash)
            )
            files = {Path(item.file_path).relative_to(snapshot).as_posix(): item for item in revision.files}
            for entry, parts in gguf_models(files).items():
                there = [files[part] for part in parts if part in files]
                quants = [quant_of(other) for other in gguf_models(files)]
                quant = quant_of(entry)
                choice = quant if quant and quants.count(quant) == 1 else entry
                if len(there) == len(parts):
                    seen.add(at)
                    yield _model(f"{repo.repo_id}{at}:{choice}", snapshot / entry, there)
            if (
                at not in seen
                and "config.json" in files
                and any(name.endswith(".safetensors") for name in files)
            ):
                yield _model(f"{repo.repo_id}{at}", snapshot, list(files.values()))


def _model(name: str, path: Path, files: list[Any]) -> CachedModel:
    modified = max(item.blob_last_modified for item in files)
    size = sum(item.size_on_disk for item in files)
    return CachedModel(name, path, size, modified, tuple(Path(item.file_path) for item in files))


def _web_models() -> Iterator[CachedModel]:
    from torchless.hub.web_file import web_folder

    folder = web_folder()
    for note in sorted(folder.glob("*/url")) if folder.is_dir() else ():
        files = [item for item in note.parent.iterdir() if item != note and not item.name.startswith(".")]
        if files:
            status = files[0].stat()
            url = note.read_text(encoding="utf-8").strip()
            yield CachedModel(url, files[0], status.st_size, status.st_mtime, (files[0], note))
