"""The keywords of JSON Schema (draft 2020-12 and before): which are enforced, which say nothing about a value."""

from __future__ import annotations

__all__ = ["ANNOTATIONS", "ENFORCED", "FORMATS", "REFUSED", "TYPES"]

TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})

FORMATS = frozenset(
    {
        "date-time",
        "time",
        "date",
        "duration",
        "email",
        "hostname",
        "ipv4",
        "ipv6",
        "uuid",
        "uri",
    }
)

# Keyword -> the kind of check that `schema.py` makes of its value.
ENFORCED = {
    "type": "type",
    "const": "const",
    "enum": "enum",
    "minimum": "bound",
    "maximum": "bound",
    "exclusiveMinimum": "bound",
    "exclusiveMaximum": "bound",
    "multipleOf": "multiple",
    "minLength": "length",
    "maxLength": "length",
    "pattern": "pattern",
    "format": "format",
    "items": "items",
    "prefixItems": "list",
    "additionalItems": "additional items",
    "minItems": "count",
    "maxItems": "count",
    "uniqueItems": "unique",
    "properties": "map",
    "patternProperties": "pattern map",
    "additionalProperties": "schema",
    "required": "names",
    "minProperties": "count",
    "maxProperties": "count",
    "allOf": "alternatives",
    "anyOf": "alternatives",
    "oneOf": "alternatives",
    "$ref": "reference",
}

ANNOTATIONS = frozenset(
    {
        "$schema",
        "$id",
        "id",
        "$anchor",
        "$comment",
        "$defs",
        "definitions",
        "title",
        "description",
        "default",
        "deprecated",
        "examples",
        "example",
        "readOnly",
        "writeOnly",
        "contentEncoding",
        "contentMediaType",
        "contentSchema",
        "discriminator",
        "externalDocs",
        "xml",
    }
)
"""They describe a value and forbid none. `$defs` are read where they are referred to."""

REFUSED = {
    "not": "exclusion cannot be enforced while a text is written",
    "if": "conditions are not supported; write the cases out with anyOf",
    "then": "conditions are not supported; write the cases out with anyOf",
    "else": "conditions are not supported; write the cases out with anyOf",
    "contains": "not supported; restrict all items with items",
    "minContains": "not supported; restrict all items with items",
    "maxContains": "not supported; restrict all items with items",
    "propertyNames": "not supported; use patternProperties with additionalProperties: false",
    "dependencies": "not supported; write the cases out with anyOf",
    "dependentRequired": "not supported; write the cases out with anyOf",
    "dependentSchemas": "not supported; write the cases out with anyOf",
    "unevaluatedItems": "not supported; use items",
    "unevaluatedProperties": "not supported; use additionalProperties in each part",
    "$dynamicRef": "not supported; use $ref",
    "$dynamicAnchor": "not supported; use $ref and $defs",
    "$recursiveRef": "not supported; use $ref",
    "$recursiveAnchor": "not supported; use $ref and $defs",
    "$vocabulary": "vocabularies of one's own are not supported",
    "nullable": "not a keyword of JSON Schema; write type: [..., 'null']",
}
"""Keyword -> why it is refused, and what to write instead."""
