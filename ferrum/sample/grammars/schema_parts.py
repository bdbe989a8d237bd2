"""The parts of a JSON schema that hold no schemas, as the library for grammars keeps to them.

Owns: for each, the values that a keyword can have, and another way to say what the library does not understand or would
not keep to. Refuses to know: the parts that hold some.
Specs: SAMPLE-42, SAMPLE-44, SAMPLE-46. Next: `ferrum.sample.grammars.schema`.
"""

from __future__ import annotations

import math
from typing import Any, NoReturn

from ferrum.errors import quoted
from ferrum.sample.grammars.refusals import CannotFollow
from ferrum.sample.grammars.schema_keywords import (
    COUNTS,
    ESCAPED,
    FORMATS,
    LAST_EXACT,
    LAST_INTEGER,
    LEAST,
    MOST,
    TYPES,
    Schema,
    is_number,
    is_whole,
)


def fail(place: str, keyword: str, message: str) -> NoReturn:
    """Raises CannotFollow that names the keyword and where it stands."""
    raise CannotFollow(f"{quoted(keyword)} at {place} {message}")


def types(schema: Schema, place: str) -> list[str] | None:
    """The types that are named, None where none are."""
    value = schema.get("type")
    if value is None and "type" not in schema:
        return None
    names: list[Any] = value if isinstance(value, list) else [value]
    for name in names:
        if name not in TYPES:
            fail(place, "type", f"must be one of {', '.join(TYPES)}, or a list of them, not {quoted(name)}")
    return names


def counts(schema: Schema, place: str) -> Schema:
    """How long a text is, how many items an array has, how many keys an object."""
    result = {}
    for keyword in COUNTS:
        if keyword in schema:
            value = schema[keyword]
            if not is_whole(value) or value < 0:
                fail(place, keyword, f"must be a whole number of at least 0, not {quoted(value)}")
            result[keyword] = int(value)
    return result


def numbers(schema: Schema, place: str) -> Schema:
    """Bounds of numbers, and what they are multiples of."""
    bounds = dict(schema)
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        # in draft 4 it is true or false, and says how the bound beside it is meant
        if isinstance(bounds.get(exclusive), bool) and bounds.pop(exclusive) and bound in bounds:
            bounds[exclusive] = bounds.pop(bound)
    result = {}
    for keyword in (*LEAST, *MOST):
        if keyword in bounds:
            result[keyword] = _bound(bounds[keyword], keyword in LEAST, keyword, place)
    if "multipleOf" in bounds:
        value = bounds["multipleOf"]
        if not is_number(value) or value <= 0:
            fail(place, "multipleOf", f"must be a number above 0, not {quoted(value)}")
        result["multipleOf"] = value
    return result


def _bound(value: Any, is_least: bool, keyword: str, place: str) -> Any:
    """A bound as the library has them, in 64 bits; where it has none just there, one further inside."""
    if not is_number(value):
        fail(place, keyword, f"must be a number, not {quoted(value)}")
    try:
        nearest = float(value)
    except OverflowError:
        fail(place, keyword, "is a number out of range")
    if (nearest > LAST_INTEGER) if is_least else (nearest < -LAST_INTEGER):
        fail(place, keyword, "is beyond the numbers of 64 bits that can be followed")
    if -LAST_EXACT <= value <= LAST_EXACT:
        return value
    if (nearest < 0) == is_least:  # a bound beyond all exact integers becomes the last exact one
        return -LAST_EXACT if is_least else LAST_EXACT
    inside = math.inf if is_least else -math.inf
    return math.nextafter(nearest, inside) if (nearest < value if is_least else nearest > value) else nearest


def strings(schema: Schema, kinds: list[str] | None, place: str, strict_formats: bool) -> Schema:
    """What texts look like."""
    result = {}
    for keyword in ("pattern", "format"):
        if keyword in schema and not isinstance(schema[keyword], str):
            fail(place, keyword, f"must be text, not {quoted(schema[keyword])}")
    if "pattern" in schema:
        result["pattern"] = expression(schema["pattern"])
    is_known = schema.get("format") in FORMATS
    if is_known:
        result["format"] = schema["format"]
    elif "format" in schema and strict_formats and (kinds is None or "string" in kinds):
        message = f"is {quoted(schema['format'])}, which is unknown; only strict_formats refuses it"
        fail(place, "format", f"{message}. Known are {', '.join(sorted(FORMATS))}")
    return result


def expression(pattern: str) -> str:
    """The same for the library, but for what readers of schemas do not agree on: what is white space for some of them
    only does not come, nor do line ends for a dot. And [ && -- ~~ inside [...] mean nothing but themselves."""
    parts: list[str] = []
    at, inside, negated = 0, False, False
    while at < len(pattern):
        char = pattern[at : at + 2] if pattern[at] == "\\" else pattern[at]
        at += len(char)
        if inside:
            if char in ("[", "&", "~") or (char == "-" and parts[-1] == "-"):
                char = "\\" + char
            inside = char != "]"
            char = _SPACES[negated].get(char, char)
        elif char == "[":
            inside, negated = True, pattern.startswith("^", at)
        else:
            char = _OUTSIDE.get(char, char)
        parts.append(char)
    return "".join(parts)


_SPACES = (
    {r"\s": r"[^\S\x85]", r"\S": r"[^\s\x{feff}]"},
    {r"\s": r"\s\x{feff}", r"\S": r"\S\x85"},
)
"""White space in [...] and in [^...]; Python, the library and JSON Schema differ in U+0085 and U+FEFF."""
_OUTSIDE = {**_SPACES[0], ".": r"[^\n\r\x{2028}\x{2029}]"}


def values(schema: Schema, place: str) -> list[list[Any]]:
    """Lists of values: one of each has to come."""
    lists = [[schema["const"]]] if "const" in schema else []
    if "enum" in schema:
        if not isinstance(schema["enum"], list):
            fail(place, "enum", f"must be a list of values, not {quoted(schema['enum'])}")
        lists.append(schema["enum"])
    for listed in lists:
        for value in listed:
            _check_value(value, "const" if "const" in schema else "enum", place)
    return lists


def _check_value(value: Any, keyword: str, place: str) -> None:
    """Refuses one that the library would write in another way, or not at all."""
    if isinstance(value, str):
        if any((char < " " and char not in ESCAPED) or char == "\x7f" for char in value):
            fail(place, keyword, f"holds a control character, which cannot be followed: {quoted(value)}")
    elif isinstance(value, int) and not -LAST_EXACT <= value <= LAST_EXACT:
        if abs(value) > LAST_INTEGER or int(float(value)) != value:
            fail(place, keyword, f"holds {quoted(value)}, which is beyond the numbers that can be followed")
    elif isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            _check_value(part, keyword, place)


def required(schema: Schema, place: str) -> list[str]:
    """The keys that have to come."""
    keys = schema.get("required", [])
    if not isinstance(keys, list) or not all(isinstance(name, str) for name in keys):
        fail(place, "required", f"must be a list of texts, not {quoted(keys)}")
    return list(dict.fromkeys(keys))


def keys_counted(schema: Schema, place: str) -> None:
    """Rewrites `minProperties` and `maxProperties` such that the library need not tell keys from one another, which it
    cannot: of an open object with the same key twice it counts two. Refuses what is left."""
    properties = schema.get("properties", {})
    needed = schema.get("required", [])
    names = list(dict.fromkeys([*properties, *needed]))
    closed = schema.get("additionalProperties") is False and not schema.get("patternProperties")
    least, most = schema.pop("minProperties", 0), schema.pop("maxProperties", None)
    if (most is not None and most < max(least, len(needed))) or (closed and least > len(names)):
        schema.update(minProperties=1, maxProperties=0)  # no object fits
        return
    if closed and least == len(names):
        needed = schema["required"] = names
    if most == len(needed) and not (needed and schema.get("patternProperties")):  # no other key may come
        schema.pop("patternProperties", None)
        rest = schema.get("additionalProperties", True)
        names, closed = needed, True
        schema.update(properties={name: properties.get(name, rest) for name in needed}, additionalProperties=False)
    has_optional = len(names) > len(needed)
    if most is not None and not (closed and most >= len(names)):
        if has_optional and (needed or most > 1):
            fail(place, "maxProperties", "can be followed only where each key of 'properties' is 'required'")
        schema["maxProperties"] = most
    if least > len(needed):
        if least > len(needed) + 1 or (needed and has_optional):
            problem = "cannot be followed, since the same key could be counted twice"
            fail(place, "minProperties", f"{problem}: name {least} keys in 'required'")
        schema["minProperties"] = least
