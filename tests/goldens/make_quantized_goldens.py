"""Makes quantized.npz: quantised matrices as other programs write them, and the numbers that these read in them.

Run with the packages `mlx[cpu]`, `compressed-tensors`, `torch` and `transformers`:
`python tests/goldens/make_quantized_goldens.py`. Keys are "case/name/type of its elements" for a tensor of the file, as
bytes of whole numbers, and "case/values" for what it means in float32.
"""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from transformers.integrations.finegrained_fp8 import _dequantize_fp8_weight
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

MLX_CASES = {
    "mlx 4 float16": ((5, 128), mx.float16, 64, 4),
    "mlx 4 bfloat16": ((5, 128), mx.bfloat16, 32, 4),
    "mlx 4 stack": ((3, 2, 128), mx.float16, 128, 4),
    "mlx 8": ((5, 128), mx.float32, 64, 8),
}
MLX_TYPES = {mx.float16: "F16", mx.bfloat16: "BF16", mx.float32: "F32", mx.uint32: "U32", mx.uint8: "U8"}


def mlx_bytes(array: mx.array) -> np.ndarray:
    """bfloat16 is a type that NumPy does not have."""
    return np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array)


def mlx_case(random: np.random.Generator, shape: tuple[int, ...], dtype: mx.Dtype, group: int, bits: int) -> dict:
    weight = mx.array(random.normal(0, 0.05, shape).astype(np.float32)).astype(dtype)
    packed, scales, biases = mx.quantize(weight, group, bits)
    wide = (each.astype(mx.float32) for each in (scales, biases))
    found = {".weight/U32": np.array(packed), "values": np.array(mx.dequantize(packed, *wide, group, bits))}
    for end, array in ((".scales", scales), (".biases", biases)):
        found[f"{end}/{MLX_TYPES[array.dtype]}"] = mlx_bytes(array)
    return found


def mlx_mxfp4(random: np.random.Generator) -> dict:
    weight = mx.array(random.normal(0, 0.05, (4, 64)).astype(np.float32))
    packed, scales = mx.quantize(weight, 32, 4, mode="mxfp4")
    values = mx.dequantize(packed, scales, group_size=32, bits=4, mode="mxfp4", dtype=mx.float32)
    return {".weight/U32": np.array(packed), ".scales/U8": np.array(scales), "values": np.array(values)}


def gpt_oss(random: np.random.Generator) -> dict:
    blocks = torch.from_numpy(random.integers(0, 256, (2, 4, 3, 16), np.uint8))
    scales = torch.from_numpy(random.integers(112, 132, (2, 4, 3), np.uint8))
    values = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)  # [experts, columns, rows]
    return {
        "_blocks/U8": blocks.numpy(),
        "_scales/U8": scales.numpy(),
        "values": values.transpose(1, 2).contiguous().numpy(),
    }


def fp8(random: np.random.Generator, scale: np.ndarray, block: list[int] | None) -> dict:
    weight = torch.from_numpy(random.normal(0, 100, (40, 80)).astype(np.float32)).to(torch.float8_e4m3fn)
    scales = torch.from_numpy(scale.astype(np.float32))
    values = _dequantize_fp8_weight(weight, scales, block, torch.float32)
    return {
        ".weight/F8_E4M3": weight.view(torch.uint8).numpy(),
        ".weight_scale_inv/F32": scales.numpy(),
        "values": values.numpy(),
    }


def compressed(random: np.random.Generator, bits: int) -> dict:
    codes = random.integers(-(1 << bits - 1), 1 << bits - 1, (6, 64)).astype(np.int8)
    scales = random.normal(0, 0.02, (6, 2)).astype(np.float16)
    return {
        ".weight_packed/I32": pack_to_int32(torch.from_numpy(codes), bits).numpy(),
        ".weight_scale/F16": scales,
        ".weight_shape/I64": np.array(codes.shape),
        "values": np.repeat(scales.astype(np.float32), 32, axis=1) * codes,
    }


def main() -> None:
    random = np.random.default_rng(21)
    cases = {name: mlx_case(random, *case) for name, case in MLX_CASES.items()}
    cases["mlx mxfp4"] = mlx_mxfp4(random)
    cases["gpt-oss"] = gpt_oss(random)
    cases["fp8 blocks"] = fp8(random, random.uniform(1e-5, 1e-3, (3, 3)), [16, 32])  # the last ones are cut off
    cases["fp8 matrix"] = fp8(random, np.array(3e-4), None)
    cases["compressed 4"], cases["compressed 8"] = compressed(random, 4), compressed(random, 8)
    goldens = {f"{case}/{name}": array for case, arrays in cases.items() for name, array in arrays.items()}
    np.savez_compressed(Path(__file__).with_name("quantized.npz"), **goldens)


if __name__ == "__main__":
    main()
