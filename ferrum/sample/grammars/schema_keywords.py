"""The keywords of JSON Schema, of all its drafts: which are enforced, which are refused, which are notes.

Owns: the tables, and what a value of a keyword must be. Refuses to know: where a keyword stands.
Specs: SAMPLE-44. Source: https://json-schema.org, drafts 3 to 2020-12.
Next: `ferrum.sample.grammars.schema_references`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Schema = dict[str, Any]

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
MAPS = ("properties", "patternProperties")
COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
LEAST, MOST = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
LAST_EXACT = 2**53
"""Up to this size, the library handles numbers exactly."""
LAST_INTEGER = 2**63 - 1
"""The largest whole number that the library writes."""
FORMATS = frozenset((
    "date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri",
))  # fmt: skip
"""The values of `format` that are enforced; others are notes, as the standard says."""
ESCAPED = "\b\f\n\r\t"
"""Control characters that JSON has a short escape sequence for; other sequences are not used."""


def _demands_nothing(value: Any) -> bool:
    return value is True or value == {}


def is_whole(value: Any) -> bool:
    """A whole number, as JSON Schema has it: 3.0 is one."""
    return is_number(value) and value == value // 1


def is_number(value: Any) -> bool:
    """True for a number; False for a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


REFUSED: Mapping[str, Callable[[Any, Schema], bool]] = {
    "not": lambda value, schema: value is False,
    "if": lambda value, schema: "then" not in schema and "else" not in schema,
    "then": lambda value, schema: "if" not in schema,
    "else": lambda value, schema: "if" not in schema,
    "dependentRequired": lambda value, schema: value == {},
    "dependentSchemas": lambda value, schema: value == {},
    "dependencies": lambda value, schema: value == {},
    "propertyNames": lambda value, schema: _demands_nothing(value),
    "contains": lambda value, schema: schema.get("minContains") == 0 and "maxContains" not in schema,
    "minContains": lambda value, schema: "contains" not in schema or value == 0,
    "maxContains": lambda value, schema: "contains" not in schema,
    "uniqueItems": lambda value, schema: value is False or schema.get("maxItems") in (0, 1),
    "unevaluatedItems": lambda value, schema: _demands_nothing(value),
    "unevaluatedProperties": lambda value, schema: _demands_nothing(value),
    "$dynamicRef": lambda value, schema: False,
    "$recursiveRef": lambda value, schema: False,
    "extends": lambda value, schema: False,
    "disallow": lambda value, schema: False,
    "divisibleBy": lambda value, schema: False,
}
"""What cannot be kept to, unless it demands nothing, which the function tells of its value and the schema around it."""

LOOKS = ("$ref", "allOf", "anyOf", "oneOf", "if", "then", "else", "dependentSchemas", "$dynamicRef", "$recursiveRef")
"""Beside which `unevaluatedProperties` is more than `additionalProperties`."""

NOTES = frozenset((
    "$schema", "$id", "id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$vocabulary", "$comment", "$defs",
    "definitions", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly",
    "contentEncoding", "contentMediaType", "contentSchema",
))  # fmt: skip
"""Keywords that demand nothing of an answer, like all unknown names. The list is for readers: nothing depends on it."""
