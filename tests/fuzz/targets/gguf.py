"""GGUF files: from the bytes to an answer.

Owns: damage to the container: lengths, counts, types, offsets, shapes. Refuses to know: what the metadata says
(`configurations`, `tokenizers`).
Next: `tests.fuzz.targets.safetensors`.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

from ferrum.errors import FerrumError
from ferrum.load.gguf import GGUFFile
from ferrum.load.model import load_model
from tests.fuzz.mutate import INTERESTING, mutate_bytes
from tests.fuzz.target import Target
from tests.fuzz.targets.answers import check_answers, check_shown
from tests.load.gguf_writer import GGML, Stored, Value, gguf_bytes, string
from tests.load.tiny_models import METADATA, gguf_tensors, tensors
from tests.text.small_tokenizers import sentencepiece_metadata

GOLDENS = Path(__file__).resolve().parents[2] / "goldens" / "tiny"


class GgufFiles(Target):
    """The goldens, and files written with names twice, strange arrays and shapes that wrap around."""

    @cached_property
    def files(self) -> list[tuple[bytes, list[int]]]:
        """Contents, and where numbers stand in each."""
        contents = [path.read_bytes() for path in sorted(GOLDENS.glob("*.gguf"))]
        contents.append(gguf_bytes({**METADATA, **sentencepiece_metadata(), **_EXTRA}, _tensors()))
        return [(data, places(data, self.folder)) for data in contents]

    def make(self, random: Random) -> bytes:
        if random.random() < 0.2:
            return _rewritten(random)
        data, numbers = random.choice(self.files)
        if random.random() < 0.3:  # the numbers of the tensors alone
            header = max(numbers) + 4
            return data[:header] + mutate_bytes(random, data[header:], range(0, 256, 2))
        return mutate_bytes(random, data, numbers)

    def run(self, case: bytes) -> None:
        path = self.folder / "model.gguf"
        path.unlink(missing_ok=True)  # an older mapping of the file must not see the new content
        path.write_bytes(case)
        if crc32(case) % 4 == 0:
            check_shown(path)
        try:
            loaded = load_model(path)
        except FerrumError:
            for value in GGUFFile(path).metadata.values():  # read although no model can be made of it
                list(value) if hasattr(value, "__iter__") else repr(value)
            raise
        for name in loaded.files.source.names():
            loaded.files.source.describe(name)
        check_answers(loaded)
        loaded.tokenizer.decode(loaded.tokenizer.encode("hello the <s> wörld", add_special_tokens=True))


_EXTRA: dict[str, Any] = {
    "general.name": "tiny",
    "general.alignment": 32,
    "nested": Value("array", [Value("array", [1, 2], "uint8"), Value("array", ["a"], "string")], "array"),
}


def places(data: bytes, folder: Path) -> list[int]:
    """Where the numbers of the header are: versions and counts, and those around each name."""
    path = folder / "good.gguf"
    path.write_bytes(data)
    file = GGUFFile(path)
    found = [4, 8, 16]
    for name in (*file.metadata, *file.tensors):
        start = data.find(string(name))
        after = start + 8 + len(name.encode())
        found += [start, *range(after, after + (36 if name in file.tensors else 24), 4)]
    return found


def _tensors() -> dict[str, Stored]:
    return {name: Stored.float32(array) for name, array in gguf_tensors(tensors()).items()}


def _rewritten(random: Random) -> bytes:
    """A well-formed file with a few wrong parts."""
    metadata: list[tuple[str, Any]] = list({**METADATA, **_EXTRA}.items())
    stored = list(_tensors().items())
    for _ in range(random.choice([1, 1, 2])):
        place = random.randrange(len(stored))
        name, tensor = stored[place]
        action = random.randrange(8)
        if action == 0:
            stored[place] = name, Stored(random.choice(list(GGML)), tensor.shape, tensor.data)
        elif action == 1:
            stored[place] = name, Stored(tensor.kind, _shape(random, tensor.shape), tensor.data)
        elif action == 2:
            stored[place] = name, Stored(tensor.kind, tensor.shape, tensor.data[: random.randrange(len(tensor.data))])
        elif action == 3:
            stored.append((name, tensor))
        elif action == 4:
            del stored[place]
        elif action == 5:
            stored[place] = random.choice(["", "a" * 64, "a" * 65, "\0", "\x1b[2J", name + "\n", name.upper()]), tensor
        elif action == 6:
            metadata.insert(random.randrange(len(metadata)), random.choice(metadata))
        else:
            metadata.append((random.choice(["", "\x1b[2J", "a" * 70_000, "general.alignment"]), _array(random)))
    return gguf_bytes(metadata, stored, version=random.choice([3, 3, 3, 2]))


def _shape(random: Random, shape: tuple[int, ...]) -> tuple[int, ...]:
    """As many elements in another order, or numbers whose product wraps around 64 bits."""
    return random.choice(
        [
            shape[::-1],
            (1, *shape),
            (*shape, 1),
            (1, 1, *shape, 1)[:5],
            (*shape[:-1], abs(random.choice(INTERESTING)) % 2**64),
            (abs(random.choice(INTERESTING)) % 2**64, *shape[1:]),
            (2**42 + 1, 2**22),
            (2**32, 2**32),
            (0, *shape[1:]),
        ]
    )


def _array(random: Random) -> Value:
    """Arrays of every type, nested ones too."""
    value = Value("array", [0, 1, 2], random.choice(["uint8", "int8", "uint16", "int32", "uint64", "bool"]))
    for _ in range(random.choice([0, 0, 1, 7, 8, 9, 300])):
        value = Value("array", [value], "array")
    return value
