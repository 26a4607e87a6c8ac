"""`$ref` in a JSON schema: found in the same document, and given names that the library understands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from torchless.errors import GrammarError

__all__ = ["References"]

_IN_PLACE = ("allOf", "anyOf", "oneOf")


class References:
    """The places of one document that references lead to."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._names: dict[str, str] = {}  # pointer -> name under $defs
        self._pending: dict[str, tuple[Any, str]] = {}

    def rename(self, reference: Any, place: str) -> str:
        """The reference in the form ``#/$defs/NAME``; its target is noted for `take_pending`."""
        target, pointer = self._find(reference, place)
        name = self._names.get(pointer)
        if name is None:
            name = self._names[pointer] = f"r{len(self._names)}"
            self._pending[name] = (target, pointer)
        return f"#/$defs/{name}"

    def take_pending(self) -> dict[str, tuple[Any, str]]:
        """Targets that were not taken yet: name -> (schema, its pointer)."""
        pending, self._pending = self._pending, {}
        return pending

    def resolve(self, node: Any) -> Any:
        """The schema that a schema of nothing but a reference stands for."""
        for _ in range(16):
            if not isinstance(node, Mapping) or "$ref" not in node:
                return node
            node = self._find(node["$ref"], "")[0]
        return node

    def check_cycles(self, definitions: Mapping[str, Any]) -> None:
        """Refuses definitions that are defined by themselves with nothing in between."""
        pointers = {name: pointer for pointer, name in self._names.items()}
        done: set[str] = set()
        for start in definitions:
            path: list[str] = []
            self._follow(start, definitions, path, done, pointers)

    def _follow(
        self,
        name: str,
        definitions: Mapping[str, Any],
        path: list[str],
        done: set[str],
        pointers: Mapping[str, str],
    ) -> None:
        if name in path:
            raise GrammarError(
                f"schema at {pointers[name] or '/'}: it refers to itself, with nothing in between"
            )
        if name in done:
            return
        if len(path) > 100:
            raise GrammarError(f"schema at {pointers[name] or '/'}: a chain of more than 100 references")
        path.append(name)
        for target in _targets(definitions[name]):
            self._follow(target, definitions, path, done, pointers)
        path.pop()
        done.add(name)

    def _find(self, reference: Any, place: str) -> tuple[Any, str]:
        """The target of a reference and its pointer."""
        if not isinstance(reference, str):
            raise GrammarError(f"schema at {place or '/'}: expected a reference such as #/$defs/name")
        base, _, fragment = reference.partition("#")
        own = self._root.get("$id", "") if isinstance(self._root, Mapping) else ""
        if base and base != own:
            raise GrammarError(
                f"schema at {place or '/'}: {reference!r} leads to another document, and none is fetched; copy it "
                f"under $defs"
            )
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            return self._find_anchor(fragment, place)
        node, pointer = self._root, ""
        for part in fragment.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, Mapping) and key in node:
                node = node[key]
            elif isinstance(node, list) and key.isdecimal() and int(key) < len(node):
                node = node[int(key)]
            else:
                raise GrammarError(f"schema at {place or '/'}: {reference!r} leads nowhere")
            pointer += f"/{part}"
        return node, pointer

    def _find_anchor(self, anchor: str, place: str) -> tuple[Any, str]:
        for keyword in ("$defs", "definitions"):
            members = self._root.get(keyword) if isinstance(self._root, Mapping) else None
            for name, node in members.items() if isinstance(members, Mapping) else ():
                if isinstance(node, Mapping) and node.get("$anchor") == anchor:
                    return node, f"/{keyword}/{str(name).replace('~', '~0').replace('/', '~1')}"
        raise GrammarError(f"schema at {place or '/'}: there is no anchor {anchor!r} under $defs")


def _targets(node: Any) -> list[str]:
    """Names that a schema refers to in its own place, not within a property or an item."""
    if not isinstance(node, Mapping):
        return []
    found = [node["$ref"].rpartition("/")[2]] if "$ref" in node else []
    for keyword in _IN_PLACE:
        for part in node.get(keyword, ()):
            found += _targets(part)
    return found
