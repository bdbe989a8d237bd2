"""Directories of safetensors, in one file or in shards."""

from __future__ import annotations

import json
import mmap
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from ferrum.errors import FerrumError, InvalidFormat, ModelError, NotFound, Unsupported
from ferrum.load.safetensors import INDEX, SINGLE, SafetensorsSource
from tests.load.quantised_folders import write_raw
from tests.load.tiny_models import tensors


def write_shards(folder: Path, arrays: dict[str, np.ndarray], count: int) -> None:
    """The arrays dealt out over so many shards, with their index."""
    names = list(arrays)
    places = {name: f"model-{i % count + 1:05}-of-{count:05}.safetensors" for i, name in enumerate(names)}
    for shard in set(places.values()):
        save_file({name: arrays[name] for name in names if places[name] == shard}, folder / shard)
    write_index(folder, places)


def write_index(folder: Path, places: Any) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": places}))


@pytest.mark.clause("LOAD-11")
@pytest.mark.parametrize("count", [1, 2, 5])
def test_shards_hold_what_one_file_holds(tmp_path: Path, count: int) -> None:
    arrays = tensors()
    (tmp_path / "one").mkdir()
    save_file(arrays, tmp_path / "one" / SINGLE)
    write_shards(tmp_path, arrays, count)
    one, many = SafetensorsSource(tmp_path / "one"), SafetensorsSource(tmp_path)
    assert set(one.names()) == set(many.names()) == set(arrays)
    for name, array in arrays.items():
        for source in (one, many):
            stored = source.describe(name)
            assert (stored.type, stored.shape, stored.nbytes) == ("F32", array.shape, array.nbytes)
            np.testing.assert_array_equal(source.vector(name), array)


@pytest.mark.clause("LOAD-11")
def test_names_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    stored = {name: ("F32", np.ones(1, np.float32)) for name in ("z", "layers.2.w", "layers.10.w", "a")}
    assert list(SafetensorsSource(write_raw(tmp_path, stored, {})).names()) == list(stored)


@pytest.mark.clause("LOAD-11")
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_weights_keep_their_type_and_vectors_become_float32(tmp_path: Path, dtype: type) -> None:
    array = np.linspace(-3, 3, 64).reshape(2, 32).astype(dtype)
    save_file({"w": array}, tmp_path / SINGLE)
    source = SafetensorsSource(tmp_path)
    weight = source.weight("w")
    assert weight.data.dtype == dtype
    assert (weight.data == array).all()
    assert source.vector("w").dtype == np.float32
    np.testing.assert_array_equal(source.vector("w"), array.astype(np.float32))


def owner(array: np.ndarray) -> Any:
    """What holds the memory of an array."""
    base: Any = array
    while isinstance(base, (np.ndarray, memoryview)):
        base = base.obj if isinstance(base, memoryview) else base.base
    return base


@pytest.mark.clause("LOAD-15")
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_weights_are_views_of_the_mapped_file(tmp_path: Path, dtype: type) -> None:
    array = np.linspace(-3, 3, 64).reshape(2, 32).astype(dtype)
    save_file({"a": array[:1].copy(), "empty": array[:0].copy(), "w": array}, tmp_path / SINGLE)
    data = SafetensorsSource(tmp_path).weight("w").data
    assert isinstance(owner(data), mmap.mmap) and data.flags.aligned and not data.flags.writeable
    assert (data == array).all()  # the source itself is gone by now
    assert SafetensorsSource(tmp_path).weight("empty").data.shape == (0, 32)


@pytest.mark.clause("LOAD-15")
@pytest.mark.parametrize("padding", range(4))
def test_elements_between_multiples_of_their_size_are_copied(tmp_path: Path, padding: int) -> None:
    array = np.arange(8, dtype=np.float32).reshape(2, 4)
    content = raw_file("F32", [2, 4], 32, padding)
    (tmp_path / SINGLE).write_bytes(content[:-32] + array.tobytes())
    data = SafetensorsSource(tmp_path).weight("w").data
    assert isinstance(owner(data), mmap.mmap) == ((len(content) - 32) % 4 == 0)
    assert data.flags.aligned and data.tolist() == array.tolist()


@pytest.mark.clause("LOAD-100")
def test_a_stack_is_a_list_of_views(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.float16).reshape(3, 2, 4)
    save_file({"t": array, "v": np.ones(3, np.float32)}, tmp_path / SINGLE)
    source = SafetensorsSource(tmp_path)
    stack = source.stack("t")
    assert [weight.shape for weight in stack] == [(2, 4)] * 3
    for weight, expected in zip(stack, array, strict=True):
        np.testing.assert_array_equal(weight.data, expected)
        assert isinstance(owner(weight.data), mmap.mmap) and weight.data.dtype == np.float16
    with pytest.raises(ModelError, match=r"tensor v has shape \[3\], and is no stack of matrices"):
        source.stack("v")


@pytest.mark.clause("LOAD-10")
def test_a_name_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    save_file({"w": np.ones(3, np.float32)}, tmp_path / SINGLE)
    source = SafetensorsSource(tmp_path)
    for read in (source.describe, source.weight, source.vector):
        with pytest.raises(ModelError, match="tensor absent is missing"):
            read("absent")


@pytest.mark.clause("LOAD-12")
def test_a_directory_without_tensors_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"holds neither model\.safetensors nor"):
        SafetensorsSource(tmp_path)


@pytest.mark.clause("LOAD-12")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("adapter_model.safetensors", "an adapter: merge it"),
        ("consolidated.safetensors", "save it with transformers"),
        ("pytorch_model.bin", "pickled weights, which are programs"),
        ("pytorch_model.bin.index.json", "pickled weights, which are programs"),
    ],
)
def test_what_a_directory_has_in_place_of_tensors_is_named(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(NotFound, match=f"; {name} holds .*{says}"):
        SafetensorsSource(tmp_path)


@pytest.mark.clause("LOAD-14")
def test_a_file_that_git_lfs_has_not_fetched_is_called_so(tmp_path: Path) -> None:
    (tmp_path / SINGLE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(InvalidFormat, match="git lfs pull fetches"):
        SafetensorsSource(tmp_path)


@pytest.mark.clause("LOAD-14")
def test_a_file_that_speaks_of_git_lfs_is_no_pointer(tmp_path: Path) -> None:
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / SINGLE, {"note": "version https://git-lfs.github.com/spec/v1"})
    assert list(SafetensorsSource(tmp_path).names()) == ["a"]


@pytest.mark.clause("LOAD-12")
def test_a_missing_shard_is_an_error_that_names_it(tmp_path: Path) -> None:
    write_shards(tmp_path, tensors(), 3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(NotFound, match=r"model-00002-of-00003\.safetensors does not exist"):
        SafetensorsSource(tmp_path)


@pytest.mark.clause("LOAD-12")
def test_a_shard_that_lacks_a_tensor_of_the_index_is_an_error(tmp_path: Path) -> None:
    save_file({"w": np.ones(3, np.float32)}, tmp_path / "a.safetensors")
    write_index(tmp_path, {"w": "a.safetensors", "v": "a.safetensors"})
    with pytest.raises(InvalidFormat, match=r"tensor v is not in a\.safetensors"):
        SafetensorsSource(tmp_path)


@pytest.mark.clause("LOAD-12")
@pytest.mark.parametrize("place", ["../a.safetensors", "/etc/a.safetensors", "sub/a.safetensors", "", "..", 3, None])
def test_an_index_reaches_no_file_outside_its_directory(tmp_path: Path, place: Any) -> None:
    (tmp_path / "model").mkdir()
    save_file({"w": np.ones(3, np.float32)}, tmp_path / "a.safetensors")
    write_index(tmp_path / "model", {"w": place})
    with pytest.raises(InvalidFormat, match="must be in a file of this directory"):
        SafetensorsSource(tmp_path / "model")


@pytest.mark.clause("LOAD-12")
@pytest.mark.parametrize("text", ["", "{", "[]", '{"weight_map": []}', '{"weight_map": {}}', "{}", '"x"', "\x00"])
def test_a_malformed_index_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(InvalidFormat, match=INDEX):
        SafetensorsSource(tmp_path)


@pytest.mark.clause("LOAD-12")
@pytest.mark.parametrize(
    "index", ["stale", '{"weight_map": {}}', "", "{", "[]", '{"weight_map": {"w": "../a.safetensors"}}']
)
def test_beside_a_single_file_an_index_is_not_looked_at(tmp_path: Path, index: str) -> None:
    """Who saves a sharded model again as one file leaves the index where it was."""
    arrays = tensors()
    save_file(arrays, tmp_path / SINGLE)
    (tmp_path / INDEX).write_text(index)
    if index == "stale":
        write_index(tmp_path, dict.fromkeys(arrays, "model-00001-of-00002.safetensors"))
    source = SafetensorsSource(tmp_path)
    assert set(source.names()) == set(arrays)


@pytest.mark.clause("LOAD-13")
def test_float64_is_rounded_to_float32(tmp_path: Path) -> None:
    array = np.random.default_rng(0).standard_normal((2, 32)) * [[1.0], [1e-40]]
    array[0, :3] = np.inf, -np.inf, np.nan
    save_file({"w": array, "v": array[0]}, tmp_path / SINGLE)
    source = SafetensorsSource(tmp_path)
    assert (source.describe("w").type, source.describe("w").nbytes) == ("F64", 512)
    for found, expected in ((source.weight("w").data, array), (source.vector("v"), array[0])):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected.astype(np.float32))
    save_file({"w": np.full((2, 2), 1e39)}, tmp_path / SINGLE)
    with pytest.raises(ModelError, match="tensor w holds numbers that float32 cannot store"):
        SafetensorsSource(tmp_path).weight("w")


def raw_file(dtype: str, shape: list[int], size: int, padding: int = 0) -> bytes:
    header = json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}).encode() + b" " * padding
    return struct.pack("<Q", len(header)) + header + bytes(size)


@pytest.mark.clause("LOAD-13")
@pytest.mark.parametrize(("dtype", "size"), [("F8_E4M3", 1), ("F8_E5M2", 1), ("I8", 1), ("I64", 8), ("BOOL", 1)])
def test_other_element_types_are_refused_with_type_and_tensor(tmp_path: Path, dtype: str, size: int) -> None:
    (tmp_path / SINGLE).write_bytes(raw_file(dtype, [2, 4], 8 * size))
    source = SafetensorsSource(tmp_path)
    assert source.describe("w").type == dtype
    for read in (source.weight, source.vector):
        with pytest.raises(Unsupported, match=f"tensor w is stored as {dtype}; supported are F32, F16, BF16"):
            read("w")


@pytest.mark.clause("LOAD-14")
@given(data=st.data())
def test_a_truncated_or_altered_file_opens_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    content = bytearray(raw_file("F32", [2, 4], 32))
    places = st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.just(len(content)) | places)
    (folder / SINGLE).write_bytes(content[:cut])
    try:
        source = SafetensorsSource(folder)
        for name in source.names():
            source.weight(name)
    except FerrumError as error:
        assert "\n" not in str(error)


@pytest.mark.clause("LOAD-14")
def test_a_truncated_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / SINGLE).write_bytes(raw_file("F32", [2, 4], 32)[:-1])
    with pytest.raises(InvalidFormat, match=r"model\.safetensors is not a valid safetensors file"):
        SafetensorsSource(tmp_path)
