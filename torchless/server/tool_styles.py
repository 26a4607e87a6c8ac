"""What a style of tool calls is, and which one a model has. The styles themselves are in ``tool_parsers/``."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from torchless.server.parts import Reader, ToolCall

__all__ = [
    "MalformedCallError",
    "ToolStyle",
    "calls_of",
    "dumped",
    "find_style",
    "json_calls",
    "json_frame",
    "json_values",
    "styles",
]

Schemas = Mapping[str, Any]
"""Name of a tool -> JSON schema of its arguments."""


class MalformedCallError(ValueError):
    """A text that looks like a call and cannot be read as one; the message says why."""


@dataclass(frozen=True)
class ToolStyle:
    """How a model writes calls.

    Attributes:
        name: of the style.
        order: styles are tried from the lowest.
        detect: whether a chat template has this style.
        begins: texts that begin a call, or several.
        ends: texts that end it; none: the end of the answer does.
        at_start: a call stands alone: what begins with something else is text to its end.
        read: the calls in a text between such marks; raises MalformedCallError. An empty list: it was no call at all.
        frame: what stands between the marks and a tool's arguments, in front and behind; None: calls of this style
            cannot be written under a constraint.
        make_reader: makes a reader of its own, for styles that have more than marks.
        id_length: letters and digits that the templates want an id of a call to have; None: any will do.
    """

    name: str
    order: int
    detect: Callable[[str], bool]
    begins: tuple[str, ...]
    ends: tuple[str, ...]
    read: Callable[[str, Schemas], list[ToolCall]]
    frame: Callable[[str], tuple[str, str]] | None = None
    at_start: bool = False
    make_reader: Callable[[Schemas], Reader] | None = None
    id_length: int | None = None

    @property
    def marks(self) -> tuple[str, ...]:
        """All texts around calls."""
        return (*self.begins, *self.ends)


@cache
def styles() -> tuple[ToolStyle, ...]:
    """All styles, in the order in which they are tried."""
    folder = Path(__file__).parent / "tool_parsers"
    names = sorted(item.name for item in pkgutil.iter_modules([str(folder)]))
    found = [import_module(f"torchless.server.tool_parsers.{name}").STYLE for name in names]
    return tuple(sorted(found, key=lambda style: style.order))


def find_style(template: str | None) -> ToolStyle:
    """The style of a model's chat template; plain JSON where none is known, or where there is no template."""
    for style in styles():
        if style.detect(template or ""):
            return style
    raise AssertionError("the plain style takes every template")


def calls_of(value: Any, names: Collection[str]) -> list[ToolCall]:
    """Calls in a JSON value: an object with a name and arguments, or a list of such; an empty list where there is none.

    Raises:
        MalformedCallError: it is a call that cannot be read, or of a tool that is not there.
    """
    if isinstance(value, list):
        return [call for item in value for call in calls_of(item, names)]
    if not isinstance(value, dict):
        return []
    function = value.get("function")
    if isinstance(function, dict):
        return calls_of(function, names)
    name = value.get("name", function)
    if name is None:
        return []
    if not isinstance(name, str) or name not in names:
        raise MalformedCallError(f"there is no tool {name!r:.100}")
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        (arguments,) = json_values(arguments) if arguments.strip() else ({},)
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise MalformedCallError(f"the arguments of {name} are no object")
    return [ToolCall(name, dumped(arguments))]


def json_calls(text: str, schemas: Schemas) -> list[ToolCall]:
    """The calls in a text that is JSON values with names and arguments: what most styles have between their marks.

    Raises:
        MalformedCallError: it cannot be read, or is a call of a tool that is not there.
    """
    return [call for value in json_values(text) for call in calls_of(value, schemas)]


def json_frame(front: str, behind: str, arguments: str = "arguments") -> Callable[[str], tuple[str, str]]:
    """The `frame` of a style that writes a JSON object with a name and arguments, between two texts.

    Example:
        >>> json_frame("[", "]")("add")
        ('[{"name": "add", "arguments": ', '}]')
    """
    return lambda name: (f'{front}{{"name": {json.dumps(name)}, "{arguments}": ', "}" + behind)


def json_values(text: str, separators: str = ";,") -> Sequence[Any]:
    """The JSON values of which a text consists, with white space or separators between them.

    Raises:
        MalformedCallError: it is something else.
    """
    decoder = json.JSONDecoder()
    found, position = [], 0
    skipped = " \t\r\n" + separators
    while True:
        while position < len(text) and text[position] in skipped:
            position += 1
        if position == len(text):
            break
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise MalformedCallError(f"the call is not JSON: {error}") from None
        found.append(value)
    if not found:
        raise MalformedCallError("the call is empty")
    return found


def dumped(arguments: Mapping[str, Any]) -> str:
    """Arguments as JSON text."""
    return json.dumps(arguments, ensure_ascii=False)
