"""Directories of safetensors: the header, the index of shards, the data.

Owns: damage to the container and to the names of its parts. Refuses to know: what config.json says (`configurations`).
Next: `tests.fuzz.targets.configurations`.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from functools import cached_property
from random import Random
from typing import Any

from ferrum.load.model import load_model
from tests.fuzz.mutate import json_bytes, mutate_bytes
from tests.fuzz.target import Target
from tests.fuzz.targets.answers import check_answers
from tests.fuzz.targets.gguf import GOLDENS

INDEX = "model.safetensors.index.json"
KNOWN: list[Any] = [
    "F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "C64", "F4", [0, 0], [0, 4], [4, 0],
    [1, 2**63], [64, 64], [64], [], [2**32, 2**32], [-1, 4], "model.safetensors", "model-00001-of-00002.safetensors",
    "../model.safetensors", "/dev/zero", "/dev/stdin", "model\0.safetensors", ".", "", "config.json", "x.bin",
    "a/b.safetensors",
]  # fmt: skip
"""Values at home in a header or an index, and hostile ones."""

Files = dict[str, bytes]


class SafetensorsFolders(Target):
    """The goldens with one file or shard table changed."""

    @cached_property
    def folders(self) -> list[Files]:
        folders = [path for path in sorted(GOLDENS.iterdir()) if path.is_dir()]
        return [
            {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix != ".npz"} for folder in folders
        ]

    def make(self, random: Random) -> Files:
        files = dict(random.choice(self.folders))
        weights = [name for name in files if name.endswith(".safetensors")]
        if INDEX in files and random.random() < 0.5:
            files[INDEX] = json_bytes(random, json.loads(files[INDEX]), KNOWN)
            return files
        name = random.choice(weights)
        size, kind = struct.unpack("<Q", files[name][:8])[0], random.randrange(8)
        if kind < 2:
            files[name] = mutate_bytes(random, files[name], [0])
        elif kind < 4:
            files[name] = files[name][: 8 + size] + mutate_bytes(random, files[name][8 + size :], range(0, 256, 2))
        else:
            header = json_bytes(random, json.loads(files[name][8 : 8 + size]), KNOWN)
            length = len(header) if random.random() < 0.95 else random.choice([0, 1, 2**32, 2**63, 2**64 - 1])
            files[name] = struct.pack("<Q", length) + header + files[name][8 + size :]
        if random.random() < 0.03:
            files[name] = _NO_FILE
        return files

    def run(self, case: Files) -> None:
        path = self.folder / "model"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        for name, content in case.items():
            if content == _NO_FILE:
                os.mkfifo(path / name)
            else:
                (path / name).write_bytes(content)
        check_answers(load_model(path))

    def show(self, case: Files) -> str:
        return ", ".join(f"{name}: {content[:300]!r}" for name, content in case.items())


_NO_FILE = b"a named pipe that nobody writes to"
