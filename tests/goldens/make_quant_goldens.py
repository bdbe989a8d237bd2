"""Makes quants.npz: what ggml's own Python package reads from, and writes into, quantised blocks.

Run with the package `gguf` installed: `python tests/goldens/make_quant_goldens.py`. Blocks are random bytes, with some
scales replaced by the ends of float16: zero, the smallest, the largest, infinity.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from gguf.quants import dequantize, quantize

READ = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")
WRITTEN = ("Q8_0", "Q4_0", "Q4_1")
SCALE_AT = {"Q6_K": (208,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q4_1": (0, 2), "Q5_1": (0, 2)}
EXTREMES = np.array([0.0, -0.0, 6e-8, -6.1e-5, 65504.0, -65504.0, np.inf], np.float16)


def blocks(kind: str, rng: np.random.Generator) -> np.ndarray:
    """uint8 [rows, bytes of two blocks]: one row of ordinary scales for each extreme one."""
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
    data = rng.integers(0, 256, (2 * len(EXTREMES), size), dtype=np.uint8)
    for at in SCALE_AT.get(kind, (0,)):
        ordinary = rng.normal(0, 0.02, len(data)).astype(np.float16)
        ordinary[: len(EXTREMES)] = EXTREMES
        data[:, at : at + 2] = ordinary.view(np.uint8).reshape(-1, 2)
    return data.reshape(len(EXTREMES), 2 * size)


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
        for kind in WRITTEN:
            goldens[f"{kind}_written"] = quantize(goldens["floats"], gguf.GGMLQuantizationType[kind])
    np.savez_compressed(Path(__file__).with_name("quants.npz"), **goldens)


if __name__ == "__main__":
    main()
