"""Prefix files: refused, or of no influence on any answer.

Owns: damage to the container, the metadata and the numbers of a saved prefix. Refuses to know: how it is checked.
Next: `tests.fuzz.targets.conversations`.
"""

from __future__ import annotations

import json
import struct
from functools import cached_property
from random import Random
from typing import Any

from ferrum import LLM, SamplingParams
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.config import EngineConfig
from ferrum.errors import FerrumError
from tests.fuzz.mutate import json_bytes, mutate_bytes
from tests.fuzz.target import Target, Wrong
from tests.fuzz.targets.answers import byte_tokenizer, check_idle
from tests.tiny import TinyModel, tiny_config, tiny_params

PROMPT = list(range(40, 40 + 18))
OPS = NumpyOps(deterministic=True)
SMALL = EngineConfig(
    kv_memory=20_000, block_size=4, max_num_seqs=4, deterministic=True
)  # bit by bit, with a prefix or not
GREEDY = SamplingParams(temperature=0, max_tokens=4, logprobs=3, ignore_eos=True)
KNOWN: list[Any] = [
    "F64", "F32", "F16", "BF16", "I32", "U32", "I64", "F8_E4M3", "F8_E5M2", "BOOL", [0, 0], [0, 4], [4, 2, 4, 8],
    [2, 4, 4, 8], [2**63], "ferrum-prefix-1", json.dumps(PROMPT[:16]), json.dumps(PROMPT[:12]),
    json.dumps(PROMPT[1:17]), json.dumps([0] * 16), "[" * 9999, "[1e400]", "[NaN]", "[-1]", "[true]",
    "[99999999999999999999]", "{}", "null",
]  # fmt: skip


class PrefixFiles(Target):
    """A good prefix with bytes, header or numbers changed; the answer that follows is known."""

    @cached_property
    def saved(self) -> bytes:
        path = self.folder / "good"
        self._new().save_prefix(PROMPT, path)
        content = path.read_bytes()
        size = struct.unpack("<Q", content[:8])[0]
        header = json.dumps(
            json.loads(content[8 : 8 + size]), sort_keys=True
        )  # the library's order is another each time
        header += " " * (-len(header) % 8)
        return struct.pack("<Q", len(header)) + header.encode() + content[8 + size :]

    @cached_property
    def answer(self) -> Any:
        return self._ask(self._new())

    @cached_property
    def llm(self) -> LLM:
        return self._new()

    def _new(self) -> LLM:
        config = tiny_config()
        return LLM.from_loaded(TinyModel(config, tiny_params(config), byte_tokenizer()), OPS, SMALL)

    def _ask(self, llm: LLM) -> Any:
        (answer,) = llm.generate([PROMPT], GREEDY)
        return answer.token_ids, answer.logprobs

    def make(self, random: Random) -> bytes:
        kind = random.randrange(4)
        if kind == 0:
            return mutate_bytes(random, self.saved, [0])
        size = struct.unpack("<Q", self.saved[:8])[0]
        header, data = json.loads(self.saved[8 : 8 + size]), self.saved[8 + size :]
        if kind == 1:
            return self.saved[: 8 + size] + mutate_bytes(random, data, range(0, 64, 4))
        if kind == 2:
            written = json.dumps(_metadata_changed(random, header)).encode()
        else:
            written = json_bytes(random, header, KNOWN)
        return struct.pack("<Q", len(written)) + written + data

    def run(self, case: bytes) -> None:
        path = self.folder / "prefix"
        path.unlink(missing_ok=True)
        path.write_bytes(case)
        manager = self.llm.scheduler.manager
        try:
            self.llm.load_prefix(path)
        except FerrumError:
            check_idle(self.llm)
            if manager.device.cached:
                raise Wrong("a refused prefix is in memory") from None
            raise
        llm = self.__dict__.pop("llm")  # what is in memory now would change the next case
        check_idle(llm)
        if self._ask(llm) != self.answer:
            raise Wrong("a loaded prefix has changed an answer")
        check_idle(llm)

    def show(self, case: bytes) -> str:
        return f"{len(case)} bytes, {case[:900]!r}"


def _metadata_changed(random: Random, header: dict[str, Any]) -> dict[str, Any]:
    """One string of the metadata is another."""
    metadata = header["__metadata__"]
    key = random.choice(list(metadata))
    ids = [*PROMPT[:16]]
    ids[random.randrange(16)] = random.choice([0, 1, -1, 256, 257, 2**31, 2**63, 41])
    other = [
        json.dumps(ids),
        *(str(value) for value in KNOWN),
        metadata[key][:-1],
        metadata[key][::-1],
        metadata[key].upper(),
        "",
    ]
    return {**header, "__metadata__": {**metadata, key: random.choice(other)}}
