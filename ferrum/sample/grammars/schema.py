"""JSON schemas, rewritten so that the library for grammars enforces all of their demands.

Owns: the rewriting to a few keywords; a keyword that cannot be enforced is refused with its name and place. Refuses to
know: how schemas are enforced.
Specs: SAMPLE-29, SAMPLE-42 to SAMPLE-46. Next: `ferrum.sample.grammars.grammar_library`.
"""

from __future__ import annotations

from typing import Any

from ferrum.errors import quoted
from ferrum.sample.grammars.refusals import CannotFollow
from ferrum.sample.grammars.schema_keywords import LOOKS, MAPS, REFUSED, Schema
from ferrum.sample.grammars.schema_parts import (
    counts,
    expression,
    fail,
    keys_counted,
    numbers,
    required,
    strings,
    types,
    values,
)
from ferrum.sample.grammars.schema_references import References
from ferrum.sample.grammars.schema_sets import Any_, Sets

NOTHING: Schema = {"enum": []}
_OLD = ("draft-0", "2019-09")
"""In the `$schema` of drafts without `prefixItems`."""


def followed(schema: Any, one_of_as_any_of: bool = False, strict_formats: bool = False) -> Schema:
    """A schema as the library can keep to it. `one_of_as_any_of`: more than one part of a `oneOf` may fit;
    `strict_formats`: an unknown `format` is refused. Raises CannotFollow."""
    return _Reader(schema, one_of_as_any_of, strict_formats).schema()


class _Reader:
    """Rewrites a schema and all parts to which it refers."""

    def __init__(self, root: Any, one_of_as_any_of: bool, strict_formats: bool) -> None:
        self._root = root
        self._references = References(root)
        self._one_of_as_any_of = one_of_as_any_of
        self._strict_formats = strict_formats
        self._is_old_draft = (
            any(draft in str(root.get("$schema")) for draft in _OLD) if isinstance(root, dict) else False
        )
        self._definitions: dict[str, Any_] = {}
        self._names: dict[int, str] = {}
        self._places: dict[str, str] = {}
        self._waiting: list[tuple[str, Any]] = []
        self._leads: list[Schema] = []  # what refers to a definition, by its name for now
        self._choices: list[tuple[Schema, Schema, str]] = []  # each with what is demanded beside it

    def schema(self) -> Schema:
        whole = self._whole()
        if whole is False:
            raise CannotFollow("it allows nothing")
        return whole if isinstance(whole, dict) else {}

    def _whole(self) -> Any_:
        root = self._read(self._root, "#")
        while self._waiting:
            name, schema = self._waiting.pop()
            self._definitions[name] = self._read(schema, self._places[name])
        if not self._definitions and not self._choices:
            return root
        sets = Sets(self._definitions)
        self._cut(root, sets)
        for choice, beside, place in self._choices:
            self._decide(choice, beside, place, sets)
        for lead in self._leads:
            if "$ref" in lead:
                lead["$ref"] = f"#/$defs/{lead['$ref']}"
        return {**root, "$defs": self._definitions} if isinstance(root, dict) else root

    def _cut(self, root: Any_, sets: Sets) -> None:
        """A reference to a schema that no finite value fits becomes a schema that nothing fits: an answer that begins
        such a value could never end."""
        endless_names = set(self._definitions) - sets.ending
        if endless_names and not sets.ends([root]):
            place = self._places[min(endless_names, key=int)]
            raise CannotFollow(f"{place} allows nothing that has an end: what it demands leads back to it")
        for reference in self._leads:
            if reference["$ref"] in endless_names:
                reference.clear()
                reference.update(NOTHING)
        for name in endless_names:
            del self._definitions[name]

    def _decide(self, choice: Schema, beside: Schema, place: str, sets: Sets) -> None:
        """A `oneOf` of which two parts cannot both fit is an `anyOf`, which the library can follow."""
        options = choice.pop("oneOf")
        if not self._one_of_as_any_of:
            pairs = ((i, j) for j in range(len(options)) for i in range(j))
            overlap = next(
                (pair for pair in pairs if not sets.apart([options[pair[0]], beside], [options[pair[1]], beside])), None
            )
            if overlap is not None:
                parts = (
                    f"parts {overlap[0]} and {overlap[1]} may both fit, and it cannot be followed that only one does"
                )
                fail(
                    place,
                    "oneOf",
                    f"is refused, since its {parts}; one_of_as_any_of (--one-of-as-any-of) reads it as anyOf",
                )
        choice["anyOf"] = options

    def _read(self, schema: Any, place: str) -> Any_:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise CannotFollow(f"{place} must be a schema (an object, true or false), not {quoted(schema)}")
        original, schema = schema, _evaluated(schema)
        for keyword in schema:
            if keyword in REFUSED and not REFUSED[keyword](schema[keyword], schema):
                fail(place, keyword, "cannot be followed")
        kinds = types(schema, place)
        result: Schema = {} if kinds is None else {"type": kinds}
        result |= counts(schema, place) | numbers(schema, place)
        result |= strings(schema, kinds, place, self._strict_formats)
        self._object(schema, result, place)
        self._array(schema, result, place)
        parts: list[Any_] = [{"enum": listed} for listed in values(schema, place)]
        if "$ref" in schema:
            parts.append(self._lead(original, place))
        if "allOf" in schema:
            parts += self._list(schema, "allOf", place)
        if "anyOf" in schema:
            parts.append({"anyOf": self._list(schema, "anyOf", place)})
        if "oneOf" in schema:
            choice: Schema = {"oneOf": self._list(schema, "oneOf", place)}
            self._choices.append((choice, result, place))
            parts.append(choice)
        return _joined(result, parts)

    def _lead(self, schema: Schema, place: str) -> Schema:
        if not isinstance(schema["$ref"], str):
            fail(place, "$ref", f"must be text, not {quoted(schema['$ref'])}")
        target = self._references.find(schema, schema["$ref"])
        if target is None:
            fail(place, "$ref", f"leads to {quoted(schema['$ref'])}, which is not in this schema; nothing is fetched")
        key = id(target)
        if key not in self._names:
            name = self._names[key] = str(len(self._names))
            self._places[name] = self._references.place(target) if isinstance(target, dict) else schema["$ref"]
            self._waiting.append((name, target))
        lead: Schema = {"$ref": self._names[key]}
        self._leads.append(lead)
        return lead

    def _list(self, schema: Schema, keyword: str, place: str) -> list[Any_]:
        if not isinstance(schema[keyword], list):
            fail(place, keyword, f"must be a list of schemas, not {quoted(schema[keyword])}")
        return [self._read(part, f"{place}/{keyword}/{number}") for number, part in enumerate(schema[keyword])]

    def _object(self, schema: Schema, result: Schema, place: str) -> None:
        for keyword in MAPS:
            if keyword in schema:
                if not isinstance(schema[keyword], dict):
                    fail(place, keyword, f"must be an object of schemas, not {quoted(schema[keyword])}")
                result[keyword] = {
                    (expression(name) if keyword == "patternProperties" else name): self._read(
                        part, f"{place}/{keyword}/{name}"
                    )
                    for name, part in schema[keyword].items()
                }
        if "additionalProperties" in schema:
            result["additionalProperties"] = self._read(schema["additionalProperties"], f"{place}/additionalProperties")
        if "required" in schema:
            result["required"] = required(schema, place)
        if "minProperties" in result or "maxProperties" in result:
            keys_counted(result, place)

    def _array(self, schema: Schema, result: Schema, place: str) -> None:
        """Of all drafts: what the first items are, each by itself, and what the others are."""
        rest_key = "items"
        if isinstance(schema.get("items"), list):
            if "prefixItems" in schema:
                fail(place, "prefixItems", "stands beside a list of 'items', which says the same")
            result["prefixItems"] = self._list(schema, "items", place)
            rest_key = "additionalItems"
        elif "prefixItems" in schema:
            if self._is_old_draft and "items" in schema:
                fail(place, "prefixItems", "is no keyword of the draft that '$schema' names")
            result["prefixItems"] = self._list(schema, "prefixItems", place)
            rest_key = "items" if "items" in schema else "additionalItems"
        if rest_key in schema:
            result["items"] = self._read(schema[rest_key], f"{place}/{rest_key}")


def _evaluated(schema: Schema) -> Schema:
    """Where nothing else in a schema looks at keys or items, what is left of them is what is additional."""
    if "unevaluatedProperties" not in schema and "unevaluatedItems" not in schema:
        return schema
    schema = dict(schema)
    if not any(keyword in schema for keyword in LOOKS):
        rest = schema.pop("unevaluatedProperties", True)
        schema.setdefault("additionalProperties", rest)
        if "contains" not in schema:
            rest = schema.pop("unevaluatedItems", True)
            schema.setdefault("additionalItems" if isinstance(schema.get("items"), list) else "items", rest)
    return schema


def _joined(base: Schema, parts: list[Any_]) -> Any_:
    """One schema that demands the same as all."""
    if any(part is False for part in parts):
        return False
    demands = [part for part in parts if isinstance(part, dict) and part]
    if len(demands) == 1 and not base:
        return demands[0]
    if len(demands) == 1 and list(demands[0]) in (["enum"], ["anyOf"], ["oneOf"]):
        demands[0].update(base)  # the same object: it may be among the choices
        return demands[0]
    return {**base, "allOf": demands} if demands else base
