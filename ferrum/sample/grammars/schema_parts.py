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
    found: list[Any] = value if isinstance(value, list) else [value]
    for one in found:
        if one not in TYPES:
            fail(place, "type", f"must be one of {', '.join(TYPES)}, or a list of them, not {quoted(one)}")
    return found


def counts(schema: Schema, place: str) -> Schema:
    """How long a text is, how many items an array has, how many keys an object."""
    found = {}
    for keyword in COUNTS:
        if keyword in schema:
            value = schema[keyword]
            if not is_whole(value) or value < 0:
                fail(place, keyword, f"must be a whole number of at least 0, not {quoted(value)}")
            found[keyword] = int(value)
    return found


def numbers(schema: Schema, place: str) -> Schema:
    """Bounds of numbers, and what they are multiples of."""
    given = dict(schema)
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        # as in draft 4, where it speaks of the other one
        if isinstance(given.get(exclusive), bool) and given.pop(exclusive) and bound in given:
            given[exclusive] = given.pop(bound)
    found = {}
    for keyword in (*LEAST, *MOST):
        if keyword in given:
            found[keyword] = _bound(given[keyword], keyword in LEAST, keyword, place)
    if "multipleOf" in given:
        value = given["multipleOf"]
        if not is_number(value) or value <= 0:
            fail(place, "multipleOf", f"must be a number above 0, not {quoted(value)}")
        found["multipleOf"] = value
    return found


def _bound(value: Any, is_least: bool, keyword: str, place: str) -> Any:
    """A bound as the library has them, in 64 bits; where it has none just there, one further inside."""
    if not is_number(value):
        fail(place, keyword, f"must be a number, not {quoted(value)}")
    try:
        known = float(value)
    except OverflowError:
        fail(place, keyword, "is a number out of range")
    if (known > LAST_INTEGER) if is_least else (known < -LAST_INTEGER):
        fail(place, keyword, "is beyond the numbers of 64 bits that can be followed")
    if -LAST_EXACT <= value <= LAST_EXACT:
        return value
    if (known < 0) == is_least:  # so far out that no more numbers are needed than those that are exact
        return -LAST_EXACT if is_least else LAST_EXACT
    inside = math.inf if is_least else -math.inf
    return math.nextafter(known, inside) if (known < value if is_least else known > value) else known


def strings(schema: Schema, kinds: list[str] | None, place: str, strict_formats: bool) -> Schema:
    """What texts look like."""
    found = {}
    for keyword in ("pattern", "format"):
        if keyword in schema and not isinstance(schema[keyword], str):
            fail(place, keyword, f"must be text, not {quoted(schema[keyword])}")
    if "pattern" in schema:
        found["pattern"] = expression(schema["pattern"])
    known = schema.get("format") in FORMATS
    if known:
        found["format"] = schema["format"]
    elif "format" in schema and strict_formats and (kinds is None or "string" in kinds):
        message = f"is {quoted(schema['format'])}, which is unknown; only strict_formats refuses it"
        fail(place, "format", f"{message}. Known are {', '.join(sorted(FORMATS))}")
    return found


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
    found = [[schema["const"]]] if "const" in schema else []
    if "enum" in schema:
        if not isinstance(schema["enum"], list):
            fail(place, "enum", f"must be a list of values, not {quoted(schema['enum'])}")
        found.append(schema["enum"])
    for listed in found:
        for value in listed:
            _check_value(value, "const" if "const" in schema else "enum", place)
    return found


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
    found = schema.get("required", [])
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        fail(place, "required", f"must be a list of texts, not {quoted(found)}")
    return list(dict.fromkeys(found))


def keys_counted(found: Schema, place: str) -> None:
    """Rewrites `minProperties` and `maxProperties` such that the library need not tell keys from one another, which it
    cannot: of an open object with the same key twice it counts two. Refuses what is left."""
    given = found.get("properties", {})
    needed = found.get("required", [])
    names = list(dict.fromkeys([*given, *needed]))
    closed = found.get("additionalProperties") is False and not found.get("patternProperties")
    least, most = found.pop("minProperties", 0), found.pop("maxProperties", None)
    if (most is not None and most < max(least, len(needed))) or (closed and least > len(names)):
        found.update(minProperties=1, maxProperties=0)  # which nothing fits
        return
    if closed and least == len(names):
        needed = found["required"] = names
    if most == len(needed) and not (needed and found.get("patternProperties")):  # no other key may come
        found.pop("patternProperties", None)
        rest = found.get("additionalProperties", True)
        names, closed = needed, True
        found.update(properties={name: given.get(name, rest) for name in needed}, additionalProperties=False)
    loose = len(names) > len(needed)
    if most is not None and not (closed and most >= len(names)):
        if loose and (needed or most > 1):
            fail(place, "maxProperties", "can be followed only where each key of 'properties' is 'required'")
        found["maxProperties"] = most
    if least > len(needed):
        if least > len(needed) + 1 or (needed and loose):
            what = "cannot be followed, since the same key could be counted twice"
            fail(place, "minProperties", f"{what}: name {least} keys in 'required'")
        found["minProperties"] = least
