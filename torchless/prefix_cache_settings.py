"""The arguments of `load` that concern the prefix cache, checked; and the store that they ask for."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchless.arguments import flag
from torchless.errors import InvalidRequestError

if TYPE_CHECKING:
    from torchless.adapters.open import ScaledPath
    from torchless.engine.page_folder import PageFolder
    from torchless.engine.page_store import PageStore
    from torchless.loaded_model import LoadedModel
    from torchless.plan import Plan

__all__ = [
    "DEFAULT_SIZE",
    "PrefixCacheSettings",
    "can_share_pages",
    "default_folder",
    "open_folder",
    "open_page_store",
    "prefix_cache_settings",
]

_log = logging.getLogger("torchless")

DEFAULT_SIZE = "4GiB"


@dataclass(frozen=True, slots=True)
class PrefixCacheSettings:
    """What was wanted.

    Attributes:
        is_on: sequences share pages.
        folder: where pages are kept on disk, too; None for nowhere.
        max_bytes: most that they may take there.
    """

    is_on: bool = True
    folder: Path | None = None
    max_bytes: int = 0


def prefix_cache_settings(values: Mapping[str, Any]) -> PrefixCacheSettings:
    """Checks `prefix_cache`, `prefix_cache_dir` and `prefix_cache_size`.

    Raises:
        InvalidRequestError: a value of another kind, or a folder for a cache that is off.
    """
    from torchless.quantization.quantize import parse_size

    is_on = flag("prefix_cache", values.get("prefix_cache", True))
    folder = _folder(values.get("prefix_cache_dir"))
    size = values.get("prefix_cache_size", DEFAULT_SIZE)
    if isinstance(size, bool) or not isinstance(size, int | str) or (isinstance(size, int) and size < 1):
        raise InvalidRequestError(
            f'prefix_cache_size must be a size such as "4GiB" or a number of bytes, got {size!r}'
        )
    if folder is not None and not is_on:
        raise InvalidRequestError(
            "prefix_cache_dir names a folder, but the prefix cache is off: leave one out"
        )
    return PrefixCacheSettings(is_on, folder, parse_size(size))


def can_share_pages(plan: Plan) -> bool:
    """Whether texts that begin alike can share what was computed: not those that are computed as a whole."""
    return plan.output_kind == "logits" and not plan.needs_whole_sequences


def open_folder(wanted: PrefixCacheSettings) -> PageFolder | None:
    """The folder of the prefix cache on disk, if one is wanted; before any weight is loaded.

    Raises:
        InvalidRequestError: it is not the user's own.
    """
    from torchless.engine.page_folder import PageFolder

    return None if wanted.folder is None else PageFolder(wanted.folder, wanted.max_bytes)


def open_page_store(
    folder: PageFolder, loaded: LoadedModel, quant: str | None, adapters: SequenceOf[ScaledPath]
) -> PageStore | None:
    """The pages of a model in a folder, if they are of any use.

    Args:
        quant: the recipe by which its weights were quantised at load.
        adapters: those that were applied.
    """
    from torchless.engine.page_store import PageStore
    from torchless.page_fingerprint import page_fingerprint

    if not can_share_pages(loaded.plan) or loaded.plan.state_ops:
        _log.warning(
            "%s keeps a state, or reads texts as a whole: there is no prefix to keep on disk",
            loaded.source.path,
        )
        return None
    fingerprint = page_fingerprint(
        loaded.source,
        loaded.plan,
        loaded.executor.options,
        backend=loaded.backend,
        quant=quant,
        adapters=adapters,
    )
    return PageStore(folder, fingerprint)


def default_folder() -> Path:
    """``prefix`` below ``$TORCHLESS_CACHE``, or below ``torchless`` in the user's cache folder."""
    from torchless.text.tokenizer_cache import cache_folder

    return cache_folder() / "prefix"


def _folder(value: Any) -> Path | None:
    if value is None or value is False or value == "off":
        return None
    if value is True or value == "on":
        return default_folder()
    if isinstance(value, str | os.PathLike) and str(value):
        return Path(value).expanduser() / "torchless-prefix"
    raise InvalidRequestError(f'prefix_cache_dir must be a folder, or "on" for the usual one, got {value!r}')
