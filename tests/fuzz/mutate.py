"""Good inputs made bad: bytes, texts and JSON values, changed as a `Random` decides.

Owns: the ways of damage. All take their decisions from the given `Random` alone, so that the same decisions make the
same input. Refuses to know: what the inputs are for.
Next: `tests.fuzz.target`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from copy import deepcopy
from random import Random
from typing import Any

INTERESTING = [0, 1, 2, 3, 7, 8, 9, 15, 16, 31, 32, 33, 64, 127, 128, 255, 256, 512, 1000, 4095, 4096, 65535, 65536]
INTERESTING += [2**bits + step for bits in (24, 27, 31, 32, 42, 53, 61, 63) for step in (-1, 0, 1)]
INTERESTING += [-1, -2, -8, -(2**31), -(2**63), 2**64 - 1, 2**64 - 32, 0xF0000000, 10**9 + 7]
"""Whole numbers at the edges of types, of blocks, and of what a machine can hold."""

HUGE_DIGITS, DEEP_LISTS, DEEP_OBJECTS, HALF_CHARACTER = "@digits", "@lists", "@objects", "@surrogate"
_WRITTEN = {
    HUGE_DIGITS: "9" * 5000,  # more digits than Python reads
    DEEP_LISTS: "[" * 20_000 + "]" * 20_000,  # deeper than parsers go
    DEEP_OBJECTS: '{"a":' * 20_000 + "1" + "}" * 20_000,
    HALF_CHARACTER: '"\\ud800"',
}
"""JSON that no Python value gives: the writer puts it in place of these texts."""

STRANGE: list[Any] = [
    None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e-320, 5e-324, 1e308, 1.7e308, float("inf"), float("-inf"),
    float("nan"), 2**31, 2**53, 2**63, 2**64, 10**30, -(10**30), 10**400, "", "a", "0", "null", "\0", "\x1b[2J",
    "a" * 1000, "é😀", "\u202e", "../../etc/passwd", "/dev/zero", [], [0], [None], [[]], [1, "a", None], {}, {"a": 1},
    {"": {}}, HUGE_DIGITS, DEEP_LISTS, DEEP_OBJECTS, HALF_CHARACTER,
]  # fmt: skip
"""JSON values of every type, many of them extreme."""


# ---- bytes
def mutate_bytes(random: Random, data: bytes, places: Sequence[int] = ()) -> bytes:
    """The bytes with one to four changes. `places`: the places of numbers, which are changed more often."""
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 1, 2, 2, 4])):
        if places and random.random() < 0.5:
            _number(random, changed, random.choice(places))
        else:
            random.choice(_BYTES)(random, changed)
    return bytes(changed)


def _number(random: Random, data: bytearray, place: int | None = None) -> None:
    """Replaces a number of one to eight bytes, little endian, by an extreme one, or changes it a little."""
    place, width = (_place(random, data) if place is None else place), random.choice([1, 2, 4, 4, 8, 8])
    old = int.from_bytes(data[place : place + width], "little")
    new = random.choice(
        [random.choice(INTERESTING), old + random.choice([-1, 1, 2, 32]), old * random.choice([2, 256])]
    )
    if place + width <= len(data):
        data[place : place + width] = (new % 256**width).to_bytes(width, "little")


def _flip(random: Random, data: bytearray) -> None:
    if data:
        data[_place(random, data)] ^= 1 << random.randrange(8)


def _set(random: Random, data: bytearray) -> None:
    if data:
        data[_place(random, data)] = random.randrange(256)


def _insert(random: Random, data: bytearray) -> None:
    place = _place(random, data)
    data[place:place] = random.choice([b"\0", b"\xff", b"[", b'"', b"{", b"1", random.randbytes(8), bytes(64)])


def _delete(random: Random, data: bytearray) -> None:
    place = _place(random, data)
    del data[place : place + random.choice([1, 1, 2, 4, 8, 64, 1000])]


def _splice(random: Random, data: bytearray) -> None:
    """Copies a piece to another place, where it replaces bytes or is inserted."""
    source, target, size = _place(random, data), _place(random, data), random.choice([1, 4, 8, 32, 256])
    data[target : target + random.choice([0, size])] = data[source : source + size]


def _float(random: Random, data: bytearray) -> None:
    place = _place(random, data) & ~3
    number = random.choice([float("nan"), float("inf"), -1e38, 1e-45, 0.0])
    data[place : place + 4] = struct.pack("<f", number)


def _cut(random: Random, data: bytearray) -> None:
    del data[_place(random, data) :]


def _place(random: Random, data: bytearray) -> int:
    """A random place, half of the time near the beginning, where headers are."""
    return random.randrange(max(1, min(len(data), random.choice([64, 1024, len(data), len(data)]))))


_BYTES = [_number, _number, _flip, _set, _insert, _delete, _splice, _float, _cut]


# ---- texts
def mutate_text(random: Random, text: str, pieces: Sequence[str] = ()) -> str:
    """The text with one to three changes: a part removed, repeated or replaced, or one of the `pieces` inserted."""
    for _ in range(random.choice([1, 1, 2, 3])):
        start = random.randrange(len(text) + 1)
        end = min(len(text), start + random.choice([0, 0, 1, 1, 2, 5, 20]))
        piece = random.choice(pieces) if pieces and random.random() < 0.6 else random.choice(_CHARACTERS)
        middle = random.choice(
            [piece, piece, text[start:end] * random.choice([0, 2, 3, 50]), piece * random.choice([2, 30])]
        )
        text = text[:start] + middle + text[end:]
    return text[:100_000]


_CHARACTERS = [
    *'{}[]()<>"\'\\/|%#*+?.,:;$^&=-_ \n\t\0\x1b\x7f0189aZ', "é", "😀", "\u200d", "\u202e", "\ufeff", "\u0130", "日本",
]  # fmt: skip


# ---- values
def mutate_value(random: Random, value: Any, known: Sequence[Any] = ()) -> Any:
    """Makes one to three changes in a JSON value. `known`: values that some field expects."""
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        value = _mutate_once(random, value, known)
    return value


def _mutate_once(random: Random, value: Any, known: Sequence[Any]) -> Any:
    parents = list(_way_down(random, value))
    if not parents or random.random() < 0.02:
        return _other(random, value, known)
    holder, key = random.choice(parents)
    if isinstance(holder, dict):
        _in_mapping(random, holder, key, known)
    else:
        _in_list(random, holder, key, known)
    return value


def _way_down(random: Random, value: Any) -> Iterator[tuple[Any, Any]]:
    """The containers and keys on a random path from the root to a leaf."""
    while isinstance(value, (dict, list)) and value:
        key = random.choice(list(value)) if isinstance(value, dict) else random.randrange(len(value))
        yield value, key
        value = value[key]


def _in_mapping(random: Random, holder: dict[str, Any], key: str, known: Sequence[Any]) -> None:
    action = random.randrange(8)
    if action == 0:
        del holder[key]
    elif action == 1:
        holder[mutate_text(random, key)] = holder.pop(key)
    elif action == 2:
        holder[mutate_text(random, key)] = deepcopy(holder[key])
    elif action == 3:
        other = random.choice(list(holder))
        holder[key], holder[other] = holder[other], holder[key]
    else:
        holder[key] = _other(random, holder[key], known)


def _in_list(random: Random, holder: list[Any], place: int, known: Sequence[Any]) -> None:
    action = random.randrange(8)
    if action == 0:
        del holder[place]
    elif action == 1:
        holder.insert(random.randrange(len(holder) + 1), deepcopy(holder[place]))
    elif action == 2:
        other = random.randrange(len(holder))
        holder[place], holder[other] = holder[other], holder[place]
    elif action == 3 and len(holder) < 1000:
        holder += holder * random.choice([1, 10])
    else:
        holder[place] = _other(random, holder[place], known)


def _other(random: Random, value: Any, known: Sequence[Any]) -> Any:
    """A value to replace another: a similar one, a strange one, or one that another field expects."""
    choice = random.random()
    if known and choice < 0.2:
        return deepcopy(random.choice(known))  # the next change must not be one of the list
    if choice < 0.4:
        return deepcopy(random.choice([random.choice(STRANGE), random.choice(INTERESTING)]))
    if choice < 0.45:
        return [value] if random.random() < 0.5 else {"a": value}
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return random.choice(
            [
                value + 1,
                value - 1,
                1,
                -value,
                value * 2,
                value // 2,
                value + 0.5 if abs(value) < 1e300 else 0.5,
                f"{value % 10**99}",
            ]
        )
    if isinstance(value, float):
        return random.choice(
            [-value, value * 2, value * 1e300, value * 1e-300, 1 / value if value else 1.0, str(value)]
        )
    if isinstance(value, str):
        return mutate_text(random, value)
    return random.choice([list(value), dict.fromkeys(map(str, value)), None])


def write_json(value: Any) -> str:
    """The value as JSON, with parts that no Python value gives, and with numbers that are too long for Python."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    for name, written in _WRITTEN.items():
        text = text.replace(f'"{name}"', written)
    return text


def json_bytes(random: Random, value: Any, known: Sequence[Any] = ()) -> bytes:
    """A JSON file: the value is changed, in one of six cases also the bytes, in one of twelve only the bytes."""
    kind = random.randrange(12)
    data = write_json(value if kind == 0 else mutate_value(random, value, known)).encode(errors="surrogatepass")
    return mutate_bytes(random, data) if kind < 3 else data
