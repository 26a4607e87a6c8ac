"""JSON schemas, checked before the library sees them: what cannot be enforced is refused with its place.

The library ignores keywords that it does not know, reads bounds as float64, and lets a name come twice where names are
free. So every keyword is looked at here, and what is handed on has known keywords only, references of one form, and no
place where those weaknesses matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from torchless.constraints.disjoint import are_disjoint
from torchless.constraints.expressions import complaint_about
from torchless.constraints.keywords import ANNOTATIONS, ENFORCED, REFUSED
from torchless.constraints.references import References
from torchless.constraints.schema_values import (
    CHECKS,
    check_constant,
    join,
    name_complaint,
    refuse,
    shown,
    whole,
)

__all__ = ["CheckedSchema", "check_schema"]

_MAX_DEPTH = 48
_MAX_SCHEMAS = 10_000
_MAX_COUNT = 10_000  # items of one array: each takes a node of the grammar
_MAX_TOTAL_COUNT = 100_000
_APPLICATORS = ("const", "enum", "$ref", "allOf", "anyOf", "oneOf")


class CheckedSchema(NamedTuple):
    """What the library gets.

    Attributes:
        schema: the same meaning in the library's words.
        places: pointer in the given schema -> its part of `schema`, outer parts first.
        has_free_names: some object has both named properties and free ones.
    """

    schema: dict[str, Any] | bool
    places: dict[str, dict[str, Any] | bool]
    has_free_names: bool


def check_schema(schema: Any) -> CheckedSchema:
    """Checks a schema and puts it into the library's words.

    Raises:
        GrammarError: a part cannot be enforced; the message begins with its place as a JSON pointer.
    """
    return _Checker(schema).check()


class _Checker:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._references = References(root)
        self._places: dict[str, dict[str, Any] | bool] = {}
        self._total_count = 0
        self._has_free_names = False

    def check(self) -> CheckedSchema:
        schema = self._schema(self._root, "", 0)
        definitions = {}
        while pending := self._references.take_pending():
            for name, (target, pointer) in pending.items():
                definitions[name] = self._schema(target, pointer, 0)
        if definitions and isinstance(schema, dict):
            self._references.check_cycles(definitions)
            schema = {**schema, "$defs": definitions}
        return CheckedSchema(schema, self._places, self._has_free_names)

    def _schema(self, node: Any, pointer: str, depth: int) -> dict[str, Any] | bool:
        if isinstance(node, bool):
            return node
        if not isinstance(node, Mapping):
            raise refuse(pointer, f"expected a schema (an object, true or false), got {shown(node)}")
        if depth > _MAX_DEPTH:
            raise refuse(pointer, f"schemas lie in each other more than {_MAX_DEPTH} deep; use $ref")
        if len(self._places) >= _MAX_SCHEMAS:
            raise refuse(pointer, f"there are more than {_MAX_SCHEMAS} schemas in it")
        result: dict[str, Any] = {}
        self._places[pointer] = result
        for keyword, value in node.items():
            place = join(pointer, keyword)
            kind = ENFORCED.get(keyword)
            if kind is not None:
                result[keyword] = self._value(kind, value, place, depth)
            elif keyword == "$id" and pointer:
                raise refuse(
                    place, "a schema within the document may not have an address of its own; remove it"
                )
            elif keyword not in ANNOTATIONS and not str(keyword).startswith("x-"):
                raise refuse(place, _unknown(str(keyword)))
        self._settle(node, result, pointer)
        ordered = {key: result.pop(key) for key in [key for key in result if key not in _APPLICATORS]}
        applicators = dict(result)
        result.clear()
        result.update(ordered)
        result.update(applicators)
        return result

    def _value(self, kind: str, value: Any, place: str, depth: int) -> Any:
        if kind == "schema":
            return self._schema(value, place, depth + 1)
        if kind in ("list", "alternatives") or (kind == "items" and isinstance(value, list)):
            if not isinstance(value, list) or (kind == "alternatives" and not value):
                raise refuse(place, f"expected a list of schemas, got {shown(value)}")
            return [self._schema(item, join(place, index), depth + 1) for index, item in enumerate(value)]
        if kind in ("items", "additional items"):
            return self._schema(value, place, depth + 1)
        if kind in ("map", "pattern map"):
            return self._map(kind, value, place, depth)
        if kind == "reference":
            return self._references.rename(value, place)
        if kind in ("const", "enum"):
            return self._constants(kind, value, place)
        return CHECKS[kind](value, place) if kind != "count" else self._count(value, place)

    def _map(self, kind: str, value: Any, place: str, depth: int) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise refuse(place, f"expected an object of schemas, got {shown(value)}")
        for name in value:
            complaint = complaint_about(name) if kind == "pattern map" else name_complaint(name)
            if complaint is not None:
                raise refuse(join(place, name), f"the name {complaint}")
        return {name: self._schema(item, join(place, name), depth + 1) for name, item in value.items()}

    def _count(self, value: Any, place: str) -> int:
        number = whole(value, _MAX_COUNT, place)
        self._total_count += number
        if self._total_count > _MAX_TOTAL_COUNT:
            raise refuse(place, f"the counts of all arrays add up to more than {_MAX_TOTAL_COUNT}")
        return number

    def _constants(self, kind: str, value: Any, place: str) -> Any:
        if kind == "enum" and (not isinstance(value, list) or not value):
            raise refuse(place, f"expected a list of values, got {shown(value)}")
        check_constant(value, place, 0)
        return value

    def _settle(self, node: Mapping[str, Any], result: dict[str, Any], pointer: str) -> None:
        """Rewrites what older drafts write otherwise, and what the library cannot prove by itself."""
        _modernise(result, pointer)
        if "oneOf" in result and are_disjoint(result["oneOf"], node["oneOf"], self._references.resolve):
            if "anyOf" in result:
                result.setdefault("allOf", []).append({"anyOf": result.pop("oneOf")})
            else:
                result["anyOf"] = result.pop("oneOf")
        names = {
            *result.get("properties", ()),
            *result.get("required", ()),
            *result.get("patternProperties", ()),
        }
        is_open = result.get("additionalProperties", True) is not False
        self._has_free_names |= bool(names) and is_open
        missing = result.get("minProperties", 0) - len(set(result.get("required", ())))
        if missing > 1 and (is_open or "patternProperties" in result):
            raise refuse(
                join(pointer, "minProperties"),
                "a model could write one name several times; list the names that must come under required",
            )


def _modernise(result: dict[str, Any], pointer: str) -> None:
    """Draft 2020-12's words for those of earlier drafts."""
    if result.pop("uniqueItems", False):
        raise refuse(
            join(pointer, "uniqueItems"), "not supported: items that were written cannot be looked up"
        )
    more = result.pop("additionalItems", None)
    if isinstance(result.get("items"), list):
        if "prefixItems" in result:
            raise refuse(join(pointer, "items"), "expected a schema beside prefixItems, got a list")
        result["prefixItems"] = result.pop("items")
        if more is not None:
            result["items"] = more
    for exclusive, inclusive in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        value = result.get(exclusive)
        if isinstance(value, bool):
            del result[exclusive]
            if value:
                if inclusive not in result:
                    raise refuse(join(pointer, exclusive), f"true needs {inclusive} beside it")
                result[exclusive] = result.pop(inclusive)


def _unknown(keyword: str) -> str:
    if keyword in REFUSED:
        return REFUSED[keyword]
    near = get_close_matches(keyword, [*ENFORCED, *ANNOTATIONS], n=1, cutoff=0.7)
    hint = f"; did you mean {near[0]}?" if near else "; notes of your own may begin with x-"
    return f"not a keyword of JSON Schema that is known here{hint}"
