"""GGUF files that were cut into parts, as llama-gguf-split cuts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferrum.errors import FerrumError, InvalidFormat, NotFound
from ferrum.load.conversion import to_float32
from ferrum.load.model import load_model, open_model
from ferrum.load.resolve import resolve
from tests.load.gguf_writer import Stored, Value, gguf_bytes
from tests.load.tiny_models import METADATA, gguf_tensors, tensors, write_gguf

WORDS = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.merges": ["a b"],
         "tokenizer.ggml.tokens": ["a", "b", "ab"], "tokenizer.ggml.token_type": [1, 1, 1]}  # fmt: skip
STORED = {name: Stored.float32(array) for name, array in gguf_tensors(tensors()).items()}


def part_name(number: int, count: int = 3) -> str:
    return f"tiny-{number:05}-of-{count:05}.gguf"


def write_parts(
    folder: Path, count: int = 3, changes: dict[int, dict[str, Any]] | None = None, empty_first: bool = False
) -> list[Path]:
    """The tiny model in so many parts; `changes` gives keys of a part, counted from 1, other values."""
    names = list(STORED)
    paths = [folder / part_name(number, count) for number in range(1, count + 1)]
    for number, path in enumerate(paths, 1):
        share = names[number - 1 :: count]
        if empty_first:
            share = [] if number == 1 else names[number - 2 :: count - 1]
        keys = {
            "split.no": Value("uint16", number - 1),
            "split.count": Value("uint16", count),
            "split.tensors.count": Value("int32", len(names)),
        }
        metadata = {**(METADATA | WORDS if number == 1 else {}), **keys, **(changes or {}).get(number, {})}
        path.write_bytes(gguf_bytes(metadata, {name: STORED[name] for name in share}))
    return paths


@pytest.mark.clause("LOAD-101")
@pytest.mark.parametrize("empty_first", [False, True])
@pytest.mark.parametrize("named", [0, 1, 2, "the directory"])
def test_whichever_part_is_named_the_model_is_whole(tmp_path: Path, named: int | str, empty_first: bool) -> None:
    (tmp_path / "parts").mkdir()
    paths = write_parts(tmp_path / "parts", empty_first=empty_first)
    loaded = load_model(paths[named] if isinstance(named, int) else tmp_path / "parts")
    whole = load_model(write_gguf(tmp_path / "whole.gguf"))
    assert loaded.config == whole.config
    assert loaded.tokenizer.encode("ab", add_special_tokens=False) == [2]
    for found, expected in zip(loaded.params.weights(), whole.params.weights(), strict=True):
        np.testing.assert_array_equal(to_float32(found), to_float32(expected))


@pytest.mark.clause("LOAD-101")
def test_a_model_in_parts_is_called_like_the_whole(tmp_path: Path) -> None:
    paths = write_parts(tmp_path)
    assert resolve(paths[1]).name == "tiny"


@pytest.mark.clause("LOAD-102")
@pytest.mark.parametrize("absent", [1, 2, 3])
@pytest.mark.parametrize("named", [1, 2, 3])
def test_a_part_that_is_not_there_is_named(tmp_path: Path, named: int, absent: int) -> None:
    paths = write_parts(tmp_path)
    paths[absent - 1].unlink()
    if named == absent:
        with pytest.raises(NotFound, match="does not exist"):
            resolve(str(paths[named - 1]))
        return
    with pytest.raises(NotFound, match=f"{part_name(absent)} does not exist; of 3 parts of a GGUF file all are needed"):
        load_model(paths[named - 1])


@pytest.mark.clause("LOAD-41")
def test_the_words_are_in_the_first_part(tmp_path: Path) -> None:
    paths = write_parts(tmp_path)
    paths[2].unlink()
    files = open_model(paths[1])
    assert files.vocabulary.tokenizer(files.token_ids).encode("ab", add_special_tokens=False) == [2]
    with pytest.raises(NotFound):
        _ = files.source


CONTRADICTIONS: dict[str, tuple[dict[int, dict[str, Any]], str]] = {
    "number": ({2: {"split.no": 2}}, r"00002-of-00003\.gguf: split\.no must be 1, as the name of the file says, not 2"),
    "first number": ({1: {"split.no": 1}}, r"00001-of-00003\.gguf: split\.no must be 0"),
    "count": ({3: {"split.count": 2}}, r"00003-of-00003\.gguf: split\.count must be 3, as in the other parts, not 2"),
    "no part": ({2: {"split.count": 0}}, r"00002-of-00003\.gguf: split\.count must be 3"),
    "count in the name": ({1: {"split.count": 4}}, "one of 4 parts of a GGUF file, which must be called name-00001-of"),
    "tensors": ({1: {"split.tensors.count": 22}}, r"split\.tensors\.count must be 21, as many as are in the 3 parts"),
    "text": ({1: {"split.count": "3"}}, r"split\.count must be a whole number of at least 0, not '3'"),
    "huge": ({1: {"split.count": 2**31}}, r"split\.count must be at most 99999"),
}


@pytest.mark.clause("LOAD-102")
@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_parts_that_contradict_each_other_are_an_error(tmp_path: Path, case: str) -> None:
    changes, says = CONTRADICTIONS[case]
    paths = write_parts(tmp_path, changes=changes)
    with pytest.raises(InvalidFormat, match=says):
        load_model(paths[0])


@pytest.mark.clause("LOAD-102")
def test_a_tensor_in_two_parts_is_an_error(tmp_path: Path) -> None:
    paths = write_parts(tmp_path)
    keys = {"split.no": 1, "split.count": 3, "split.tensors.count": len(STORED)}
    paths[1].write_bytes(gguf_bytes(keys, STORED))
    with pytest.raises(InvalidFormat, match=r"00002-of-00003\.gguf: tensor \S+ is in another part as well"):
        load_model(paths[0])


@pytest.mark.clause("LOAD-102")
def test_a_part_under_another_name_says_what_it_must_be_called(tmp_path: Path) -> None:
    path = write_parts(tmp_path)[0].rename(tmp_path / "renamed.gguf")
    with pytest.raises(InvalidFormat, match=r"renamed\.gguf is one of 3 parts .* called name-00001-of-00003\.gguf"):
        load_model(path)


@pytest.mark.clause("LOAD-102")
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_truncated_part_is_an_error_that_names_it(tmp_path: Path, number: int) -> None:
    paths = write_parts(tmp_path)
    path = paths[number - 1]
    content = path.read_bytes()
    for size in (len(content) - 33, len(content) // 2, 30, 0):
        path.write_bytes(content[:size])
        with pytest.raises(FerrumError, match=path.name):
            load_model(paths[0])


@pytest.mark.clause("LOAD-101")
def test_parts_of_two_models_in_one_directory_must_be_named(tmp_path: Path) -> None:
    paths = write_parts(tmp_path)
    write_gguf(tmp_path / "other.gguf")
    with pytest.raises(NotFound, match=r"holds 4 \.gguf files: name the one you mean"):
        load_model(tmp_path)
    assert load_model(paths[0]).config.layers == 2
