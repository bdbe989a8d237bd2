"""Matrix products in which each element is computed by itself, for deterministic mode.

Owns: `matmul` by a kernel in which one thread computes one element. It serves definitions that have no kernel of their
own, and is slow.
Refuses to know: weights. Specs: CUDA-61. Next: `ferrum.backends.cuda.experts`.
"""

from __future__ import annotations

import math

from ferrum.backends.cuda.device import Array, Device
from ferrum.backends.cuda.elementwise import contiguous

THREADS = 128
VARIANTS: tuple[tuple[str, dict[str, str]], ...] = (("matmul", {}),)


def matmul(device: Device, x: Array, y: Array) -> Array | None:
    """[..., rows, inner], [..., inner, columns] -> [..., rows, columns]; None unless both are float32 and have
    the same leading axes."""
    if str(x.dtype) != "float32" or str(y.dtype) != "float32" or x.shape[:-2] != y.shape[:-2]:
        return None
    (rows, inner), columns = x.shape[-2:], y.shape[-1]
    out = device.empty((*x.shape[:-1], columns), "float32")
    elements = math.prod(out.shape)
    x, y = contiguous(device, x), contiguous(device, y)
    grid = (-(-elements // THREADS),)
    device.kernels.get("matmul", "matmul")(grid, (THREADS,), x, y, out, elements, rows, inner, columns)
    return out
