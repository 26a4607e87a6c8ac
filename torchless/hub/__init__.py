"""Models by name: on the Hugging Face hub or behind a URL. `local_path` turns a name into a path, downloading."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from torchless.hub.names import HubName, parse_name

if TYPE_CHECKING:
    from torchless.backends.base import Progress

__all__ = ["local_path", "parse_name"]


def local_path(model: str | os.PathLike[str], progress: Progress | None = None) -> Path:
    """The path of a model on this machine; one that is named and not here yet is downloaded.

    Args:
        model: a path (anything that exists, and what looks like a file), ``org/repo``, ``org/repo:QUANT``, ``hf:``
            before either, or a URL.
        progress: called with (bytes done, bytes of all) during a download.

    Raises:
        ModelNotFoundError: the name stands for nothing, or cannot be reached and is not here.
        UnsupportedError: huggingface_hub is not installed.

    >>> local_path("model.gguf")
    PosixPath('model.gguf')
    """
    name = parse_name(model) if isinstance(model, str) else None
    if name is None:
        return Path(model)
    if isinstance(name, HubName):
        from torchless.hub.download import download

        return download(name, progress)
    from torchless.hub.web_file import download_file

    return download_file(name.url, progress)
