"""Kernels as small texts of a test, on the shim.

Owns: what is written around the body of a kernel. Refuses to know: what it shows. Next: `tests.cuda.shim`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ferrum.backends.cuda.launch import Kernel
from ferrum.backends.cuda.source import FOLDER, signatures
from ferrum.testing.cuda_shim.module import ShimModule

SEEDS = range(1, 21)
"""Of orders of threads."""
COMMON = (FOLDER / "common.cuh").read_text(encoding="utf-8")
GLOBAL = 'extern "C" __global__ void'


def kernel(body: str, *, seed: int = 1, without: int = 0, options: tuple[str, ...] = ()) -> Kernel:
    """The kernel `f` of a text. Without a signature of its own it is f(float* y), and the text is its body."""
    text = body if GLOBAL in body else f"{COMMON}\n{GLOBAL} f(float* y) {{ int t = threadIdx.x;\n{body}\n}}"
    return Kernel("f", signatures(text)["f"], ShimModule(text, options, seed, without).get_function("f"))


def result(body: str, threads: int = 64, **options: Any) -> np.ndarray:
    """What one block writes to y, one number for each thread."""
    shared = options.pop("shared", 0)
    y = np.zeros(threads, np.float32)
    kernel(body, **options)((1,), (threads,), y, shared=shared)
    return y
