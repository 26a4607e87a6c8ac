"""What a text must match, from the forms that users give it in to the library's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torchless.constraints.expressions import complaint_about, has_surrogate
from torchless.constraints.gbnf import gbnf_to_lark
from torchless.constraints.schema import check_schema
from torchless.constraints.schema_values import refuse
from torchless.constraints.tokens import import_llguidance
from torchless.errors import GrammarError

__all__ = [
    "Grammar",
    "grammar_from_choices",
    "grammar_from_regex",
    "grammar_from_schema",
    "grammar_from_text",
]

_MAX_CHOICES = 10_000
_MAX_TEXT = 1 << 20
_MAX_TRIED_PARTS = 500
# A space or a new line with its indent between the parts of JSON: a model cannot fill an answer with white space.
_WHITE_SPACE = r"\x20|\n[\x20\t]{0,40}"
_ESCAPES_WITHOUT_U = 'nrbtf\\"'
_ONE_OF = (
    "supported only where each two alternatives differ in type, in their constants, or in the constant of a property "
    "that one of them requires; write anyOf if a value may fit several"
)
_GBNF_RULE = re.compile(r"^\s*[\w-]+\s*::=", re.MULTILINE)
_LARK_JSON = re.compile(r"%json\s*(?=\{)")
_LARK_TEMPERATURE = re.compile(r"\[[^\]\n]*\btemperature\s*=")


@dataclass(frozen=True)
class Grammar:
    """What a text must match.

    Attributes:
        text: in the library's form.
        name: what the user gave, for messages: "schema", "regex", "choices" or "grammar".
        is_json: the whole text is one JSON value.
        places: for a schema: pointer -> part, as the library gets it.
    """

    text: str
    name: str
    is_json: bool = False
    places: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def check(self) -> None:
        """Asks the library without a vocabulary; such grammars as name control tokens need `Constraints.matcher`.

        Raises:
            GrammarError: it cannot be enforced.
        """
        complaint = import_llguidance().LLMatcher.validate_grammar(self.text)
        if complaint:
            raise self.refusal(complaint)

    def refusal(self, complaint: str) -> GrammarError:
        """The error for a grammar that the library refuses, with the place in a schema that it stumbles over."""
        lines = [line.strip() for line in complaint.strip().splitlines() if line.strip()]
        sentence = " ".join(lines)[:300] or "refused"
        if not self.places:
            return GrammarError(f"{self.name}: {sentence}")
        pointer, found = _innermost(self.places, sentence)
        if "oneOf constraints" in found:
            pointer, found = f"{pointer}/oneOf", _ONE_OF
        return refuse(pointer, found)


def grammar_from_schema(schema: Any) -> Grammar:
    """JSON that is valid under a schema.

    Args:
        schema: a dictionary, its JSON text, True (any JSON), or a class: a pydantic model, or a TypedDict or dataclass
            where pydantic is installed.

    Raises:
        GrammarError: a part cannot be enforced; the message has its place.
    """
    checked = check_schema(_schema_of(schema))
    if checked.schema is False:
        raise refuse("", "false allows nothing")
    body = {} if checked.schema is True else checked.schema
    _refuse_narrow_bounds(body, "")
    options = _json_options(has_free_names=checked.has_free_names)
    return Grammar(_library_schema(body, options), "schema", is_json=True, places=checked.places)


def _refuse_narrow_bounds(node: Any, pointer: str) -> None:
    """Between an excluded whole number and a bound within one of it, the library lets the whole number through."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            _refuse_narrow_bounds(item, f"{pointer}/{index}")
    if not isinstance(node, dict):
        return
    for excluded, others in (
        ("exclusiveMinimum", ("maximum", "exclusiveMaximum")),
        ("exclusiveMaximum", ("minimum", "exclusiveMinimum")),
    ):
        bound = node.get(excluded)
        if isinstance(bound, bool) or not isinstance(bound, int | float) or bound != int(bound):
            continue
        for other in others:
            value = node.get(other)
            if isinstance(value, int | float) and abs(value - bound) < 1:
                raise refuse(
                    f"{pointer}/{excluded}", f"not supported: less than 1 away from {other} ({value})"
                )
    for key, item in node.items():
        _refuse_narrow_bounds(item, f"{pointer}/{key}")


def grammar_from_regex(expression: Any) -> Grammar:
    """Text that matches a regular expression as a whole.

    Raises:
        GrammarError: not an expression, or one with look-around, back references or assertions.
    """
    if not isinstance(expression, str) or not expression:
        raise GrammarError(f"regex must be a regular expression that is not empty, got {_shown(expression)}")
    complaint = complaint_about(expression, flags=True)
    if complaint is not None:
        raise GrammarError(f"regex: the expression {complaint}")
    return Grammar(import_llguidance().LLMatcher.grammar_from_regex(expression), "regex")


def grammar_from_choices(choices: Any) -> Grammar:
    """One of several texts. Raises GrammarError for a list that is empty or has something else in it."""
    texts = list(choices) if isinstance(choices, Iterable) and not isinstance(choices, str | Mapping) else []
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise GrammarError(f"choices must be a list of texts that are not empty, got {_shown(choices)}")
    if len(texts) > _MAX_CHOICES or sum(map(len, texts)) > _MAX_TEXT:
        raise GrammarError(
            f"choices: at most {_MAX_CHOICES} texts of together {_MAX_TEXT} characters are allowed"
        )
    for text in texts:
        if has_surrogate(text):
            raise GrammarError(f"choices: {_shown(text)} has a lone surrogate, which is no character")
    expression = "|".join("".join(f"\\x{{{ord(character):x}}}" for character in text) for text in texts)
    return Grammar(import_llguidance().LLMatcher.grammar_from_regex(expression), "choices")


def grammar_from_text(source: Any) -> Grammar:
    """A grammar in GBNF (rules ``name ::= ...`` from ``root`` on) or Lark (``name: ...`` from ``start`` on).

    Raises:
        GrammarError: neither, or one that cannot be enforced.
    """
    if not isinstance(source, str) or not source.strip():
        raise GrammarError(f"grammar must be a text in GBNF or Lark, got {_shown(source)}")
    if has_surrogate(source):
        raise GrammarError("grammar: the text has a lone surrogate, which is no character")
    if _GBNF_RULE.search(source):
        lark = gbnf_to_lark(source)
    elif len(source) > _MAX_TEXT:
        raise GrammarError(f"the grammar has {len(source)} characters, at most {_MAX_TEXT} are allowed")
    elif source.lstrip().startswith("{"):
        raise GrammarError("grammar must be a text in GBNF or Lark, got JSON; a JSON schema goes by schema=")
    else:
        lark = _checked_lark(source)
    return Grammar(import_llguidance().LLMatcher.grammar_from_lark(lark), "grammar")


def _checked_lark(source: str) -> str:
    """Lark whose schemas within are checked as any schema is."""
    if _LARK_TEMPERATURE.search(source):
        raise GrammarError("grammar: a temperature within a grammar is not supported; set it for the request")
    parts, end = [], 0
    for found in _LARK_JSON.finditer(source):
        if found.start() < end:
            continue  # within the schema before
        try:
            schema, stop = json.JSONDecoder().raw_decode(source, found.end())
        except (ValueError, RecursionError):
            line = source.count("\n", 0, found.start()) + 1
            raise GrammarError(f"grammar, line {line}: expected JSON behind %json") from None
        checked = check_schema(schema)
        body = {**checked.schema} if isinstance(checked.schema, dict) else {}
        body["x-guidance"] = _json_options(has_free_names=checked.has_free_names)
        parts += [source[end : found.start()], "%json ", json.dumps(body)]
        end = stop
    return "".join([*parts, source[end:]])


def _json_options(*, has_free_names: bool) -> dict[str, Any]:
    """How the library writes JSON.

    Where an object has free names beside its own, escapes ``\\uXXXX`` are left out: with them a name of its own could
    be written as a free one, with any value.
    """
    options: dict[str, Any] = {"whitespace_pattern": _WHITE_SPACE}
    if has_free_names:
        return {**options, "json_allowed_escapes": _ESCAPES_WITHOUT_U}
    return {**options, "json_allow_general_unicode_escapes": True}


def _library_schema(schema: dict[str, Any], options: dict[str, Any]) -> str:
    text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
    if len(text) > _MAX_TEXT:
        raise GrammarError(f"the schema has {len(text)} characters, at most {_MAX_TEXT} are allowed")
    grammar: str = import_llguidance().LLMatcher.grammar_from_json_schema(text, overrides=options)
    return grammar


def _innermost(places: Mapping[str, Any], complaint: str) -> tuple[str, str]:
    """The innermost part that the library refuses by itself, and what it says of it."""
    root = places.get("", {})
    definitions = root.get("$defs", {}) if isinstance(root, dict) else {}
    for pointer, part in list(places.items())[::-1][:_MAX_TRIED_PARTS]:
        if isinstance(part, dict) and pointer:
            grammar = _library_schema({**part, "$defs": definitions}, _json_options(has_free_names=False))
            found = import_llguidance().LLMatcher.validate_grammar(grammar)
            if found and ("Unsatisfiable" not in found or "Unsatisfiable" in complaint):
                return pointer, " ".join(found.split())[:300]
    return "", complaint


def _schema_of(schema: Any) -> Any:
    """The schema that a user means."""
    if isinstance(schema, str):
        if len(schema) > _MAX_TEXT:
            raise GrammarError(f"the schema has {len(schema)} characters, at most {_MAX_TEXT} are allowed")
        try:
            return json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise GrammarError(f"the schema is not JSON: {error}") from None
    if hasattr(schema, "model_json_schema"):
        return schema.model_json_schema()
    if not isinstance(schema, type):
        return schema
    try:
        from pydantic import TypeAdapter
    except ImportError:
        raise GrammarError(
            f"to read a schema from the class {schema.__name__} install pydantic, or give the schema as a dictionary"
        ) from None
    try:
        return TypeAdapter(schema).json_schema()
    except Exception as error:  # the library has several, for classes that are no data
        raise GrammarError(f"pydantic finds no schema in the class {schema.__name__}: {error}") from None


def _shown(value: Any) -> str:
    text = f"{type(value).__name__} {value!r}"
    return text if len(text) <= 80 else text[:77] + "..."
