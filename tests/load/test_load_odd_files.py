"""Paths that are not regular files, and names with control characters: one sentence at once, and little memory."""

from __future__ import annotations

import json
import signal
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from ferrum.errors import FerrumError, InvalidFormat, ModelError, NotFound, quoted
from ferrum.load.gguf import GGUFFile
from ferrum.load.model import load_model, open_model
from ferrum.load.safetensors import INDEX, SINGLE, SafetensorsSource
from tests.load.gguf_writer import Value
from tests.load.odd_files import ODD_KINDS, make_odd
from tests.load.tiny_models import CONFIG, tensors, write_folder, write_gguf

SAYS = "(does not exist|cannot be read|is not a regular file)"
FILES = ["config.json", "generation_config.json", SINGLE, INDEX]


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """A test that waits for a pipe fails."""

    def too_late(*_: object) -> None:
        raise AssertionError("this takes too long")

    older = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, older)


@pytest.mark.clause("LOAD-16")
@pytest.mark.parametrize("kind", ODD_KINDS)
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_folder_that_is_none_is_refused_at_once(tmp_path: Path, name: str, kind: str) -> None:
    folder = write_folder(tmp_path / "model")
    if name == INDEX:  # which is not looked at beside a single file
        (folder / SINGLE).unlink()
    make_odd(folder / name, kind)
    says = {"dangling": "does not exist", "circular": "cannot be read"}.get(
        kind, "is not a regular file|cannot be read"
    )
    with pytest.raises((NotFound, InvalidFormat), match=rf"{name} ({says})"):
        load_model(tmp_path / "model")


@pytest.mark.clause("LOAD-16")
@pytest.mark.parametrize("kind", ODD_KINDS)
def test_a_shard_that_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    folder = write_folder(tmp_path / "model")
    (folder / SINGLE).unlink()
    save_file(tensors(), folder / "a.safetensors")
    make_odd(folder / "b.safetensors", kind)
    places = {name: "ab"[number % 2] + ".safetensors" for number, name in enumerate(tensors())}
    (folder / INDEX).write_text(json.dumps({"weight_map": places}))
    with pytest.raises((NotFound, InvalidFormat), match=rf"b\.safetensors {SAYS}"):
        load_model(folder)


@pytest.mark.clause("LOAD-16")
@pytest.mark.parametrize("kind", ODD_KINDS)
@pytest.mark.parametrize("inside", [False, True])
def test_a_gguf_file_that_is_none_is_refused_at_once(tmp_path: Path, kind: str, inside: bool) -> None:
    path = tmp_path / "model" / "model.gguf"
    path.parent.mkdir()
    make_odd(path, kind)
    with pytest.raises((NotFound, InvalidFormat)):
        load_model(path.parent if inside else path)
    with pytest.raises((NotFound, InvalidFormat)):
        GGUFFile(path)


@pytest.mark.clause("LOAD-16")
@pytest.mark.parametrize("name", ["config.json", SINGLE, INDEX, "model.gguf"])
def test_an_empty_file_is_an_error(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path / "model")
    if name == INDEX:
        (folder / SINGLE).unlink()
    path = write_gguf(folder / name) if name == "model.gguf" else folder / name
    path.write_bytes(b"")
    with pytest.raises(InvalidFormat, match=name):
        load_model(path if name == "model.gguf" else folder)


@pytest.mark.clause("LOAD-16")
@pytest.mark.parametrize(
    "path", ["a\0b", "a\0b.gguf", "x" * 300, "x" * 300 + ".gguf", "\ud800.gguf", "none", "none/deep"]
)
def test_a_path_that_nothing_can_have_is_not_found(tmp_path: Path, path: str) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        open_model(tmp_path / path)
    with pytest.raises((NotFound, InvalidFormat)):
        GGUFFile(tmp_path / path)
    with pytest.raises(NotFound, match="holds neither"):
        SafetensorsSource(tmp_path / path)


SHARDS = [
    "a\0.safetensors", "\x1b[2J.safetensors", "a\n.safetensors", "\u202e.safetensors", "x" * 300 + ".safetensors",
    "../a.safetensors", "..", "/dev/zero", "", ".", "a.bin", "é" * 130 + ".safetensors", None, 7, ["a.safetensors"], {},
]  # fmt: skip


@pytest.mark.clause("LOAD-12", "LOAD-16")
@pytest.mark.parametrize("shard", SHARDS, ids=range(len(SHARDS)))
def test_a_name_that_no_shard_has_is_shown_printable(tmp_path: Path, shard: Any) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"w": shard}}))
    with pytest.raises(InvalidFormat, match="w must be in a file of this directory, not in ") as caught:
        SafetensorsSource(tmp_path)
    assert str(caught.value).isprintable() and str(caught.value).endswith(quoted(shard))


NAMES = ["", "\0", "\x1b[31m", "a\nb", "\u202e", "n" * 513, "\x9b31m", "\u2028"]


@pytest.mark.clause("LOAD-16")
@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_tensors_name_is_printable(tmp_path: Path, name: str) -> None:
    for path in (tmp_path / "index", tmp_path / "header"):
        path.mkdir()
    (tmp_path / "index" / INDEX).write_text(json.dumps({"weight_map": {name: "a.safetensors"}}))
    save_file({name: np.ones(2, np.float32)}, tmp_path / "header" / SINGLE)
    for folder in ("index", "header"):
        with pytest.raises(InvalidFormat, match="names a tensor '") as caught:
            SafetensorsSource(tmp_path / folder)
        assert str(caught.value).isprintable() and len(str(caught.value)) < 400


@pytest.mark.clause("LOAD-14", "LOAD-16")
@pytest.mark.parametrize(
    "header",
    [
        '{"w": "' + "a" * 100_000 + '"}', '{"w": {"\x7f\x1b]0;title": 1}}', '{"w": {"dtype": "\u202e\x9b2J"}}',
        '{"__metadata__": {"a": {"\x1b[2J": 1}}}', "[" * 100_000, '{"w": ' + "9" * 5000 + "}", '"\x1b"', "\x1b[2J",
    ],
    ids=range(8),
)  # fmt: skip
def test_what_the_library_quotes_of_a_file_is_short_and_printable(tmp_path: Path, header: str) -> None:
    content = header.encode()
    (tmp_path / SINGLE).write_bytes(len(content).to_bytes(8, "little") + content + bytes(64))
    with pytest.raises(InvalidFormat, match="is not a valid safetensors file: ") as caught:
        SafetensorsSource(tmp_path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300 + len(str(tmp_path)) + 60


@pytest.mark.clause("LOAD-16")
def test_names_that_are_unusual_but_printable_are_read(tmp_path: Path) -> None:
    name, shard = "größe ∑ " + "n" * 500, "model 00001+é=.safetensors"
    save_file({name: np.ones(2, np.float32)}, tmp_path / shard)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {name: shard}}))
    assert SafetensorsSource(tmp_path).vector(name).tolist() == [1, 1]


# ---- shapes before memory
def peak_of_refusal(path: Path) -> int:
    """Bytes that loading takes at most before it fails."""
    tracemalloc.start()
    try:
        with pytest.raises(FerrumError):
            load_model(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


POWERS = [20, 27, 28, 31, 32, 40, 61, 62]


@pytest.mark.clause("LOAD-31")
@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("dtype", ["auto", "q8_0"])
def test_heads_of_gguf_cost_no_memory_before_the_shape_is_checked(tmp_path: Path, power: int, dtype: str) -> None:
    heads = Value("uint64", 2**power)
    path = write_gguf(tmp_path / "m.gguf", llama__attention__head_count=heads, llama__attention__key_length=2,
                      llama__attention__value_length=2, llama__rope__dimension_count=2)  # fmt: skip
    with pytest.raises(
        ModelError, match=rf"attn_q\.weight has shape \[64, 64\], but .* asks for \[{2 * 2**power}, 64\]"
    ):
        load_model(path, dtype)
    assert peak_of_refusal(path) < 2 << 20


@pytest.mark.clause("LOAD-31")
@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize(
    "key", ["block_count", "embedding_length", "feed_forward_length", "attention.head_count", "attention.head_count_kv",
            "attention.key_length", "context_length", "rope.dimension_count", "attention.sliding_window"],
)  # fmt: skip
def test_no_number_of_gguf_costs_memory(tmp_path: Path, key: str, power: int) -> None:
    path = write_gguf(tmp_path / "m.gguf", **{f"llama.{key}": Value("uint64", 2**power)})
    if key in ("context_length", "attention.sliding_window") and power < 31:
        load_model(path)  # no tensor has it, and nothing is made of it here
    elif key != "attention.sliding_window":
        assert peak_of_refusal(path) < 2 << 20


@pytest.mark.clause("LOAD-31")
@given(keys=st.dictionaries(
    st.sampled_from([key for key, value in CONFIG.items() if type(value) is int]),
    st.one_of(st.integers(1, 65).map(lambda power: 2**power), st.integers(1, 100)), min_size=1,
))  # fmt: skip
def test_no_number_of_config_json_costs_memory(keys: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "numbers"
    if not folder.exists():
        write_folder(folder)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **keys}))
    tracemalloc.start()
    try:
        load_model(folder)
    except FerrumError as error:
        assert str(error).isprintable()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 80 << 20  # a JSON file is read into a buffer of its largest size
