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
        self._looks_left = MOST_LOOKS[0] + MOST_LOOKS[1] * len(definitions)
        self._under_way: set[frozenset[int]] = set()
        self._rests: dict[tuple[int, str], Schema] = {}
        self.ending: set[str] = set()
        """The definitions that a finite value fits."""
        changed = True
        while changed:
            before = len(self.ending)
            for name in reversed(list(definitions)):  # what comes last leads to the fewest others
                if name not in self.ending and self.ends([definitions[name]]):
                    self.ending.add(name)
            changed = len(self.ending) > before

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
        options = [_property(together, name) for name in names]
        options += [[part] for schema in together for part in schema.get("patternProperties", {}).values()]
        options.append([schema.get("additionalProperties", True) for schema in together])
        return any(self.ends(option) for option in options)

    def apart(self, first: Sequence[Any_], second: Sequence[Any_], depth: int = 0) -> bool:
        """True if it is certain that no value fits both."""
        self._look()
        demands = self._together(first), self._together(second)
        if demands[0] is None or demands[1] is None:
            return True
        if depth > DEEPEST:
            return False
        for side, opposite in (demands, demands[::-1]):
            options = self._options(side)  # type: ignore[arg-type]
            if options is not None:
                return all(self.apart(option, opposite, depth + 1) for option in options)  # type: ignore[arg-type]
        return all(
            self._apart_as(kind, demands[0], demands[1], depth) for kind in _kinds(demands[0]) & _kinds(demands[1])
        )

    def _apart_as(self, kind: str, first: Together, second: Together, depth: int) -> bool:
        values = _values(first), _values(second)
        if values[0] is not None and values[1] is not None and not values[0] & values[1]:
            return True
        if kind in ("integer", "number"):
            return _most(first) < _lowest(second) or _most(second) < _lowest(first)
        if kind == "object":
            return any(
                self.apart(_property(first, name), _property(second, name), depth + 1)
                for name in sorted(_required(first) | _required(second))
            )
        if kind == "array":
            counts = range(min(max(_least(first), _least(second)), DEEPEST))
            shorter = _end(first) < _least(second) or _end(second) < _least(first)
            return shorter or any(self.apart(_item(first, i), _item(second, i), depth + 1) for i in counts)
        return False

    def _look(self) -> None:
        self._looks_left -= 1
        if self._looks_left < 0:
            raise CannotFollow("its parts can be combined in too many ways")

    def _together(self, schemas: Sequence[Any_]) -> Together | None:
        """The same demands without `allOf` and `$ref`; None if no value fits."""
        demands: Together = []
        visited: set[int] = set()
        todo = list(reversed(schemas))
        while todo:
            schema = todo.pop()
            if schema is False:
                return None
            if schema is True or id(schema) in visited:
                continue
            visited.add(id(schema))
            self._look()
            if "$ref" in schema:
                todo.append(self._definitions[schema["$ref"]])
                schema = self._without(schema, "$ref")
            if "allOf" in schema:
                todo.extend(reversed(schema["allOf"]))
                schema = self._without(schema, "allOf")
            if schema:
                demands.append(schema)
        return demands

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
    return (next((kind for kind, python_type in _PYTHON_TYPES if isinstance(value, python_type)), "null"),)


_PYTHON_TYPES = (("string", str), ("array", list), ("object", dict))


def _values(together: Together) -> frozenset[Any] | None:
    """The values that fit, if an `enum` lists them, in their canonical form; else None."""
    allowed = None
    for schema in together:
        if "enum" in schema:
            values = frozenset(map(canonical, schema["enum"]))
            allowed = values if allowed is None else allowed & values
    return allowed


def canonical(value: Any) -> Any:
    """Equal for values that JSON calls equal: 1 is 1.0, and is not true."""
    if isinstance(value, list):
        return ("array", *map(canonical, value))
    if isinstance(value, dict):
        return ("object", frozenset((key, canonical(part)) for key, part in value.items()))
    return (_kind(value)[-1], value)


def _required(together: Together) -> set[str]:
    return {name for schema in together for name in schema.get("required", ())}


def _property(together: Together, name: str) -> list[Any_]:
    """What the value of a key has to fit."""
    schemas: list[Any_] = []
    for schema in together:
        parts = [schema["properties"][name]] if name in schema.get("properties", ()) else []
        for pattern, part in schema.get("patternProperties", {}).items():
            matches = _matches(pattern, name)
            parts += [True] if matches is None else [part] if matches else []
        schemas += parts or [schema.get("additionalProperties", True)]
    return schemas


_ATOM = r"(?:[\w :/@-]|\\[.$/dw-]|\[\^?[\w-]+\]|\.)"
_SIMPLE = re.compile(rf"\^?{_ATOM}*(?:{_ATOM}[*+?])?\$?", re.ASCII)


def _matches(pattern: str, name: str) -> bool | None:
    """True if the pattern matches a part of the name. None for an expression that could take Python long, or that
    Python reads in another way than the library."""
    try:
        return re.search(pattern, name, re.ASCII) is not None if _SIMPLE.fullmatch(pattern) else None
    except re.error:
        return None


def _item(together: Together, number: int) -> list[Any_]:
    """What an item of an array has to fit."""
    schemas = []
    for schema in together:
        prefix = schema.get("prefixItems", ())
        schemas.append(prefix[number] if number < len(prefix) else schema.get("items", True))
    return schemas


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
