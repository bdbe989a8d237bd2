"""Directories of safetensors: the header, the index of shards, the data, and the texts beside them.

Owns: damage to the container and to the names of its parts, and files that are none. Refuses to know: what config.json
says (`configurations`).
Next: `tests.fuzz.targets.configurations`.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

import numpy as np

from ferrum.load.model import load_model
from tests.fuzz.mutate import json_bytes, mutate_bytes
from tests.fuzz.target import Target
from tests.fuzz.targets.answers import check_answers, check_shown
from tests.fuzz.targets.gguf import GOLDENS
from tests.load.quantised_folders import Tensors, awq_tensors, write_raw
from tests.load.tiny_models import tensors
from tests.text.small_tokenizers import byte_level_json

INDEX = "model.safetensors.index.json"
KNOWN: list[Any] = [
    "F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "C64", "F4", [0, 0], [0, 4], [4, 0],
    "U32", "I8", "F8_E8M0", "awq", "gptq", "fp8", "mxfp4",
    [1, 2**63], [64, 64], [64], [], [2**32, 2**32], [-1, 4], "model.safetensors", "model-00001-of-00002.safetensors",
    "../model.safetensors", "/dev/zero", "/dev/stdin", "model\0.safetensors", ".", "", "config.json", "x.bin",
    "a/b.safetensors", "\x1b[2J.safetensors",
]  # fmt: skip
"""Values at home in a header or an index, and hostile ones."""

Files = dict[str, bytes]
ODD: dict[bytes, Callable[[Path], object]] = {
    b"<a pipe that nobody writes to>": os.mkfifo,
    b"<a link to /dev/zero>": lambda path: path.symlink_to("/dev/zero"),
    b"<a link to a terminal>": lambda path: path.symlink_to("/dev/tty"),
    b"<a link to itself>": lambda path: path.symlink_to(path.name),
    b"<a link to nothing>": lambda path: path.symlink_to("nothing"),
    b"<a folder>": Path.mkdir,
    b"<2 TiB of nothing>": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 2 << 40),
}
"""Contents that are none: how each is made."""
TEXTS: Files = {
    "tokenizer.json": byte_level_json().encode(),
    "tokenizer_config.json": json.dumps(
        {
            "bos_token": {"content": "<s>"},
            "eos_token": "</s>",
            "chat_template": [
                {"name": "default", "template": "{{ messages[0].content }}"},
                {"name": "rag", "template": ""},
            ],
        }
    ).encode(),
    "chat_template.jinja": b"{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
    "generation_config.json": b'{"eos_token_id": [2, 0], "temperature": 0.6}',
}


class SafetensorsFolders(Target):
    """The goldens, half of them with a tokenizer and chat templates, and one file changed."""

    @cached_property
    def folders(self) -> list[Files]:
        folders = [path for path in sorted(GOLDENS.iterdir()) if path.is_dir()]
        names = [sorted(path for path in folder.iterdir() if path.suffix != ".npz") for folder in folders]
        found = [{path.name: path.read_bytes() for path in paths} for paths in names]
        found.append(_quantised(self.folder / "good"))
        return found + [{**files, **TEXTS} for files in found]

    def make(self, random: Random) -> Files:
        files = dict(random.choice(self.folders))
        name = random.choice(list(files))
        if random.random() < 0.06:
            files[name] = random.choice(list(ODD))
        elif name.endswith(".safetensors"):
            files[name] = _weights(random, files[name])
        elif name == "tokenizer.json" or name.endswith(".jinja"):  # `tokenizers` and `templates` look closer
            files[name] = mutate_bytes(random, files[name])
        else:
            files[name] = json_bytes(random, json.loads(files[name]), KNOWN)
        return files

    def run(self, case: Files) -> None:
        path = self.folder / "model"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        for name, content in case.items():
            if content in ODD:
                ODD[content](path / name)
            else:
                (path / name).write_bytes(content)
        if crc32(repr(case).encode()) % 4 == 0:
            check_shown(path)
        loaded = load_model(path)
        check_answers(loaded)
        if "tokenizer.json" in case:
            template = loaded.chat_template
            text = template.render([{"role": "user", "content": "Hi"}]) if template else "Hi"
            loaded.tokenizer.decode(loaded.tokenizer.encode(text, add_special_tokens=True))

    def show(self, case: Files) -> str:
        return ", ".join(f"{name}: {content[:300]!r}" for name, content in case.items())


def _quantised(folder: Path) -> Files:
    """A model of which one projection is quantised by AWQ."""
    stored: Tensors = {name: ("F32", array) for name, array in tensors().items()}
    stem = "model.layers.0.self_attn.q_proj"
    rows, columns = stored.pop(f"{stem}.weight")[1].shape
    codes = np.arange(rows * columns).reshape(rows, columns) % 16
    stored |= awq_tensors(stem, codes, codes[:, ::32], np.full((rows, columns // 32), 0.01))
    config = {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 32}}
    return {path.name: path.read_bytes() for path in write_raw(folder, stored, config).iterdir()}


def _weights(random: Random, data: bytes) -> bytes:
    """The header, its length or the numbers are others."""
    size, kind = struct.unpack("<Q", data[:8])[0], random.randrange(8)
    if kind < 2:
        return mutate_bytes(random, data, [0])
    if kind < 4:
        return data[: 8 + size] + mutate_bytes(random, data[8 + size :], range(0, 256, 2))
    header = json_bytes(random, json.loads(data[8 : 8 + size]), KNOWN)
    length = len(header) if random.random() < 0.95 else random.choice([0, 1, 2**32, 2**63, 2**64 - 1])
    return struct.pack("<Q", length) + header + data[8 + size :]


def _much_of_nothing(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


ODD: dict[bytes, Callable[[Path], object]] = {
    b"<a pipe that nobody writes to>": os.mkfifo,
    b"<a link to /dev/zero>": lambda path: path.symlink_to("/dev/zero"),
    b"<a link to a terminal>": lambda path: path.symlink_to("/dev/tty"),
    b"<a link to itself>": lambda path: path.symlink_to(path.name),
    b"<a link to nothing>": lambda path: path.symlink_to("nothing"),
    b"<a folder>": Path.mkdir,
    b"<1 TiB of nothing>": _much_of_nothing,
}
"""Contents that are none: how each is made."""
TEXTS: Files = {
    "tokenizer.json": byte_level_json().encode(),
    "tokenizer_config.json": json.dumps(
        {
            "bos_token": {"content": "<s>"},
            "eos_token": "</s>",
            "chat_template": [
                {"name": "default", "template": "{{ messages[0].content }}"},
                {"name": "rag", "template": ""},
            ],
        }
    ).encode(),
    "chat_template.jinja": b"{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
    "generation_config.json": b'{"eos_token_id": [2, 0], "temperature": 0.6}',
}
"""What stands beside the weights in a folder from the hub."""
