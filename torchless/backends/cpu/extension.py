"""Imports the C++ extension, with a clear sentence where it is missing or does not fit."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from torchless.backends.base import PAGE_TOKENS
from torchless.errors import UnsupportedError

__all__ = ["load_extension"]


def load_extension() -> ModuleType:
    """The module `torchless._core`.

    Raises:
        UnsupportedError: it is not built, was built from other sources, or TORCHLESS_ISA names a level that this
            machine lacks.
    """
    try:
        from torchless import _core
    except ImportError as error:
        package = Path(__file__).parents[2]
        raise UnsupportedError(
            f"the C++ extension of torchless is not in {package} ({error}). If this is a source folder, leave it, or "
            f"install it in place with 'pip install -e .'; backend='reference' works without the extension"
        ) from None
    if _core.PAGE_TOKENS != PAGE_TOKENS:
        raise UnsupportedError(
            f"the C++ extension {_core.__file__} was built from other sources (pages of {_core.PAGE_TOKENS} tokens, "
            f"not {PAGE_TOKENS}); build it again"
        )
    try:
        _core.isa()
    except RuntimeError as error:
        raise UnsupportedError(str(error)) from None
    return _core
