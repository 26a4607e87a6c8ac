"""Downloads from the Hugging Face hub, by its own library: its cache, tokens, offline mode and resuming."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchless.errors import ModelNotFoundError, TorchlessError, UnsupportedError
from torchless.hub.names import HubName
from torchless.hub.selection import Selection, select_files

if TYPE_CHECKING:
    from torchless.backends.base import Progress

__all__ = ["discard_parts", "download", "hub_library"]

_log = logging.getLogger("torchless")

_OWN_PART = re.compile(r"\.[0-9a-f]{8}\.incomplete$")
"""Ends the name of what newer versions of the library have received of a file: no other download goes on with it."""


def download(name: HubName, progress: Progress | None = None) -> Path:
    """The path of a model of the hub: from the cache if it is there and current, else downloaded into it.

    Raises:
        ModelNotFoundError: no such repository, file or revision, no access to it, or no connection and nothing in
            the cache.
        UnsupportedError: huggingface_hub is not installed.
    """
    hub = hub_library()
    try:
        files, sizes = _remote_files(hub, name)
    except TorchlessError:
        raise
    except Exception as error:
        found = None if _is_refusal(hub, error) else _cached(name)
        if found is None:
            raise ModelNotFoundError(_explanation(hub, name, error)) from None
        _log.info("%s: the hub cannot be reached; the cached files are used", name)
        return found
    selection = select_files(name, files)
    total = sum(sizes.get(file, 0) for file in selection.files)
    counter = None if progress is None else _bar_class(hub, progress, total)
    try:
        folder = hub.snapshot_download(
            name.repo,
            revision=name.revision,
            allow_patterns=[_literal(file) for file in selection.files],
            **({} if counter is None else {"tqdm_class": counter}),
        )
    except Exception as error:
        raise ModelNotFoundError(_explanation(hub, name, error)) from None
    if progress is not None:
        progress(total, total)
    return Path(folder) / selection.entry


def discard_parts() -> None:
    """Deletes what this process has received of files and no other can go on with: before it ends at once (Linux)."""
    for descriptor in Path("/proc/self/fd").glob("*"):
        try:
            path = descriptor.readlink()
            if _OWN_PART.search(path.name):
                path.unlink()
        except OSError:  # closed or deleted meanwhile
            continue


def hub_library() -> Any:
    """The module huggingface_hub, imported when a name is used and not before."""
    try:
        import huggingface_hub
    except ImportError:
        raise UnsupportedError(
            "names of models need the package huggingface_hub: pip install huggingface_hub, or give a path"
        ) from None
    return huggingface_hub


def _remote_files(hub: Any, name: HubName) -> tuple[list[str], dict[str, int]]:
    """Names and sizes of the files in a repository. Raises what the library raises."""
    info = hub.HfApi().model_info(name.repo, revision=name.revision, files_metadata=True)
    siblings = info.siblings or []
    return [item.rfilename for item in siblings], {item.rfilename: item.size or 0 for item in siblings}


def _cached(name: HubName) -> Path | None:
    """The model in the cache; None unless all its files are there."""
    from torchless.hub.cache import cached_snapshot

    snapshot = cached_snapshot(name.repo, name.revision)
    if snapshot is None:
        return None
    files = sorted(
        str(path.relative_to(snapshot).as_posix()) for path in snapshot.rglob("*") if path.is_file()
    )
    try:
        selection: Selection = select_files(name, files)
    except ModelNotFoundError:
        return None
    if any(file not in files for file in selection.files):
        return None
    return snapshot / selection.entry


def _is_refusal(hub: Any, error: Exception) -> bool:
    """Whether the hub answered, and the answer was no."""
    errors = hub.errors
    return isinstance(
        error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError | errors.HFValidationError
    )


def _explanation(hub: Any, name: HubName, error: Exception) -> str:
    """What went wrong, and what to do."""
    errors, page = hub.errors, f"{hub.constants.ENDPOINT}/{name.repo}"
    if isinstance(error, errors.GatedRepoError):
        return f"{name}: access must be granted first: accept the conditions at {page}, then set HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name}: the repository has no revision {name.revision!r}; see {page}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{name}: no such file here, and no such repository at {hub.constants.ENDPOINT} (a private one needs "
            f"HF_TOKEN); check the spelling"
        )
    if isinstance(error, errors.OfflineModeIsEnabled) or hub.constants.HF_HUB_OFFLINE:
        from torchless.hub.cache import models_of

        held = ", ".join(model.name for model in models_of(HubName(name.repo))) or "nothing of it"
        return (
            f"{name}: not in the cache, which holds {held}, and HF_HUB_OFFLINE forbids downloads; unset it once to get "
            f"the model"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{name}: the download failed: {error.strerror}; try again: files that came whole are kept"
    first = str(error).strip().splitlines()[:1] or [""]
    return (
        f"{name}: the download failed: {type(error).__name__}: {first[0]:.200}; try again: files that came whole are "
        f"kept"
    )


def _literal(file: str) -> str:
    """A pattern of the library that only this file matches."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in file)


def _bar_class(hub: Any, progress: Progress, total: int) -> type:
    """A progress bar that draws nothing and reports the bytes of all files together."""
    lock = threading.Lock()
    done = 0

    def report(count: float) -> None:
        nonlocal done
        with lock:
            done = max(0, min(total, done + int(count)))
            progress(done, max(total, 1))

    base: Any = hub.utils.tqdm
    return _make_bar(base, report)


def _make_bar(base: Any, report: Callable[[float], None]) -> type:
    class Bar(base):  # type: ignore[misc]
        """Counts bytes; other bars of the library count files."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            self._counts_bytes = options.get("unit") == "B"
            options["disable"] = True
            options.pop("name", None)
            super().__init__(*arguments, **options)
            if self._counts_bytes and options.get("initial"):
                report(options["initial"])

        def update(self, n: float | None = 1) -> bool | None:
            if self._counts_bytes:
                report(n or 0)
            return None

    return Bar
