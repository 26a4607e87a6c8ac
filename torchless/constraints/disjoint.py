"""Whether no value fits two alternatives of `oneOf`: then it is `anyOf`, which can be enforced."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

from torchless.constraints.keywords import TYPES

__all__ = ["are_disjoint"]

_MAX_ALTERNATIVES = 200
_KINDS = {
    bool: frozenset({"boolean"}),
    int: frozenset({"number"}),
    float: frozenset({"number"}),
    str: frozenset({"string"}),
    list: frozenset({"array"}),
    dict: frozenset({"object"}),
    type(None): frozenset({"null"}),
}

Resolve = Callable[[Any], Any]


def are_disjoint(checked: list[Any], given: list[Any], resolve: Resolve) -> bool:
    """Whether each two alternatives differ in type, in their constants, or in a property that one of them requires.

    Args:
        checked: the alternatives as they were checked; a `false` among them fits nothing.
        given: the same as the user wrote them.
        resolve: follows references.
    """
    if len(given) > _MAX_ALTERNATIVES:
        return False
    alternatives = [resolve(part) for part, result in zip(given, checked, strict=True) if result is not False]
    return all(_differ(first, second, resolve) for first, second in combinations(alternatives, 2))


def _differ(first: Any, second: Any, resolve: Resolve) -> bool:
    if not isinstance(first, Mapping) or not isinstance(second, Mapping):
        return False
    kinds = _kinds(first) & _kinds(second)
    if not kinds:
        return True
    constants = _constants(first), _constants(second)
    if constants[0] is not None and constants[1] is not None and not constants[0] & constants[1]:
        return True
    return kinds == {"object"} and _differ_in_a_property(first, second, resolve)


def _differ_in_a_property(first: Mapping[str, Any], second: Mapping[str, Any], resolve: Resolve) -> bool:
    required = {*_names(first), *_names(second)}
    properties = _properties(first), _properties(second)
    for name in required & properties[0].keys() & properties[1].keys():
        parts = resolve(properties[0][name]), resolve(properties[1][name])
        if all(isinstance(part, Mapping) for part in parts):
            if not _kinds(parts[0]) & _kinds(parts[1]):
                return True
            constants = _constants(parts[0]), _constants(parts[1])
            if constants[0] is not None and constants[1] is not None and not constants[0] & constants[1]:
                return True
    return False


def _kinds(node: Mapping[str, Any]) -> frozenset[str]:
    """Types that a value may have; "number" stands for whole numbers too."""
    types = node.get("type")
    names = [types] if isinstance(types, str) else types if isinstance(types, list) else sorted(TYPES)
    kinds = frozenset("number" if name == "integer" else str(name) for name in names)
    for values in (node.get("enum"), [node["const"]] if "const" in node else None):
        if isinstance(values, list):
            kinds &= frozenset().union(*(_KINDS.get(type(value), kinds) for value in values))
    return kinds


def _constants(node: Mapping[str, Any]) -> frozenset[str] | None:
    """The only values that are allowed, as text; None where others are, or where numbers may be written differently."""
    values = [node["const"]] if "const" in node else node.get("enum")
    if not isinstance(values, list) or any(isinstance(value, float | dict | list) for value in values):
        return None
    return frozenset(json.dumps(value) for value in values)


def _names(node: Mapping[str, Any]) -> list[str]:
    required = node.get("required")
    return [name for name in required if isinstance(name, str)] if isinstance(required, list) else []


def _properties(node: Mapping[str, Any]) -> Mapping[str, Any]:
    properties = node.get("properties")
    return properties if isinstance(properties, Mapping) else {}
