"""JSON schemas as sets of values: whether a schema has a finite value, and whether two schemas overlap.

Owns: both tests, from the combined demands of schemas. If a test is undecided, a schema counts as having values, and
two schemas as overlapping. Refuses to know: the library, and forms of JSON Schema that
`ferrum.sample.grammars.schema` does not write.
Specs: SAMPLE-43, SAMPLE-45. Next: `ferrum.sample.grammars.schema_parts`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ferrum.sample.grammars.refusals import CannotFollow
from ferrum.sample.grammars.schema_keywords import LEAST, MOST, Schema

MOST_LOOKS = 20_000, 200
"""At parts of schemas, and more of them for each definition: choices inside choices have any number of combinations."""
DEEPEST = 12
"""Parts of parts that are looked at to tell two schemas from one another."""
_ALL = frozenset(("null", "boolean", "integer", "number", "string", "array", "object"))

Any_ = Schema | bool
Together = list[Schema]
"""What one value has to fit at once."""


class Sets:
    """Schemas that lead to `definitions` by `{"$ref": name}`."""

    def __init__(self, definitions: Mapping[str, Any_]) -> None:
        self._definitions = definitions
        self._left = MOST_LOOKS[0] + MOST_LOOKS[1] * len(definitions)
        self._under_way: set[frozenset[int]] = set()
        self._rests: dict[tuple[int, str], Schema] = {}
        self.ending: set[str] = set()
        """The definitions that a finite value fits."""
        found = True
        while found:
            before = len(self.ending)
            for name in reversed(list(definitions)):  # what comes last leads to the fewest others
                if name not in self.ending and self.ends([definitions[name]]):
                    self.ending.add(name)
            found = len(self.ending) > before

    def ends(self, schemas: Sequence[Any_]) -> bool:
        """True if there may be a finite value that fits all of them."""
        self._look()
        if len(schemas) == 1 and isinstance(schemas[0], dict) and list(schemas[0]) == ["$ref"]:
            return schemas[0]["$ref"] in self.ending
        together = self._together(schemas)
        if together is None:
            return False
        key = frozenset(map(id, together))
        if key in self._under_way:
            return False
        self._under_way.add(key)
        try:
            options = self._options(together)
            if options is not None:
                return any(self.ends(option) for option in options)
            return self._plain_ends(together)
        finally:
            self._under_way.remove(key)

    def _plain_ends(self, together: Together) -> bool:
        kinds = _kinds(together)
        if kinds - {"array", "object"} or any("enum" in schema for schema in together):
            return bool(kinds)
        if "object" in kinds and self._object_ends(together):
            return True
        counts = range(min(_least(together), _longest(together) + 1))
        return "array" in kinds and all(self.ends(_item(together, number)) for number in counts)

    def _object_ends(self, together: Together) -> bool:
        needed = _required(together)
        if not all(self.ends(_property(together, name)) for name in needed):
            return False
        if max((schema.get("minProperties", 0) for schema in together), default=0) <= len(needed):
            return True
        names = {name for schema in together for name in schema.get("properties", ())} - needed
        others = [_property(together, name) for name in names]
        others += [[part] for schema in together for part in schema.get("patternProperties", {}).values()]
        others.append([schema.get("additionalProperties", True) for schema in together])
        return any(self.ends(other) for other in others)

    def apart(self, one: Sequence[Any_], other: Sequence[Any_], depth: int = 0) -> bool:
        """True if it is certain that no value fits both."""
        self._look()
        both = self._together(one), self._together(other)
        if both[0] is None or both[1] is None:
            return True
        if depth > DEEPEST:
            return False
        for here, there in (both, both[::-1]):
            options = self._options(here)  # type: ignore[arg-type]
            if options is not None:
                return all(self.apart(option, there, depth + 1) for option in options)  # type: ignore[arg-type]
        return all(self._apart_as(kind, both[0], both[1], depth) for kind in _kinds(both[0]) & _kinds(both[1]))

    def _apart_as(self, kind: str, one: Together, other: Together, depth: int) -> bool:
        values = _values(one), _values(other)
        if values[0] is not None and values[1] is not None and not values[0] & values[1]:
            return True
        if kind in ("integer", "number"):
            return _most(one) < _lowest(other) or _most(other) < _lowest(one)
        if kind == "object":
            return any(
                self.apart(_property(one, name), _property(other, name), depth + 1)
                for name in sorted(_required(one) | _required(other))
            )
        if kind == "array":
            counts = range(min(max(_least(one), _least(other)), DEEPEST))
            shorter = _end(one) < _least(other) or _end(other) < _least(one)
            return shorter or any(self.apart(_item(one, i), _item(other, i), depth + 1) for i in counts)
        return False

    def _look(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise CannotFollow("its parts can be combined in too many ways")

    def _together(self, schemas: Sequence[Any_]) -> Together | None:
        """The same demands without `allOf` and `$ref`; None if no value fits."""
        found: Together = []
        seen: set[int] = set()
        todo = list(reversed(schemas))
        while todo:
            schema = todo.pop()
            if schema is False:
                return None
            if schema is True or id(schema) in seen:
                continue
            seen.add(id(schema))
            self._look()
            if "$ref" in schema:
                todo.append(self._definitions[schema["$ref"]])
                schema = self._without(schema, "$ref")
            if "allOf" in schema:
                todo.extend(reversed(schema["allOf"]))
                schema = self._without(schema, "allOf")
            if schema:
                found.append(schema)
        return found

    def _options(self, together: Together) -> Iterator[list[Any_]] | None:
        """The same demands, once for each option of their first choice; None if there is no choice."""
        for number, schema in enumerate(together):
            for key in ("anyOf", "oneOf"):
                if key in schema:
                    rest = [*together[:number], self._without(schema, key), *together[number + 1 :]]
                    return ([*rest, option] for option in schema[key])
        return None

    def _without(self, schema: Schema, key: str) -> Schema:
        """The same object each time."""
        place = (id(schema), key)
        if place not in self._rests:
            self._rests[place] = {name: value for name, value in schema.items() if name != key}
        return self._rests[place]


def _kinds(together: Together) -> frozenset[str]:
    """The types that a value can have."""
    kinds = _ALL
    for schema in together:
        if "type" in schema:
            kinds &= {*schema["type"], *(["integer"] if "number" in schema["type"] else [])}
        if "enum" in schema:
            kinds &= {kind for value in schema["enum"] for kind in _kind(value)}
    return kinds


def _kind(value: Any) -> tuple[str, ...]:
    if isinstance(value, bool):
        return ("boolean",)
    if isinstance(value, (int, float)):
        return ("integer", "number") if value == value // 1 else ("number",)
    return (next((kind for kind, made in _MADE if isinstance(value, made)), "null"),)


_MADE = (("string", str), ("array", list), ("object", dict))


def _values(together: Together) -> frozenset[Any] | None:
    """The only ones that fit; None where they are not listed."""
    found = None
    for schema in together:
        if "enum" in schema:
            values = frozenset(map(same, schema["enum"]))
            found = values if found is None else found & values
    return found


def same(value: Any) -> Any:
    """Equal for values that JSON calls equal: 1 is 1.0, and is not true."""
    if isinstance(value, list):
        return ("array", *map(same, value))
    if isinstance(value, dict):
        return ("object", frozenset((key, same(part)) for key, part in value.items()))
    return (_kind(value)[-1], value)


def _required(together: Together) -> set[str]:
    return {name for schema in together for name in schema.get("required", ())}


def _property(together: Together, name: str) -> list[Any_]:
    """What the value of a key has to fit."""
    found: list[Any_] = []
    for schema in together:
        own = [schema["properties"][name]] if name in schema.get("properties", ()) else []
        for pattern, part in schema.get("patternProperties", {}).items():
            fits = _fits(pattern, name)
            own += [True] if fits is None else [part] if fits else []
        found += own or [schema.get("additionalProperties", True)]
    return found


_ATOM = r"(?:[\w :/@-]|\\[.$/dw-]|\[\^?[\w-]+\]|\.)"
_SIMPLE = re.compile(rf"\^?{_ATOM}*(?:{_ATOM}[*+?])?\$?", re.ASCII)


def _fits(pattern: str, name: str) -> bool | None:
    """None for an expression that Python might take long for, or read otherwise than the library."""
    try:
        return re.search(pattern, name, re.ASCII) is not None if _SIMPLE.fullmatch(pattern) else None
    except re.error:
        return None


def _item(together: Together, number: int) -> list[Any_]:
    """What an item of an array has to fit."""
    found = []
    for schema in together:
        first = schema.get("prefixItems", ())
        found.append(first[number] if number < len(first) else schema.get("items", True))
    return found


def _longest(together: Together) -> int:
    """Behind so many, all items have to fit the same."""
    return max((len(schema.get("prefixItems", ())) for schema in together), default=0)


def _least(together: Together) -> int:
    return max((schema.get("minItems", 0) for schema in together), default=0)


def _end(together: Together) -> float:
    return min((schema.get("maxItems", float("inf")) for schema in together), default=float("inf"))


def _lowest(together: Together) -> float:
    return max((schema[key] for schema in together for key in LEAST if key in schema), default=float("-inf"))


def _most(together: Together) -> float:
    return min((schema[key] for schema in together for key in MOST if key in schema), default=float("inf"))
