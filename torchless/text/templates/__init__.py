"""Chat templates of well-known styles, by name: one file each, for models that come without one."""

from __future__ import annotations

from pathlib import Path

from torchless.errors import TemplateError

__all__ = ["template_names", "template_source"]

_FOLDER = Path(__file__).parent
_SUFFIX = ".jinja"


def template_names() -> list[str]:
    """The names, sorted.

    >>> "chatml" in template_names()
    True
    """
    return sorted(path.stem for path in _FOLDER.glob(f"*{_SUFFIX}"))


def template_source(name: str) -> str:
    """The Jinja source of a style.

    Raises:
        TemplateError: there is none of this name.

    >>> template_source("plain").count("Assistant:")
    2
    """
    if name not in template_names():
        raise TemplateError(f"no chat template is called {name!r}; there are {', '.join(template_names())}")
    return (_FOLDER / f"{name}{_SUFFIX}").read_text(encoding="utf-8")
