"""The tools of a request, in OpenAI's form: which there are, and which the model may, must or must not call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torchless.constraints.grammars import grammar_from_schema
from torchless.errors import GrammarError
from torchless.server.errors import ApiError

__all__ = ["Toolbox"]

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_MAX_TOOLS = 512
_ANY_OBJECT: dict[str, Any] = {"type": "object"}


@dataclass(frozen=True)
class Toolbox:
    """The tools of a request.

    Attributes:
        tools: as the request and chat templates have them.
        schemas: name -> JSON schema of the arguments.
        choice: "auto": the model decides; "required": it calls one; "none": it calls none.
        names: the tools that may be called.
        strict: those whose arguments must follow their schemas.
        parallel: several may be called at once.
    """

    tools: tuple[dict[str, Any], ...] = ()
    schemas: Mapping[str, Any] = field(default_factory=dict)
    choice: Literal["auto", "required", "none"] = "none"
    names: tuple[str, ...] = ()
    strict: frozenset[str] = frozenset()
    parallel: bool = True

    @classmethod
    def read(cls, tools: Any, choice: Any, parallel: bool | None = None) -> Toolbox:
        """Checks the fields ``tools``, ``tool_choice`` and ``parallel_tool_calls``.

        Raises:
            ApiError: a tool is malformed, of an unknown kind, or not there; names the place.
        """
        if not tools:
            if choice not in (None, "none", "auto"):
                raise _wrong("tool_choice", "there are no tools to choose from")
            return cls()
        if not isinstance(tools, list) or len(tools) > _MAX_TOOLS:
            raise _wrong("tools", f"expected a list of at most {_MAX_TOOLS} tools")
        schemas: dict[str, Any] = {}
        strict = set()
        for index, tool in enumerate(tools):
            name, schema, is_strict = _tool(tool, f"tools[{index}]")
            if name in schemas:
                raise _wrong(f"tools[{index}].function.name", f"there are two tools {name!r}")
            schemas[name] = schema
            if is_strict:
                strict.add(name)
        kind, names = _choice(choice, tuple(schemas))
        is_parallel = parallel is None or parallel
        return cls(tuple(tools), schemas, kind, names, frozenset(strict), is_parallel)

    @property
    def is_active(self) -> bool:
        """Whether calls may come."""
        return self.choice != "none"

    def enforced_schema(self, name: str) -> Any:
        """The schema that a constraint has for a tool's arguments: its own, or any object where that may not be kept.

        Raises:
            ApiError: the tool is strict and its schema cannot be enforced.
        """
        schema = self.schemas[name] or _ANY_OBJECT
        try:
            grammar_from_schema(schema).check()
            return schema
        except GrammarError as error:
            if name not in self.strict:
                return _ANY_OBJECT
            index = list(self.schemas).index(name)
            place = f"tools[{index}].function.parameters"
            raise ApiError(400, f"{place}: {error}", code="unsupported_schema", param=place) from None


def _tool(tool: Any, place: str) -> tuple[str, Any, bool]:
    """A tool's name, schema, and whether it is strict."""
    if not isinstance(tool, dict):
        raise _wrong(place, f"expected an object, got {type(tool).__name__}")
    if tool.get("type", "function") != "function":
        raise _wrong(f"{place}.type", f"{tool['type']!r:.60} is not supported; functions are")
    function = tool.get("function")
    if not isinstance(function, dict):
        raise _wrong(f"{place}.function", "expected an object with a name")
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _wrong(
            f"{place}.function.name", "expected 1 to 128 letters, digits, dots, dashes or underscores"
        )
    schema = function.get("parameters")
    if schema is not None and not isinstance(schema, dict):
        raise _wrong(f"{place}.function.parameters", "expected a JSON schema")
    strict = function.get("strict")
    if strict is not None and not isinstance(strict, bool):
        raise _wrong(f"{place}.function.strict", "expected true or false")
    if not isinstance(function.get("description") or "", str):
        raise _wrong(f"{place}.function.description", "expected a text")
    return name, schema or {}, bool(strict)


def _choice(
    choice: Any, names: tuple[str, ...]
) -> tuple[Literal["auto", "required", "none"], tuple[str, ...]]:
    if choice is None or choice == "auto":
        return "auto", names
    if choice == "none":
        return "none", ()
    if choice in ("required", "any"):
        return "required", names
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools", choice)
        items = allowed.get("tools") if isinstance(allowed, dict) else None
        wanted = tuple(_chosen(item, names) for item in items) if isinstance(items, list) else ()
        if wanted:
            return ("required" if allowed.get("mode") == "required" else "auto"), wanted
    elif isinstance(choice, dict):
        return "required", (_chosen(choice, names),)
    raise _wrong("tool_choice", f"expected 'auto', 'none', 'required' or a function, got {choice!r:.80}")


def _chosen(choice: Any, names: tuple[str, ...]) -> str:
    function = choice.get("function", choice) if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if name not in names:
        raise _wrong("tool_choice", f"there is no tool {name!r:.100}; there is {', '.join(names)}")
    return str(name)


def _wrong(place: str, sentence: str) -> ApiError:
    return ApiError(400, f"{place}: {sentence}", code="invalid_value", param=place)
