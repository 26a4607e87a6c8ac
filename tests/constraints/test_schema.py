"""Schemas: every keyword is enforced, says nothing about values, or is refused with its place."""

import json
import time

import pytest

from torchless.constraints.keywords import ANNOTATIONS, ENFORCED, FORMATS, REFUSED
from torchless.constraints.schema import check_schema
from torchless.errors import GrammarError

llguidance = pytest.importorskip("llguidance")

from torchless.constraints.grammars import grammar_from_schema  # noqa: E402

TOKENS = llguidance.LLTokenizer("byte")


def accepts(schema, text):
    """Whether the whole text follows the grammar, byte by byte."""
    grammar = grammar_from_schema(schema)
    matcher = llguidance.LLMatcher(TOKENS, grammar.text, log_level=0)
    if matcher.is_error():
        raise grammar.refusal(matcher.get_error())
    data = list(text.encode())
    return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()


def refusal(schema):
    with pytest.raises(GrammarError) as caught:
        accepts(schema, "")
    return str(caught.value)


# The vocabularies of draft 2020-12 and the keywords that it replaced, from the specification.
STANDARD = [
    "$schema",
    "$id",
    "$ref",
    "$anchor",
    "$dynamicRef",
    "$dynamicAnchor",
    "$vocabulary",
    "$comment",
    "$defs",
    "prefixItems",
    "items",
    "contains",
    "additionalProperties",
    "properties",
    "patternProperties",
    "dependentSchemas",
    "propertyNames",
    "if",
    "then",
    "else",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "unevaluatedItems",
    "unevaluatedProperties",
    "type",
    "const",
    "enum",
    "multipleOf",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "maxContains",
    "minContains",
    "maxProperties",
    "minProperties",
    "required",
    "dependentRequired",
    "format",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "title",
    "description",
    "default",
    "deprecated",
    "readOnly",
    "writeOnly",
    "examples",
    "definitions",
    "dependencies",
    "$recursiveRef",
    "$recursiveAnchor",
    "additionalItems",
]


def test_every_keyword_of_the_standard_is_of_one_kind():
    kinds = [set(ENFORCED), set(ANNOTATIONS), set(REFUSED)]
    assert set(STANDARD) <= set.union(*kinds)
    assert sum(map(len, kinds)) == len(set.union(*kinds))


@pytest.mark.parametrize("keyword", sorted(REFUSED))
def test_a_keyword_that_cannot_be_enforced_is_refused_with_its_place(keyword):
    schema = {"type": "object", "properties": {"a/b": {"items": {keyword: {}}}}}
    assert refusal(schema).startswith(f"schema at /properties/a~1b/items/{keyword}: ")


@pytest.mark.parametrize("keyword", [*sorted(ANNOTATIONS - {"$id"}), "x-mine"])
def test_an_annotation_allows_every_value(keyword):
    for value in ("5", '"text"', "[]", "{}", "null"):
        assert accepts({keyword: {}}, value)


VALUES = [
    "null", "true", "false", "0", "3", "-7", "12.5", "1e2", '"a"', '"abc"', '"é😀"', "[]", "[1]", '[1,"a"]',
    "[1,2,3,4]", "{}", '{"a":1}', '{"a":"x"}', '{"b":1}', '{"a":1,"b":2}', '{"x1":1}', '"2024-05-06"',
]  # fmt: skip
SCHEMAS = [
    {"type": "integer"},
    {"type": ["string", "null"]},
    {"const": {"a": 1}},
    {"const": "é😀"},
    {"enum": [1, "a", None, [1, "a"], 12.5]},
    {"minimum": 1},
    {"exclusiveMinimum": 3},
    {"minimum": 0, "exclusiveMinimum": True},
    {"type": "number", "maximum": 3, "multipleOf": 3},
    {"exclusiveMaximum": 12.5},
    {"minLength": 2},
    {"maxLength": 2},
    {"pattern": "^a.?"},
    {"pattern": "b"},
    {"format": "date"},
    {"items": {"type": "integer"}},
    {"items": [{"type": "integer"}, {"type": "string"}]},
    {"items": [{"type": "integer"}], "additionalItems": False},
    {"prefixItems": [{"const": 1}], "items": {"type": "string"}},
    {"minItems": 1, "maxItems": 2},
    {"properties": {"a": {"type": "integer"}}},
    {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
    {"required": ["b"]},
    {"properties": {"a": {}}, "additionalProperties": False},
    {"additionalProperties": {"type": "string"}},
    {"patternProperties": {"^x": {"type": "string"}}},
    {"patternProperties": {"^[ab]$": {"type": "integer"}}, "additionalProperties": False},
    {"minProperties": 1},
    {"maxProperties": 1},
    {"allOf": [{"type": "integer"}, {"minimum": 1}]},
    {"anyOf": [{"type": "string"}, {"minimum": 10}]},
    {"oneOf": [{"type": "string"}, {"type": "array"}]},
    {"oneOf": [{"properties": {"a": {"const": 1}}, "required": ["a"], "type": "object"},
               {"properties": {"a": {"const": "x"}}, "type": "object"}]},
    {"$ref": "#/$defs/n%C3%A4me~1x", "$defs": {"näme/x": {"type": "integer"}}},
    {"$ref": "#here", "$defs": {"n": {"$anchor": "here", "type": "string"}}},
    {"type": "array", "items": {"$ref": "#"}},
    True,
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:60])
def test_no_value_follows_the_grammar_that_is_not_valid(schema):
    """Numbers may be written in fewer ways (no exponent beside a bound), so that is all that can be said of them."""
    jsonschema = pytest.importorskip("jsonschema")
    is_old = "exclusiveMinimum': True" in str(schema) or "'items': [" in str(schema)
    draft = jsonschema.Draft4Validator if is_old else jsonschema.Draft202012Validator
    validator = draft(schema, format_checker=jsonschema.FormatChecker())
    missed = []
    for text in VALUES:
        is_valid = validator.is_valid(json.loads(text))
        if accepts(schema, text) and not is_valid:
            raise AssertionError(f"{text} is not valid and follows the grammar")
        if is_valid and not accepts(schema, text):
            missed.append(text)
    assert set(missed) <= {"1e2", '{"a":1,"b":2}'}  # named properties come first


def test_white_space_between_the_parts_is_bounded():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    assert accepts(schema, '{"a":1}') and accepts(schema, '{\n    "a": 1\n}')
    assert (
        not accepts(schema, '{\n\n"a": 1}')
        and not accepts(schema, '{  "a": 1}')
        and not accepts(schema, ' {"a":1}')
    )


def test_a_name_cannot_be_written_twice_in_two_ways():
    named = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert accepts(named, '{"b":"x"}') and accepts(named, '{"a":1,"b":"x"}')
    assert not accepts(named, '{"a":1,"\\u0061":"x"}') and not accepts(named, '{"\\u0061":"x"}')
    assert not accepts({**named, "additionalProperties": False}, '{"\\u0061":1}')


def test_escapes_of_unicode_are_text_where_no_name_is_at_risk():
    schema = {"type": "array", "items": {"type": "string", "maxLength": 2}}
    assert accepts(schema, r'["\u00e9", "\ud83d\ude00!", "é😀", "\n\""]')
    assert not accepts(schema, r'["\ud83d"]') and not accepts(schema, r'["\u00e9ab"]')


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"minItem": 3}, "/minItem"),
        ({"type": "integr"}, "/type"),
        ({"type": []}, "/type"),
        ({"enum": []}, "/enum"),
        ({"enum": [2**60]}, "/enum/0"),
        ({"const": float("nan")}, "/const"),
        ({"const": {"a": [1, {1, 2}]}}, "/const/a/1"),
        ({"minimum": 1e300}, "/minimum"),
        ({"minimum": "1"}, "/minimum"),
        ({"multipleOf": 0}, "/multipleOf"),
        ({"properties": {"p": {"multipleOf": 1e-12}}}, "/properties/p"),
        ({"maxLength": -1}, "/maxLength"),
        ({"maxLength": 10**9}, "/maxLength"),
        ({"maxItems": 10**9}, "/maxItems"),
        ({"pattern": "a(?=b)"}, "/pattern"),
        ({"pattern": r"\ba"}, "/pattern"),
        ({"pattern": r"(a)\1"}, "/pattern"),
        ({"pattern": "[a&&b]"}, "/pattern"),
        ({"pattern": "(?i)a"}, "/pattern"),
        ({"pattern": "(a"}, "/"),
        ({"format": "unknown"}, "/format"),
        ({"type": "integer", "format": "int32"}, "/format"),
        ({"uniqueItems": True}, "/uniqueItems"),
        ({"items": {"uniqueItems": True}}, "/items/uniqueItems"),
        ({"properties": []}, "/properties"),
        ({"properties": {"a": 5}}, "/properties/a"),
        ({"properties": {"a\n": {}}}, "/properties/a\n"),
        ({"patternProperties": {"(?!a)": {}}}, "/patternProperties/(?!a)"),
        ({"patternProperties": {"a": {}, "b": {}}}, "/"),
        ({"required": "a"}, "/required"),
        ({"minProperties": 2}, "/minProperties"),
        ({"anyOf": []}, "/anyOf"),
        ({"anyOf": [{"type": "null"}, {"oneOf": [{"type": "string"}, {"maxLength": 3}]}]}, "/anyOf/1/oneOf"),
        ({"$ref": "#/nowhere"}, "/$ref"),
        ({"$ref": "https://example.com/schema.json"}, "/$ref"),
        ({"$ref": "#"}, "/"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {}]}}}, "/$defs/a"),
        ({"properties": {"a": {"$id": "http://x"}}}, "/properties/a/$id"),
        ({"type": "object", "properties": {"a": False}, "required": ["a"]}, "/"),
        ({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2}, "/"),
        ([], "/"),
        (False, "/"),
    ],
    ids=str,
)
def test_what_cannot_be_enforced_is_refused_with_its_place(schema, place):
    assert refusal({"type": "string"} if schema is None else schema).startswith(f"schema at {place}: ")


def nested(depth):
    schema = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


HOSTILE = [
    nested(5000),
    {"const": json.loads("[" * 500 + "]" * 500)},
    {"$defs": {"a": {}}, "anyOf": [{"$ref": "#/$defs/a/" + "a/" * 5000}]},
    {"prefixItems": [{"maxItems": 10_000, "items": {}} for _ in range(11)]},
    {"anyOf": [{} for _ in range(20_000)]},
    {"allOf": [{"anyOf": [{"maxLength": n}, {"minLength": n}]} for n in range(40)]},
    {"pattern": "(" * 3000 + ")" * 3000},
    {"pattern": "a" * 100_000},
    {"$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(300)}, "$ref": "#/$defs/d0"},
    "[" * 100_000,
    '{"description": "' + "x" * 2_000_000 + '"}',
]


@pytest.mark.parametrize("schema", HOSTILE, ids=[str(number) for number in range(len(HOSTILE))])
def test_a_hostile_schema_is_refused_in_short_time(schema):
    begin = time.perf_counter()
    with pytest.raises(GrammarError):
        accepts(schema, "")
    assert time.perf_counter() - begin < 10


SLOW_ELSEWHERE = ["(a+)+b", "(a|aa)*c", "(x+x+)+y", "^(([a-z])+.)+[A-Z]([a-z])+$", "^(a{1000}){1000}{1000}$"]


@pytest.mark.parametrize("pattern", SLOW_ELSEWHERE)
def test_expressions_that_are_slow_elsewhere_are_bounded(pattern):
    begin = time.perf_counter()
    assert not accepts({"type": "string", "pattern": pattern}, '"' + "a" * 2000 + '"')
    assert time.perf_counter() - begin < 5


def test_formats_are_those_that_the_library_has():
    for name in FORMATS:
        assert not accepts({"type": "string", "format": name}, '"\\n"')


def test_checking_leaves_the_users_schema_alone():
    schema = {"oneOf": [{"type": "string"}, {"type": "null"}], "minimum": 1, "exclusiveMinimum": True}
    before = json.dumps(schema)
    check_schema(schema)
    assert json.dumps(schema) == before
