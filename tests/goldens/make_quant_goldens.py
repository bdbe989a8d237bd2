"""Makes quants.npz: what ggml's own Python package reads from, and writes into, quantised blocks.

Run with the packages `gguf` and `llama-cpp-python` installed: `python tests/goldens/make_quant_goldens.py`. Blocks are
random bytes, with some scales replaced by the ends of float16: zero, the smallest, the largest, infinity. The package
`gguf` does not read Q8_K and Q1_0: ggml's own library does, which is part of llama-cpp-python.
"""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import dequantize, quantize

READ = (
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K",
    "Q2_K", "Q3_K", "TQ1_0", "TQ2_0", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL",
    "IQ4_XS", "MXFP4", "NVFP4",
)  # fmt: skip
READ_BY_GGML = {"Q8_K": "dequantize_row_q8_K", "Q1_0": "dequantize_row_q1_0"}
WRITTEN = ("Q8_0", "Q4_0", "Q4_1")
SCALE_AT = {
    "Q6_K": (208,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q4_1": (0, 2), "Q5_1": (0, 2), "Q2_K": (80, 82), "Q3_K": (108,),
    "TQ1_0": (52,), "TQ2_0": (64,), "MXFP4": (), "NVFP4": (), "IQ1_M": (), "Q8_K": (),
}  # fmt: skip
EXTREMES = np.array([0.0, -0.0, 6e-8, -6.1e-5, 65504.0, -65504.0, np.inf], np.float16)


def blocks(kind: str, rng: np.random.Generator) -> np.ndarray:
    """uint8 [rows, bytes of two blocks]: one row of ordinary scales for each extreme one."""
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
    data = rng.integers(0, 256, (2 * len(EXTREMES), size), dtype=np.uint8)
    for at in SCALE_AT.get(kind, (0,)):
        ordinary = rng.normal(0, 0.02, len(data)).astype(np.float16)
        ordinary[: len(EXTREMES)] = EXTREMES
        data[:, at : at + 2] = ordinary.view(np.uint8).reshape(-1, 2)
    if kind == "MXFP4":  # exponents: the least, the greatest, and around 128
        data[:, 0] = [0, 1, 2, 254, 255, *range(124, 133)]
    elif kind == "NVFP4":  # zeros, the smallest, no number, and what has a sign
        data[:4, :4] = [[0, 128, 1, 7], [8, 127, 255, 126], [15, 16, 129, 254], [0, 0, 120, 119]]
    elif kind == "Q8_K":
        data[:, :4] = np.linspace(-2, 3, len(data), dtype="<f4").view(np.uint8).reshape(-1, 4)
    elif kind == "IQ1_M":  # four bits of the scale in each of four words
        words = data[:, 48:].view("<u2")
        scales = rng.normal(0, 0.02, len(data)).astype(np.float16)
        scales[: len(EXTREMES)] = EXTREMES
        words[:] = words & 0xFFF | (scales.view("<u2")[:, None] >> np.array([0, 4, 8, 12], np.uint16) & 15) << 12
    return data.reshape(len(EXTREMES), 2 * size)


def read_by_ggml(data: np.ndarray, kind: str) -> np.ndarray:
    """What the C function of ggml reads."""
    origin = find_spec("llama_cpp").origin
    library = ctypes.CDLL(str(Path(origin).parent / "lib" / "libggml-base.so"))
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    values = np.empty((len(data), data.shape[1] // size * block), np.float32)
    pointers = (array.ctypes.data_as(ctypes.c_void_p) for array in (data, values))
    getattr(library, READ_BY_GGML[kind])(*pointers, ctypes.c_int64(values.size))
    return values


def floats(rng: np.random.Generator) -> np.ndarray:
    """float32 [rows, 64]: ordinary rows, rows of ties between two codes, constant rows, tiny and large ones."""
    rows = rng.normal(0, 1, (24, 64)).astype(np.float32)
    rows[1] = np.round(rows[1] * 4) / 4
    rows[2] = np.arange(64) - 31.5
    rows[3], rows[4], rows[5] = 0, 0.3, -0.3
    rows[6], rows[7], rows[8] = rows[6] * 1e-6, rows[7] * 1e-30, rows[8] * 1e4
    rows[9] = np.abs(rows[9])
    rows[10] = np.where(np.arange(64) % 2, 1, -1)  # the largest magnitude twice, with both signs
    return rows


def main() -> None:
    rng = np.random.default_rng(20)
    goldens = {"floats": floats(rng)}
    with np.errstate(all="ignore"):
        for kind in READ:
            goldens[f"{kind}_blocks"] = blocks(kind, rng)
            goldens[f"{kind}_values"] = dequantize(goldens[f"{kind}_blocks"], gguf.GGMLQuantizationType[kind])
        for kind in READ_BY_GGML:
            goldens[f"{kind}_blocks"] = blocks(kind, rng)
            goldens[f"{kind}_values"] = read_by_ggml(goldens[f"{kind}_blocks"], kind)
        for kind in WRITTEN:
            goldens[f"{kind}_written"] = quantize(goldens["floats"], gguf.GGMLQuantizationType[kind])
    np.savez_compressed(Path(__file__).with_name("quants.npz"), **goldens)


if __name__ == "__main__":
    main()
