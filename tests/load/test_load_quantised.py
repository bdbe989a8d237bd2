"""Quantised safetensors give the numbers that the programs that write them read, without loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.load import packed
from ferrum.load.conversion import to_float32, type_name
from ferrum.load.model import load_model, open_model
from ferrum.load.quantized import QuantizedSource
from ferrum.load.source import TensorSource
from tests.load.quantised_folders import (
    ELEMENTS,
    Tensors,
    awq_tensors,
    gptq_tensors,
    values,
    write_raw,
)
from tests.load.tiny_models import HIDDEN, tensors

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "quantized.npz")
COMPRESSED = {"quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head"]}


def weights(**keys: Any) -> dict[str, Any]:
    """A group of modules in the configuration of compressed-tensors."""
    return {"group_0": {"targets": ["Linear"], "weights": {"type": "int", "symmetric": True, **keys}}}


MLX4 = {"quantization": {"group_size": 64, "bits": 4}}
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "mlx 4 float16": (".weight", MLX4, "q4_1"),
    "mlx 4 bfloat16": (".weight", {"quantization": {"group_size": 32, "bits": 4, "mode": "affine"}}, "q4_1"),
    "mlx 4 stack": (".weight", {"quantization_config": {"group_size": 128, "bits": 4}}, "q4_1"),
    "mlx 8": (".weight", {"quantization": {**MLX4["quantization"], "m": {"group_size": 64, "bits": 8}}}, "float32"),
    "mlx mxfp4": (".weight", {"quantization": {"group_size": 32, "bits": 4, "mode": "mxfp4"}}, "q8_0"),
    "gpt-oss": ("", {"quantization_config": {"quant_method": "mxfp4"}}, "q8_0"),
    "fp8 blocks": (
        ".weight",
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": [16, 32], "activation_scheme": "dynamic"}},
        "float32",
    ),
    "fp8 matrix": (
        ".weight",
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": None, "activation_scheme": "static"}},
        "float32",
    ),
    "compressed 4": (
        ".weight",
        {"quantization_config": {**COMPRESSED, "config_groups": weights(num_bits=4, group_size=32)}},
        "q4_0",
    ),
    "compressed 8": (
        ".weight",
        {"quantization_config": {**COMPRESSED, "config_groups": weights(num_bits=8, group_size=32)}},
        "q8_0",
    ),
}


def golden_tensors(case: str) -> tuple[Tensors, np.ndarray]:
    """The tensors of module "m", and the matrix that they stand for."""
    found: Tensors = {}
    for key in GOLDENS.files:
        if key.startswith(case + "/") and not key.endswith("/values"):
            _, end, kind = key.split("/")
            found["m" + end] = kind, GOLDENS[key]
    return found, GOLDENS[f"{case}/values"]


def source_of(folder: Path, stored: Tensors, config: dict[str, Any]) -> TensorSource:
    return open_model(write_raw(folder, stored, config)).source


@pytest.mark.clause("LOAD-103", "LOAD-104", "QUANT-20")
@pytest.mark.parametrize("case", CASES)
def test_a_quantised_matrix_means_what_its_own_program_reads(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "PIECE", 300)  # a few rows at a time
    stored, expected = golden_tensors(case)
    end, config, kept = CASES[case]
    source = source_of(tmp_path, stored, config)
    assert list(source.names()) == ["m" + end]
    described = source.describe("m" + end)
    assert described.shape == expected.shape
    assert described.nbytes == sum(array.nbytes for _, array in stored.values())
    stack = source.stack("m" + end) if expected.ndim == 3 else [source.weight("m" + end)]
    assert {type_name(weight) for weight in stack} == {kept}
    assert described.kept_as == kept
    found = np.concatenate([to_float32(weight) for weight in stack])
    # MLX may add in one step what is rounded twice here
    np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=3e-7 if "mlx" in case else 0, atol=1e-9)
    np.testing.assert_array_equal(source.vector("m" + end), found.reshape(expected.shape))


@st.composite
def quantised(draw: st.DrawFn, bits: int = 4, size: int = 32) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws codes [rows, columns], and zeros and scales [rows, groups]."""
    rows, groups = 8 * draw(st.integers(1, 2)), draw(st.integers(1, 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    codes = random.integers(0, 1 << bits, (rows, groups * size))
    zeros = random.integers(0, 1 << bits, (rows, groups))
    if draw(st.booleans()):
        zeros[:] = 1 << bits - 1
    return codes, zeros, random.normal(0, 0.02, (rows, groups)).astype(np.float16).astype(np.float32)


def gptq_config(bits: int = 4, size: int = 32, **keys: Any) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": "gptq", "bits": bits, "group_size": size, **keys}}


AWQ = {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}}


@pytest.mark.clause("LOAD-104", "QUANT-20")
@given(numbers=quantised())
def test_awq_keeps_four_bits_and_the_zeros(tmp_path_factory: pytest.TempPathFactory, numbers: Any) -> None:
    codes, zeros, scales = numbers
    source = source_of(tmp_path_factory.mktemp("awq"), awq_tensors("m", codes, zeros, scales), AWQ)
    weight = source.weight("m.weight")
    places = np.arange(codes.shape[1]) // 32
    np.testing.assert_array_equal(to_float32(weight), values(codes, zeros, scales, places))
    assert type_name(weight) == source.describe("m.weight").kept_as == "q8_0"


@pytest.mark.clause("LOAD-104", "QUANT-20")
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("version", [1, 2])
@given(data=st.data())
def test_gptq_in_either_version(
    tmp_path_factory: pytest.TempPathFactory, bits: int, version: int, data: st.DataObject
) -> None:
    codes, zeros, scales = data.draw(quantised(bits))
    is_symmetric = bool((zeros == 1 << bits - 1).all())
    stored = gptq_tensors("m", codes, zeros, scales, bits, version)
    config = gptq_config(bits, sym=is_symmetric, checkpoint_format="gptq" if version == 1 else "gptq_v2")
    source = source_of(tmp_path_factory.mktemp("gptq"), stored, config)
    weight = source.weight("m.weight")
    places = np.arange(codes.shape[1]) // 32
    np.testing.assert_array_equal(to_float32(weight), values(codes, zeros, scales, places))
    differences = codes - zeros[:, places]
    fits = differences.min() >= -128 and differences.max() <= 127
    assert type_name(weight) == ("q4_0" if bits == 4 and is_symmetric else "q8_0" if fits else "float32")


@pytest.mark.clause("LOAD-104", "QUANT-20")
@given(numbers=quantised(), seed=st.integers(0, 2**32 - 1))
def test_gptq_in_the_order_of_activations(tmp_path_factory: pytest.TempPathFactory, numbers: Any, seed: int) -> None:
    codes, zeros, scales = numbers
    places = np.random.default_rng(seed).permutation(np.arange(codes.shape[1]) // 32)
    places[0] = zeros.shape[1] - 1
    stored = gptq_tensors("m", codes, zeros, scales, places=places)
    source = source_of(tmp_path_factory.mktemp("gptq"), stored, gptq_config(desc_act=True, sym=True))
    weight = source.weight("m.weight")
    np.testing.assert_array_equal(to_float32(weight), values(codes, zeros, scales, places))
    is_plain = np.array_equal(places, np.arange(codes.shape[1]) // 32)
    assert type_name(weight) == "float32" or is_plain
    assert (source.describe("m.weight").kept_as == "float32") != is_plain


@pytest.mark.clause("LOAD-104")
@pytest.mark.parametrize("size", [48, -1, 96, 80])
def test_groups_of_any_size_lose_nothing(tmp_path: Path, size: int) -> None:
    columns = 96
    groups = 1 if size == -1 else -(-columns // size)
    random = np.random.default_rng(size + 1)
    codes, zeros = random.integers(0, 16, (8, columns)), random.integers(0, 16, (8, groups))
    scales = random.normal(0, 0.02, (8, groups)).astype(np.float16).astype(np.float32)
    places = np.arange(columns) // (columns if size == -1 else size)
    for stored, config in (
        (awq_tensors("m", codes, zeros, scales), {**AWQ["quantization_config"], "group_size": size}),
        (gptq_tensors("m", codes, zeros, scales), gptq_config(size=size)["quantization_config"]),
    ):
        weight = source_of(tmp_path, stored, {"quantization_config": config}).weight("m.weight")
        np.testing.assert_array_equal(to_float32(weight), values(codes, zeros, scales, places))
        assert type_name(weight) == ("q8_0" if size in (-1, 96) else "float32")


SCALES = {"matrix": (), "one": (1,), "row": (6, 1), "rows": (6,), "blocks": (2, 3)}


@pytest.mark.clause("LOAD-104", "QUANT-20")
@pytest.mark.parametrize("shape", SCALES)
@pytest.mark.parametrize("power", [True, False])
@pytest.mark.parametrize("end", ["_scale", "_scale_inv"])
def test_fp8_by_matrix_row_and_block(tmp_path: Path, shape: str, power: bool, end: str) -> None:
    """The shape of the scales tells what they scale; products with powers of two fit into bfloat16."""
    random = np.random.default_rng(3)
    codes = random.integers(0, 256, (6, 80)).astype(np.uint8)
    codes[codes & 127 == 127] = 0  # no numbers
    exponents = random.integers(110, 130, SCALES[shape]).astype(np.uint8)
    numbers = np.exp2(exponents.astype(np.float32) - 127) * np.float32(1 if power else 1.1)
    expected = np.zeros((6, 80), np.float32)
    for row in range(6):
        for column in range(80):
            code = int(codes[row, column])
            exponent, mantissa = code >> 3 & 15, code & 7
            number = (8 + mantissa) * 2.0 ** (exponent - 10) if exponent else mantissa * 2.0**-9
            place = {"matrix": (), "one": (0,), "row": (row, 0), "rows": (row,)}.get(shape, (row // 4, column // 32))
            expected[row, column] = np.float32(-number if code >> 7 else number) * numbers[place]
    scale: tuple[str, np.ndarray] = ("F8_E8M0", exponents) if power else ("F32", numbers)
    method = {"quant_method": "fp8", "weight_block_size": [4, 32]}
    stored: Tensors = {
        "m.weight": ("F8_E4M3", codes),
        f"m.weight{end}": scale,
        "m.input_scale": ("F32", np.ones(1, np.float32)),
    }
    source = source_of(tmp_path, stored, {"quantization_config": method})
    assert list(source.names()) == ["m.weight"]
    weight = source.weight("m.weight")
    np.testing.assert_array_equal(to_float32(weight), expected)
    assert type_name(weight) == source.describe("m.weight").kept_as == ("bfloat16" if power else "float32")


@pytest.mark.clause("LOAD-104")
def test_fp8_by_blocks_of_compressed_tensors(tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    codes, numbers = random.integers(0, 100, (6, 80)).astype(np.uint8), random.uniform(0.5, 2, (2, 3))
    groups = weights(num_bits=8, type="float", strategy="block", block_structure=[4, 32])
    method = {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": groups}
    scales = numbers.astype(np.float32)
    stored: Tensors = {"m.weight": ("F8_E4M3", codes), "m.weight_scale": ("F32", scales)}
    weight = source_of(tmp_path, stored, {"quantization_config": method}).weight("m.weight")
    wide = scales.repeat(4, axis=0)[:6].repeat(32, axis=1)[:, :80]
    np.testing.assert_array_equal(to_float32(weight), codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32) * wide)


@pytest.mark.clause("LOAD-104")
@pytest.mark.parametrize("shape", [(3, 1, 1), (3,), (3, 8, 1), (3, 2, 2), (1,), (1, 1)])
def test_a_stack_of_fp8(tmp_path: Path, shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(4)
    codes = random.integers(0, 100, (3, 8, 64)).astype(np.uint8)
    numbers = random.uniform(0.5, 2, shape).astype(np.float32)
    method = {"quant_method": "fp8", "weight_block_size": [4, 32]}
    stored: Tensors = {"experts.up": ("F8_E4M3", codes), "experts.up_scale_inv": ("F32", numbers)}
    source = source_of(tmp_path, stored, {"quantization_config": method})
    plain = codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    wide = numbers.reshape(*shape, *[1] * (3 - len(shape))) if shape != (1,) else numbers.reshape(1, 1, 1)
    if shape == (3, 2, 2):
        wide = wide.repeat(4, axis=1).repeat(32, axis=2)
    for found, expected in zip(source.stack("experts.up"), plain * wide, strict=True):
        np.testing.assert_array_equal(to_float32(found), expected)


@pytest.mark.clause("LOAD-104", "QUANT-20")
@pytest.mark.parametrize("by", ["row", "group"])
def test_int8_by_row_and_group(tmp_path: Path, by: str) -> None:
    random = np.random.default_rng(5)
    codes = random.integers(-128, 128, (6, 64)).astype(np.int8)
    scales = random.normal(0, 0.02, (6, 1 if by == "row" else 2)).astype(ELEMENTS["BF16"])
    size = {} if by == "row" else {"group_size": 32}
    groups = weights(num_bits=8, **size)
    method = {"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": groups}
    stored: Tensors = {"m.weight": ("I8", codes), "m.weight_scale": ("BF16", scales)}
    weight = source_of(tmp_path, stored, {"quantization_config": method}).weight("m.weight")
    np.testing.assert_array_equal(
        to_float32(weight), codes * scales.astype(np.float32).repeat(64 // scales.shape[1], axis=1)
    )
    assert type_name(weight) == "q8_0"


def quantise(array: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random codes for a matrix of this shape, in groups of 32."""
    random = np.random.default_rng(array.size)
    rows, groups = array.shape[0], array.shape[1] // 32
    scales = random.uniform(0.01, 0.03, (rows, groups)).astype(np.float16).astype(np.float32)
    return random.integers(0, 16, array.shape), random.integers(6, 10, (rows, groups)), scales


@pytest.mark.clause("LOAD-103")
@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_a_model_whose_linears_are_quantised_is_that_of_their_numbers(tmp_path: Path, method: str) -> None:
    plain = tensors()
    stored: Tensors = {}
    for name, array in plain.items():
        stem = name.removesuffix(".weight")
        if ".q_proj" in name or ".down_proj" in name:
            numbers = quantise(array)
            stored |= awq_tensors(stem, *numbers) if method == "awq" else gptq_tensors(stem, *numbers)
            plain[name] = values(*numbers, np.arange(array.shape[1]) // 32)
        else:
            stored[name] = "F32", array
    config = AWQ if method == "awq" else gptq_config()
    loaded = load_model(write_raw(tmp_path / "quantised", stored, config))
    whole = load_model(write_raw(tmp_path / "plain", {name: ("F32", array) for name, array in plain.items()}, {}))
    assert isinstance(loaded.files.source, QuantizedSource)
    for found, expected in zip(loaded.params.weights(), whole.params.weights(), strict=True):
        np.testing.assert_array_equal(to_float32(found), to_float32(expected))
    assert sorted({type_name(weight) for weight in loaded.params.weights()}) == ["float32", "q8_0"]
    assert loaded.config == whole.config and loaded.config.hidden_size == HIDDEN


@pytest.mark.clause("LOAD-103")
def test_what_a_directory_leaves_plain_stays_so(tmp_path: Path) -> None:
    stored: Tensors = {name: ("F32", array) for name, array in tensors().items()}
    loaded = load_model(write_raw(tmp_path, stored, AWQ))
    assert {type_name(weight) for weight in loaded.params.weights()} == {"float32"}
