"""The GGUF reader: what was written is read, and what is broken is an error of one sentence."""

from __future__ import annotations

import gc
import os
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.errors import FerrumError, InvalidFormat, ModelError, NotFound, Unsupported
from ferrum.load.conversion import type_name
from ferrum.load.gguf import GGUFFile, Strings
from ferrum.load.model import load_model
from ferrum.load.quants import floats_of, weight_of
from ferrum.load.source import GGUFSource
from tests.load.gguf_writer import GGML, LETTERS, TYPES, Stored, Value, gguf_bytes, string
from tests.load.tiny_models import METADATA, gguf_tensors, tensors

SCALARS = {name: code for name, code in TYPES.items() if code in LETTERS and name != "bool"}
RANGES = {name: (np.iinfo(name).min, np.iinfo(name).max) for name in SCALARS if "int" in name}
NAMES = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2000, categories=["L", "N", "P"]), min_size=1, max_size=12
)


def scalars(kind: str) -> st.SearchStrategy[Any]:
    """Draws values of this type of GGUF metadata."""
    if kind == "bool":
        return st.booleans()
    if kind == "string":
        return st.text(max_size=20)
    if kind in RANGES:
        return st.integers(*RANGES[kind])
    return st.floats(width=32 if kind == "float32" else 64, allow_nan=False)


def values() -> st.SearchStrategy[Value]:
    """Draws metadata values: scalars, arrays, and arrays of arrays."""
    kinds = st.sampled_from([*SCALARS, "bool", "string"])
    plain = kinds.flatmap(lambda kind: scalars(kind).map(lambda v: Value(kind, v)))
    array = kinds.flatmap(lambda kind: st.lists(scalars(kind), max_size=5).map(lambda v: Value("array", v, kind)))
    nested = st.lists(array, max_size=3).map(lambda v: Value("array", v, "array"))
    return plain | array | nested


def as_python(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [as_python(item) for item in value] if isinstance(value, (Strings, list)) else value


def expected(value: Value) -> Any:
    return (
        [expected(item) if isinstance(item, Value) else item for item in value.value]
        if value.kind == "array"
        else value.value
    )


def read(folder: Path, data: bytes) -> GGUFFile:
    path = folder / "model.gguf"
    path.write_bytes(data)
    return GGUFFile(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf")


@pytest.mark.clause("LOAD-01", "LOAD-05")
@given(metadata=st.dictionaries(NAMES, values(), max_size=6), version=st.sampled_from([2, 3]))
def test_metadata_comes_back_as_written(folder: Path, metadata: dict[str, Value], version: int) -> None:
    file = read(folder, gguf_bytes(metadata, version=version))
    assert file.version == version
    assert {key: as_python(value) for key, value in file.metadata.items()} == {
        k: expected(v) for k, v in metadata.items()
    }


@pytest.mark.clause("LOAD-01")
def test_a_truth_value_is_any_byte_but_zero(tmp_path: Path) -> None:
    values = read(tmp_path, one_value(9, struct.pack("<IQ3B", 7, 3, 0, 1, 2))).metadata["key"]
    assert values.dtype == bool and values.tolist() == [False, True, True]


@st.composite
def stored(draw: st.DrawFn) -> Stored:
    """Draws a tensor of random bytes."""
    kind = draw(st.sampled_from(["F32", "F16", "BF16", "Q4_0", "Q8_0"]))
    block, size = {"F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "Q4_0": (32, 18), "Q8_0": (32, 34)}[kind]
    shape = (*draw(st.lists(st.integers(1, 3), max_size=3)), block * draw(st.integers(1, 3)))
    count = int(np.prod(shape)) // block * size
    return Stored(kind, shape, draw(st.binary(min_size=count, max_size=count)))


@pytest.mark.clause("LOAD-01", "LOAD-07")
@given(tensors=st.dictionaries(NAMES, stored(), max_size=5), alignment=st.sampled_from([8, 32, 64]))
def test_tensors_come_back_as_written(folder: Path, tensors: dict[str, Stored], alignment: int) -> None:
    file = read(folder, gguf_bytes({"general.alignment": alignment}, tensors, alignment=alignment))
    assert list(file.tensors) == list(tensors)
    for name, tensor in tensors.items():
        found = file.tensors[name]
        assert (found.name, found.type.name, found.shape) == (name, tensor.kind, tensor.shape)
        assert found.data.tobytes() == tensor.data
        rows = int(np.prod(tensor.shape[:-1]))
        plain = tensor.kind in ("F32", "F16", "BF16")
        assert found.data.shape == (tensor.shape if plain else (rows, len(tensor.data) // rows))


@pytest.mark.clause("LOAD-02")
def test_tensor_data_is_a_readonly_view_of_its_type_that_outlives_the_file(tmp_path: Path) -> None:
    values = np.arange(64, dtype=np.float32)
    half = Stored("BF16", (64,), values.astype(ml_dtypes.bfloat16).tobytes())
    file = read(tmp_path, gguf_bytes({}, {"a": Stored.float32(values), "b": half}))
    data, bfloat = file.tensors["a"].data, file.tensors["b"].data
    assert not data.flags.owndata and not data.flags.writeable
    assert bfloat.dtype == ml_dtypes.bfloat16
    del file
    gc.collect()
    np.testing.assert_array_equal(data, values)
    np.testing.assert_array_equal(bfloat.astype(np.float32), values)


@pytest.mark.clause("LOAD-03")
def test_strings_are_decoded_only_when_asked_for(tmp_path: Path) -> None:
    raw = [b"one", b"\xff\xfe", "drei ✓".encode()]
    strings = read(tmp_path, gguf_bytes({"words": Value("array", raw, "string")})).metadata["words"]
    assert (len(strings), strings[0], strings[-1], strings[2:]) == (3, "one", "drei ✓", ["drei ✓"])
    with pytest.raises(InvalidFormat, match="not UTF-8"):
        list(strings)
    with pytest.raises(IndexError):
        strings[3]
    assert repr(strings) == "a list of 3 texts"  # as messages show a value


@pytest.mark.clause("LOAD-03")
def test_the_real_file_opens_in_milliseconds(smollm2_path: Path) -> None:
    def seconds() -> float:
        start = time.perf_counter()
        GGUFFile(smollm2_path)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.1  # 10 ms on a quiet machine; decoding the vocabulary takes longer
    file = GGUFFile(smollm2_path)
    assert len(file.metadata["tokenizer.ggml.tokens"]) == file.tensors["token_embd.weight"].shape[0] == 49152


@pytest.mark.clause("LOAD-05")
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (gguf_bytes({}, version=1), "version 1"),
        (gguf_bytes({}, version=4), "version 4"),
        (gguf_bytes({}, byte_order=">"), "big-endian"),
        (gguf_bytes({}, version=2, byte_order=">"), "big-endian"),
    ],
)
def test_other_versions_are_refused_by_name(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(Unsupported, match=says):
        read(tmp_path, data)


def entry(name: bytes, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kind, offset)


def one_tensor(table: bytes, data: bytes = bytes(4096), count: int = 1) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, count, 0) + table
    return head + bytes(-len(head) % 32) + data


def one_value(kind: int, rest: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("key") + struct.pack("<I", kind) + rest


BROKEN = {
    "empty": (b"", "empty"),
    "magic": (b"GGML" + bytes(40), "does not start with the letters GGUF"),
    "header": (b"GGUF\x03\x00", "ends inside the header"),
    "metadata count": (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63), "the metadata claims"),
    "tensor count": (b"GGUF" + struct.pack("<IQQ", 3, 2**61, 0), "the tensor table claims"),
    "string length": (one_value(8, struct.pack("<Q", 2**64 - 1)), "ends inside metadata key"),
    "array length": (one_value(9, struct.pack("<IQ", 4, 2**62)), "ends inside metadata key"),
    "array of strings": (one_value(9, struct.pack("<IQ", 8, 2**62)), "claims"),
    "a string in an array": (one_value(9, struct.pack("<IQQQ", 8, 2, 2**63, 0)), "ends inside metadata key"),
    "a long string in an array": (one_value(9, struct.pack("<IQQQ", 8, 2, 10**6, 0)), "ends inside metadata key"),
    "the last string": (one_value(9, struct.pack("<IQQ", 8, 1, 9)), "ends inside metadata key"),
    "array of arrays": (one_value(9, struct.pack("<IQ", 9, 2**40)), "claims"),
    "nesting": (one_value(9, struct.pack("<IQ", 9, 1) * 40), "nests arrays"),
    "value type": (one_value(13, bytes(8)), "unknown type 13"),
    "element type": (one_value(9, struct.pack("<IQ", 77, 0)), "unknown type 77"),
    "key twice": (gguf_bytes([("key", 1), ("key", 2)]), "key appears twice"),
    "tensor twice": (gguf_bytes([], [("t", Stored.float32(np.ones(8)))] * 2), "tensor t appears twice"),
    "alignment zero": (gguf_bytes({"general.alignment": 0}), "general.alignment"),
    "alignment odd": (gguf_bytes({"general.alignment": 24}), "general.alignment"),
    "alignment text": (gguf_bytes({"general.alignment": "32"}), "general.alignment"),
    "no dimensions": (one_tensor(entry(b"t", (), 0, 0)), "0 dimensions"),
    "many dimensions": (one_tensor(entry(b"t", (1,) * 5, 0, 0)), "5 dimensions"),
    "no elements": (one_tensor(entry(b"t", (0, 4), 0, 0)), "shape"),
    "half a block": (one_tensor(entry(b"t", (4, 40), 8, 0)), "Q8_0 cannot store"),
    "offset": (one_tensor(entry(b"t", (4, 4), 0, 8)), "not aligned"),
    "far offset": (one_tensor(entry(b"t", (4, 4), 0, 2**64 - 32)), "ends inside the data of tensor t"),
    "huge": (one_tensor(entry(b"t", (2**40, 2**40), 0, 0)), "ends inside the data of tensor t"),
    "overflow": (one_tensor(entry(b"t", (2**63, 2**63, 2), 0, 0)), "ends inside the data of tensor t"),
    "short by a byte": (one_tensor(entry(b"t", (4, 4), 0, 0), bytes(63)), "ends inside the data of tensor t"),
    "name": (one_tensor(entry(b"a\nb", (4,), 0, 0)), "not printable"),
    "name without end": (one_tensor(entry(b"n" * 65, (4,), 0, 0)), "longer than 64 bytes"),
    "name not UTF-8": (one_tensor(entry(b"\xff", (4,), 0, 0)), "not UTF-8"),
}  # fmt: skip


@pytest.mark.clause("LOAD-04", "LOAD-06", "LOAD-07")
@pytest.mark.parametrize("case", BROKEN)
def test_each_broken_file_is_an_error_that_names_the_file_and_what(tmp_path: Path, case: str) -> None:
    data, says = BROKEN[case]
    with pytest.raises(InvalidFormat, match=says) as caught:
        read(tmp_path, data)
    assert "model.gguf" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.clause("LOAD-07")
def test_data_begins_at_the_next_multiple_of_the_alignment(tmp_path: Path) -> None:
    exact = one_tensor(entry(b"t", (4, 4), 0, 0), bytes(64))
    assert read(tmp_path, exact).tensors["t"].data.shape == (4, 4)


@pytest.mark.clause("LOAD-04")
def test_a_missing_file_and_a_directory_are_errors(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        GGUFFile(tmp_path / "none.gguf")
    with pytest.raises(InvalidFormat, match="is not a regular file"):
        GGUFFile(tmp_path)


@pytest.mark.clause("LOAD-07")
@pytest.mark.parametrize("offsets", [(0, 0), (0, 32), (32, 0), (64, 64), (0, 1024 - 32)])
def test_two_tensors_share_no_byte(tmp_path: Path, offsets: tuple[int, int]) -> None:
    table = b"".join(entry(name, (16, 16), 0, offset) for name, offset in zip((b"a", b"b"), offsets, strict=True))
    with pytest.raises(InvalidFormat, match=r"tensor [ab] shares bytes with another"):
        read(tmp_path, one_tensor(table, count=2))


@pytest.mark.clause("LOAD-07")
@pytest.mark.parametrize("offsets", [(0, 1024), (1024, 0), (0, 2048)])
def test_tensors_may_lie_in_any_order_and_apart(tmp_path: Path, offsets: tuple[int, int]) -> None:
    table = b"".join(entry(name, (16, 16), 0, offset) for name, offset in zip((b"a", b"b"), offsets, strict=True))
    assert list(read(tmp_path, one_tensor(table, count=2)).tensors) == ["a", "b"]


@pytest.mark.clause("LOAD-100")
@pytest.mark.parametrize(("kind", "kept"), [("F32", "float32"), ("Q8_0", "q8_0"), ("Q3_K", "q6_k"), ("MXFP4", "q8_0")])
def test_a_stack_is_a_list_of_matrices(tmp_path: Path, kind: str, kept: str) -> None:
    size = {"F32": 4 * 256, "Q8_0": 8 * 34, "Q3_K": 110, "MXFP4": 8 * 17}[kind]
    data = np.random.default_rng(0).integers(0, 120, (6, size), np.uint8)  # finite numbers, exponents around 2 ** -8
    if kind == "MXFP4":
        data[:, ::17] |= 112
    shaped = {"stack": Stored(kind, (3, 2, 256), data.tobytes()), "matrix": Stored(kind, (6, 256), data.tobytes())}
    source = GGUFSource(read(tmp_path, gguf_bytes({}, shaped)))
    stack, whole = source.stack("stack"), source.weight("matrix")
    assert [(type_name(weight), weight.shape) for weight in stack] == [(kept, (2, 256))] * 3
    for number, weight in enumerate(stack):
        np.testing.assert_array_equal(weight.data, whole.data[2 * number : 2 * number + 2])
        assert not weight.data.flags.owndata and (kind in ("Q3_K", "MXFP4") or not weight.data.flags.writeable)
    np.testing.assert_array_equal(source.vector("stack"), source.vector("matrix").reshape(3, 2, 256))


@pytest.mark.clause("LOAD-100")
def test_what_has_two_dimensions_is_no_stack(tmp_path: Path) -> None:
    source = GGUFSource(read(tmp_path, gguf_bytes({}, {"t": Stored.float32(np.ones((2, 4), np.float32))})))
    with pytest.raises(ModelError, match=r"tensor t has shape \[2, 4\], and is no stack of matrices"):
        source.stack("t")


@pytest.mark.clause("LOAD-08")
def test_an_unknown_type_is_refused_with_its_number_and_tensor(tmp_path: Path) -> None:
    huge = read(tmp_path, one_tensor(entry(b"t", (2**40, 2**40, 4), 4242, 0))).tensors["t"]
    assert (huge.shape, huge.data.size) == ((2**40, 2**40, 4), 0)
    file = read(tmp_path, one_tensor(entry(b"t", (4, 4), 4242, 0)))
    assert file.tensors["t"].shape == (4, 4)
    for use in (weight_of, floats_of):
        with pytest.raises(Unsupported, match="tensor t is stored as the unknown type 4242; supported are F32"):
            use(file.tensors["t"])


@pytest.fixture(scope="module")
def small_model() -> bytes:
    """A whole tiny model with every kind of metadata."""
    arrays = gguf_tensors(tensors())
    stored = {name: Stored.float32(array) for name, array in arrays.items()}
    stored["blk.0.ffn_up.weight"] = Stored("Q8_0", arrays["blk.0.ffn_up.weight"].shape, bytes(96 * 68))
    extra = {"tokenizer.ggml.tokens": ["a", "b"], "numbers": Value("array", [1, 2], "int64"),
             "nested": Value("array", [Value("array", ["x"], "string")], "array")}  # fmt: skip
    return gguf_bytes({**METADATA, **extra}, stored)


def load_everything(path: Path) -> None:
    """Reads all parts of a file. An error that is no FerrumError is a defect."""
    try:
        for value in GGUFFile(path).metadata.values():
            as_python(value)
        load_model(path, "float32")
    except FerrumError as error:
        assert "\n" not in str(error)


HEADER_BYTES = 2400  # metadata and tensor table of the small model: where a wrong byte means most


@pytest.mark.clause("LOAD-04")
@given(data=st.data())
def test_a_truncated_or_altered_file_loads_or_is_refused(folder: Path, small_model: bytes, data: st.DataObject) -> None:
    content = bytearray(small_model)
    places = st.integers(0, HEADER_BYTES) | st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, max_size=4), label="altered"):
        wide = data.draw(st.binary(min_size=1, max_size=8), label="bytes")
        content[place : place + len(wide)] = wide
    size = data.draw(st.just(len(content)) | places, label="size")
    path = folder / "altered.gguf"
    path.write_bytes(content[:size])
    tracemalloc.start()
    load_everything(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * len(small_model) + (1 << 20)


@pytest.mark.clause("LOAD-04")
def test_a_file_cut_anywhere_is_refused(folder: Path, small_model: bytes) -> None:
    path = folder / "cut.gguf"
    path.write_bytes(small_model)
    for size in [*range(len(small_model) - 32, HEADER_BYTES, -1000), *range(HEADER_BYTES, -1, -1)]:
        os.truncate(path, size)
        with pytest.raises(FerrumError):
            GGUFFile(path)


@pytest.mark.clause("LOAD-01")
def test_every_type_number_of_the_writer_is_known(tmp_path: Path) -> None:
    for kind, number in GGML.items():
        file = read(tmp_path, one_tensor(entry(b"t", (2, 256), number, 0)))
        assert file.tensors["t"].type.name == kind
