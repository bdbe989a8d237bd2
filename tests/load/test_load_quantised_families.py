"""Quantised files of families whose parts share tensors, or whose experts are one: the model of their numbers."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferrum.load.conversion import to_float32, type_name
from ferrum.load.gguf import GGUFFile
from ferrum.load.model import load_model
from ferrum.load.quants import floats_of
from ferrum.load.source import GGUFSource
from tests.load.gguf_writer import Stored, gguf_bytes
from tests.load.quantised_folders import Tensors, gptq_tensors, values, write_raw
from tests.load.test_load_quantised import gptq_config
from tests.model.families import FAMILIES

TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def write_family(folder: Path, name: str, stored: Tensors, config: dict[str, Any]) -> Path:
    """The golden of a family with other tensors."""
    write_raw(folder, stored, {})
    (folder / "config.json").write_text(json.dumps({**FAMILIES[name].config, **config}))
    return folder


def plain(name: str) -> Tensors:
    return {tensor: (TYPES[str(array.dtype)], array) for tensor, array in FAMILIES[name].weights().items()}


@pytest.mark.clause("LOAD-103", "LOAD-104")
def test_experts_in_mxfp4_are_those_of_the_same_numbers(tmp_path: Path) -> None:
    """gpt-oss: rows make outputs in MXFP4, and columns do in plain numbers."""
    random = np.random.default_rng(0)
    packed, whole = plain("gpt-oss-wide"), plain("gpt-oss-wide")
    numbers = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
    for name in [name for name in packed if name.endswith(("experts.gate_up_proj", "down_proj"))]:
        experts, columns, rows = packed.pop(name)[1].shape
        codes = random.integers(0, 16, (experts, rows, columns))
        exponents = random.integers(118, 124, (experts, rows, columns // 32)).astype(np.uint8)
        pairs = (codes[..., ::2] | codes[..., 1::2] << 4).astype(np.uint8)
        packed[f"{name}_blocks"] = "U8", pairs.reshape(experts, rows, columns // 32, 16)
        packed[f"{name}_scales"] = "U8", exponents
        scales = np.exp2(exponents.astype(np.float32) - 127).repeat(32, axis=2)
        whole[name] = "F32", np.ascontiguousarray((numbers[codes] * scales).swapaxes(1, 2))
    method = {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}}
    found = load_model(write_family(tmp_path / "packed", "gpt-oss-wide", packed, method)).params
    expected = load_model(write_family(tmp_path / "whole", "gpt-oss-wide", whole, {})).params
    kinds = set()
    for one, other in zip(found.weights(), expected.weights(), strict=True):
        np.testing.assert_array_equal(to_float32(one), to_float32(other))
        kinds.add(type_name(one))
    assert "q8_0" in kinds


@pytest.mark.clause("LOAD-103", "LOAD-107")
def test_parts_that_share_a_quantised_tensor_share_its_memory(tmp_path: Path) -> None:
    """Phi-3: queries, keys and values are one tensor, gates and ups another."""
    random = np.random.default_rng(1)
    packed, whole = plain("phi3-wide"), plain("phi3-wide")
    for name in [name for name in packed if "qkv_proj" in name or "gate_up_proj" in name]:
        shape = packed.pop(name)[1].shape
        groups = shape[0], shape[1] // 32
        codes, zeros = random.integers(0, 16, shape), random.integers(0, 16, groups)
        scales = random.uniform(0.01, 0.02, groups).astype(np.float16).astype(np.float32)
        packed |= gptq_tensors(name.removesuffix(".weight"), codes, zeros, scales)
        whole[name] = "F32", values(codes, zeros, scales, np.arange(shape[1]) // 32)
    found = load_model(write_family(tmp_path / "packed", "phi3-wide", packed, gptq_config(sym=False))).params
    expected = load_model(write_family(tmp_path / "whole", "phi3-wide", whole, {})).params
    for one, other in zip(found.weights(), expected.weights(), strict=True):
        np.testing.assert_array_equal(to_float32(one), to_float32(other))
    owners = [weight.data.base for weight in found.weights() if type_name(weight) == "q8_0"]
    layers = FAMILIES["phi3-wide"].config["num_hidden_layers"]
    assert all(owner is not None for owner in owners)
    assert (len(owners), len({id(owner) for owner in owners})) == (5 * layers, 2 * layers)


@pytest.mark.clause("LOAD-103", "LOAD-104")
def test_stacks_of_experts_of_mlx_are_those_of_the_same_numbers(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    packed, whole = plain("qwen3-moe-wide"), plain("qwen3-moe-wide")
    experts = FAMILIES["qwen3-moe-wide"].config["num_local_experts"]
    for name in [name for name in packed if ".experts.0." in name]:
        rows, columns = packed[name][1].shape
        codes = random.integers(0, 16, (experts, rows, columns)).astype(np.uint32)
        scales = random.uniform(0.01, 0.02, (experts, rows, columns // 32)).astype(np.float32)
        for number in range(experts):
            one = name.replace(".experts.0.", f".experts.{number}.")
            del packed[one]
            whole[one] = "F32", (codes[number] * scales[number].repeat(32, 1) - 0.1).astype(np.float32)
        words = (codes.reshape(experts, rows, -1, 8) << np.arange(0, 32, 4, np.uint32)).sum(-1, dtype=np.uint32)
        stem = name.replace(".experts.0.", ".switch_mlp.").removesuffix(".weight")
        packed[f"{stem}.weight"] = "U32", words
        packed |= {f"{stem}.scales": ("F32", scales), f"{stem}.biases": ("F32", np.full_like(scales, -0.1))}
    method = {"quantization": {"group_size": 32, "bits": 4}}
    found = load_model(write_family(tmp_path / "packed", "qwen3-moe-wide", packed, method)).params
    expected = load_model(write_family(tmp_path / "whole", "qwen3-moe-wide", whole, {})).params
    for one, other in zip(found.weights(), expected.weights(), strict=True):
        np.testing.assert_allclose(to_float32(one), to_float32(other), rtol=0, atol=1e-6)


@pytest.mark.clause("LOAD-107")
def test_a_converted_tensor_lives_as_long_as_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    data = np.random.default_rng(2).integers(0, 100, (4, 110), np.uint8)
    path.write_bytes(gguf_bytes({}, {"t": Stored("Q3_K", (4, 256), data.tobytes())}))
    file = GGUFFile(path)
    source = GGUFSource(file)
    part = source.weight("t").data[:2]  # of the weight itself nothing is left
    again = source.weight("t")
    assert np.shares_memory(part, again.data) and type_name(again) == "q6_k"
    np.testing.assert_array_equal(to_float32(again), floats_of(file.tensors["t"]))
    del part, again
    gc.collect()
    assert not source._converted._arrays
