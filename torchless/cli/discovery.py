"""Which files each folder of plug-ins holds. Nothing is imported."""

from __future__ import annotations

import pkgutil
from pathlib import Path

__all__ = ["names_in"]

_PACKAGE = Path(__file__).resolve().parent.parent


def names_in(folder: str) -> list[str]:
    """Names of the modules and packages in a folder of torchless, such as ``"models"``, sorted.

    >>> "run" in names_in("cli/verbs")
    True
    """
    return sorted(item.name for item in pkgutil.iter_modules([str(_PACKAGE / folder)]) if item.name[0] != "_")


def backend_names() -> list[str]:
    """Names of the backends: the folders in ``backends/``."""
    found = pkgutil.iter_modules([str(_PACKAGE / "backends")])
    return sorted(item.name for item in found if item.ispkg)
