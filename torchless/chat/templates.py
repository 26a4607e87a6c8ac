"""Which chat templates a chat can choose: the model's own by name, those that come with torchless, files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torchless.errors import InvalidRequestError, TemplateError
from torchless.text.templates import template_names, template_source

if TYPE_CHECKING:
    from torchless.text.tokenizer import Tokenizer

__all__ = ["FoundTemplate", "find_template", "list_templates"]


class FoundTemplate(NamedTuple):
    """A chat template: what it is, for people, and its Jinja source."""

    description: str
    source: str


def find_template(name: str, tokenizer: Tokenizer) -> FoundTemplate:
    """The template of this name; the model's own come first, then torchless's, then files.

    Raises:
        TemplateError: there is none.
        InvalidRequestError: the file cannot be read.
    """
    own = tokenizer.chat_templates
    if name in own:
        return FoundTemplate(f"{name}, the model's own", own[name])
    if name in template_names():
        return FoundTemplate(f"{name}, which comes with torchless", template_source(name))
    path = Path(name).expanduser()
    if not path.exists():
        known = ", ".join([*own, *(other for other in template_names() if other not in own)])
        raise TemplateError(f"no chat template {name!r}: expected one of {known}, or a file")
    try:
        return FoundTemplate(f"the file {name}", path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidRequestError(f"{name}: {reason}; expected a file with a Jinja chat template") from None


def list_templates(
    tokenizer: Tokenizer, loaded_with: str | None, chosen: FoundTemplate | None
) -> list[tuple[str, str]]:
    """Names and what they are; the first item says which one is in use.

    Args:
        loaded_with: the source that replaced the model's when it was loaded.
        chosen: what was chosen since.
    """
    if chosen is not None:
        in_use = chosen.description
    else:
        in_use = "the one given with --chat-template" if loaded_with else "default, the model's own"
    rows = [("in use", in_use)]
    rows += [(name, "the model's own") for name in tokenizer.chat_templates]
    rows += [
        (name, "comes with torchless") for name in template_names() if name not in tokenizer.chat_templates
    ]
    return rows
