"""Strict parsing of JSON from clients: one object, without values that would cause errors later.

Owns: the rules beyond JSON's grammar: UTF-8, finite numbers, no duplicate keys, valid texts without NUL, limited
nesting. Refuses to know: which fields there are.
Specs: SERVER-10 to SERVER-13, SERVER-17. Source: RFC 8259; RFC 7493 (I-JSON), the source of most rules.
Next: `ferrum.api.protocol.base`.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from itertools import islice
from typing import Any, NoReturn

from ferrum.api.errors import ApiError, invalid
from ferrum.errors import quoted

DEEPEST = 128
"""The deepest nesting of lists and objects. JSON schemas of real programs need about twenty."""
MOST_PIECES = 1 << 20
"""The largest number of texts, commas and brackets: enough for as many tokens, or half as many texts. A body of the
usual size could hold ten million empty objects, which take gigabytes in memory."""
_PIECE = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[,\[{]', re.DOTALL)  # never backtracks
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_object(raw: bytes) -> dict[str, Any]:
    """The object in these bytes. Raises ApiError, with the field if it is known."""
    if len(raw) > MOST_PIECES and next(islice(_PIECE.finditer(raw), MOST_PIECES, None), None):
        raise ApiError(413, f"the body holds more than {MOST_PIECES} values", code="request_too_large")
    try:
        value = _DECODER.decode(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise _malformed(f"it is not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise _too_deep(None) from None
    except ValueError as error:  # JSONDecodeError, and numbers that Python refuses to read
        raise _malformed(str(error)) from None
    if not isinstance(value, dict):
        raise invalid(f"the body must be a JSON object, not {quoted(value)}")
    for field, inside in value.items():
        _check_text(field, None)
        _check(inside, field)
    return value


def _check(value: Any, field: str) -> None:
    """Checks all values inside, without recursion."""
    level = [value]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for each in level:
            if isinstance(each, str):
                _check_text(each, field)
            elif isinstance(each, list):
                below.extend(each)
            elif isinstance(each, dict):
                below.extend(each)
                below.extend(each.values())
        if not below:
            return
        level = below
    raise _too_deep(field)


def _check_text(text: str, field: str | None) -> None:
    if not text.isascii() and _SURROGATE.search(text):
        raise invalid("the text holds half of a surrogate pair, which is no character", _shown(field), "invalid_text")
    if "\x00" in text:
        raise invalid("the text holds U+0000, which is no character of a text", _shown(field), "invalid_text")


def _shown(field: str | None) -> str | None:
    return None if field is None else quoted(field)[1:-1]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuses duplicate keys: two programs could each take another one of the values."""
    found = dict(pairs)
    if len(found) < len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {quoted(key)} stands there twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {quoted(text)[1:-1]} is too large")
    return number


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"a number of {len(text)} digits is too large") from None


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _malformed(why: str) -> ApiError:
    return invalid(f"the body is not valid JSON: {why}", None, "invalid_json")


def _too_deep(field: str | None) -> ApiError:
    return invalid(f"the body nests deeper than {DEEPEST} levels", field, "too_deep")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_int=_whole, parse_constant=_constant)
