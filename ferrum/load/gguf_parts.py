"""A GGUF file that was cut into parts, `name-00001-of-00003.gguf` and so on, as one file.

Owns: finding all parts from one of them, and the check that none is missing and that they agree. The first part holds
the metadata; any part holds tensors. Refuses to know: the meaning of metadata keys, except those about parts.
Specs: LOAD-101, LOAD-102. Source: llama.cpp's `llama-gguf-split` and `llama_model_loader`. Next: `ferrum.load.ggml`.
"""

from __future__ import annotations

import os
from pathlib import Path

from ferrum.errors import InvalidFormat, NotFound
from ferrum.fields import Fields
from ferrum.load.gguf import GGUFFile
from ferrum.load.resolve import GGUF_PART

LARGEST_COUNT = 99_999
"""The largest number of five digits, as a file's name has."""


def first_part(path: Path) -> GGUFFile:
    """The GGUF file at a path. If it was cut into parts, the first part, whichever part `path` is: it holds all
    metadata."""
    file = GGUFFile(path)
    if _count(file) < 2 or GGUF_PART.fullmatch(path.name) is None:  # `whole_file` refuses the name
        return file
    first = _paths(path, _count(file))[0]
    if first == path:
        return file
    _check_exists(first, _count(file))
    return GGUFFile(first)


def whole_file(first: GGUFFile) -> GGUFFile:
    """The file with the tensors of all its parts.

    Raises `NotFound` for a part that is missing, and `InvalidFormat` if parts contradict each other.
    """
    count = _count(first)
    if count < 2:
        return first
    paths = _paths(first.path, count)
    for path in paths:
        _check_exists(path, count)
    parts = [first, *(GGUFFile(path) for path in paths[1:])]
    for number, part in enumerate(parts):
        _check(part, number, count)
    for part in parts[1:]:
        twice = first.tensors.keys() & part.tensors.keys()
        if twice:
            raise InvalidFormat(f"{part.path}: tensor {min(twice)} is in another part as well")
        first.tensors.update(part.tensors)
    if len(first.tensors) != _fields(first).integer("split.tensors.count", low=0):
        raise _fields(first).wrong("split.tensors.count", f"{len(first.tensors)}, as many as are in the {count} parts")
    return first


def _fields(part: GGUFFile) -> Fields:
    return Fields(part.metadata, str(part.path))


def _count(part: GGUFFile) -> int:
    """The number of parts of the file."""
    count = _fields(part).integer("split.count", 1, low=0)
    if count > LARGEST_COUNT:
        raise _fields(part).wrong("split.count", f"at most {LARGEST_COUNT}")
    return count


def _paths(path: Path, count: int) -> list[Path]:
    """The paths of all parts, of which `path` is one."""
    name = GGUF_PART.fullmatch(path.name)
    if name is None or int(name["count"]) != count:
        example = f"name-00001-of-{count:05}.gguf"
        raise InvalidFormat(f"{path} is one of {count} parts of a GGUF file, which must be called {example} and so on")
    return [path.with_name(f"{name['whole']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]


def _check_exists(part: Path, count: int) -> None:
    if not os.path.lexists(part):
        raise NotFound(f"{part} does not exist; of {count} parts of a GGUF file all are needed")


def _check(part: GGUFFile, number: int, count: int) -> None:
    """Checks that a part says inside what its name says. Parts count from 0 inside and from 1 in names."""
    fields = _fields(part)
    if _count(part) != count:
        raise fields.wrong("split.count", f"{count}, as in the other parts")
    if fields.integer("split.no", low=0) != number:
        raise fields.wrong("split.no", f"{number}, as the name of the file says")
