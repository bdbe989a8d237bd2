"""Block formats read: equal to ggml's own reading, bit for bit."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.errors import ModelError, Unsupported
from ferrum.load import quants
from ferrum.load.conversion import type_name
from ferrum.load.ggml import GGML_TYPES, GgmlType
from ferrum.load.gguf import GGUFTensor
from ferrum.load.quants import READERS, decode_blocks, floats_of, kept_as, weight_of
from ferrum.load.scaled import keep
from ferrum.tensor.k_quants import Q4_K, Q5_K, Q6_K
from ferrum.tensor.weights import Q4_0, Q4_1, Q8_0, Dense, Weight

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "quants.npz")
KINDS: dict[str, GgmlType] = {kind.name: kind for kind in GGML_TYPES.values()}
COMPUTED = {"Q8_0": Q8_0, "Q4_0": Q4_0, "Q4_1": Q4_1, "Q4_K": Q4_K, "Q5_K": Q5_K, "Q6_K": Q6_K}


def tensor(kind: str, data: np.ndarray) -> GGUFTensor:
    """A matrix of a block type."""
    columns = data.shape[1] // KINDS[kind].block_bytes * KINDS[kind].block_size
    return GGUFTensor("t", KINDS[kind], (len(data), columns), data)


def dequantize(weight: Weight) -> np.ndarray:
    """The definition: what `Weight.dequantize` makes of it on the oracle."""
    with np.errstate(invalid="ignore"):
        return np.asarray(weight.dequantize(NumpyOps(), weight.data))


def same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal to the last bit, the sign of zero included; any NaN equals any other."""
    assert found.dtype == expected.dtype == np.float32
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), nan)
    np.testing.assert_array_equal(np.where(nan, 0, found).view(np.int32), np.where(nan, 0, expected).view(np.int32))


@pytest.mark.clause("QUANT-01")
@pytest.mark.parametrize("kind", READERS)
def test_blocks_decode_to_the_bits_that_ggml_decodes(kind: str) -> None:
    same_bits(decode_blocks(GOLDENS[f"{kind}_blocks"], KINDS[kind]), GOLDENS[f"{kind}_values"])


@pytest.mark.clause("QUANT-01")
@pytest.mark.parametrize("kind", READERS)
def test_rows_decode_alike_in_pieces_of_any_size(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quants, "CHUNK_BYTES", 3 * KINDS[kind].block_bytes)
    same_bits(decode_blocks(GOLDENS[f"{kind}_blocks"], KINDS[kind]), GOLDENS[f"{kind}_values"])


@pytest.mark.clause("QUANT-02")
@pytest.mark.parametrize("kind", READERS)
def test_the_weight_dequantizes_to_the_same_numbers(kind: str) -> None:
    weight = weight_of(tensor(kind, GOLDENS[f"{kind}_blocks"]))
    assert weight.shape == GOLDENS[f"{kind}_values"].shape
    same_bits(dequantize(weight), GOLDENS[f"{kind}_values"])


@st.composite
def any_blocks(draw: st.DrawFn, kind: str) -> np.ndarray:
    """uint8 [rows, bytes]: any bytes whatever"""
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 2)) * KINDS[kind].block_bytes)
    return draw(hnp.arrays(np.uint8, shape))


@pytest.mark.clause("QUANT-02")
@pytest.mark.parametrize("kind", COMPUTED)
@given(data=st.data())
def test_decoder_and_definition_agree_on_any_bytes(kind: str, data: st.DataObject) -> None:
    stored = tensor(kind, data.draw(any_blocks(kind)))
    same_bits(dequantize(weight_of(stored)), floats_of(stored))


@pytest.mark.clause("QUANT-03")
@pytest.mark.parametrize("kind", COMPUTED)
def test_formats_that_backends_compute_with_are_not_copied(kind: str) -> None:
    data = GOLDENS[f"{kind}_blocks"]
    weight = weight_of(tensor(kind, data))
    assert type(weight) is COMPUTED[kind]
    assert weight.data is data


@pytest.mark.clause("QUANT-03")
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_plain_numbers_are_not_copied(dtype: type) -> None:
    data = np.arange(12).reshape(3, 4).astype(dtype)
    name = {np.float32: "F32", np.float16: "F16"}.get(dtype, "BF16")
    stored = GGUFTensor("t", KINDS[name], data.shape, data)
    weight = weight_of(stored)
    assert isinstance(weight, Dense) and weight.data is data
    same_bits(floats_of(stored), data.astype(np.float32))


@pytest.mark.clause("QUANT-04", "QUANT-07")
@pytest.mark.parametrize("kind", sorted(READERS.keys() - COMPUTED))
@given(data=st.data())
def test_what_has_no_kernel_is_kept_without_loss(kind: str, data: st.DataObject) -> None:
    stored = tensor(kind, data.draw(any_blocks(kind)))
    weight = weight_of(stored)
    same_bits(dequantize(weight), floats_of(stored))
    assert type_name(weight) in (kept_as(kind), "float32")


BY_SIZE = ("q4_0", "q4_1", "q6_k", "q8_0", "float16", "bfloat16")


@pytest.mark.clause("QUANT-07")
@pytest.mark.parametrize("kind", sorted(READERS.keys() - COMPUTED))
def test_no_smaller_type_would_hold_the_same_numbers(kind: str) -> None:
    """Ordinary scales, which float16 holds also when they are divided by 8."""
    data = GOLDENS[f"{kind}_blocks"][4:]
    stored = tensor(kind, data)
    columns = stored.shape[-1]
    smallest = keep(lambda: [READERS[kind](data.reshape(-1, KINDS[kind].block_bytes))], (len(data), columns), BY_SIZE)
    assert type_name(weight_of(stored)) == type_name(smallest) == kept_as(kind)


@pytest.mark.clause("QUANT-07")
@pytest.mark.parametrize(
    ("kind", "place", "scale"),
    [("MXFP4", 0, b"\x67"), ("MXFP4", 0, b"\x90"), ("IQ1_S", 0, b"\x01\x02"), ("IQ3_XXS", 0, b"\x01\x00")],
)
def test_one_scale_beyond_float16_makes_the_matrix_float32(kind: str, place: int, scale: bytes) -> None:
    data = np.concatenate([GOLDENS[f"{kind}_blocks"][4:]] * 2)
    data[:, place : place + len(scale)] = list({"MXFP4": b"\x68"}.get(kind, b"\x00\x2c"))
    for start in range(0, data.shape[1], KINDS[kind].block_bytes):
        data[:, start : start + len(scale)] = data[:, : len(scale)]
    assert type_name(weight_of(tensor(kind, data))) == kept_as(kind)
    data[-1, -KINDS[kind].block_bytes :][: len(scale)] = list(scale)
    stored = tensor(kind, data)
    assert type_name(weight_of(stored)) == "float32"
    same_bits(dequantize(weight_of(stored)), floats_of(stored))


@pytest.mark.clause("QUANT-09")
def test_float64_is_rounded_and_never_to_infinity() -> None:
    values = np.array([[1 / 3, -1e-50], [np.inf, np.nan]])
    stored = GGUFTensor("t", KINDS["F64"], (2, 2), values)
    same_bits(dequantize(weight_of(stored)), values.astype(np.float32))
    with pytest.raises(ModelError, match="tensor t holds numbers that float32 cannot store"):
        floats_of(GGUFTensor("t", KINDS["F64"], (2, 2), values * 1e39 + 1e39))


@pytest.mark.clause("QUANT-05")
@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(READERS) - {"F32", "F16", "BF16", "F64"}))
def test_other_types_are_refused_with_type_and_tensor(kind: str) -> None:
    stored = GGUFTensor("blk.0.ffn_up.weight", KINDS[kind], (1, 256), np.zeros((1, 256), np.uint8))
    for read in (weight_of, floats_of):
        with pytest.raises(Unsupported, match=rf"blk\.0\.ffn_up\.weight is stored as {kind};"):
            read(stored)
