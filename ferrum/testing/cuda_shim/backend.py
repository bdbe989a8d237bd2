"""The CUDA backend on the shim: `--backend ferrum.testing.cuda_shim.backend:ShimOps`.

Owns: its name. Refuses to know: everything else. Specs: CUDA-60. Next: `ferrum.testing.simulate`.
"""

from __future__ import annotations

from ferrum.backends.cupy_backend import CupyOps
from ferrum.testing.cuda_shim.device import ShimDevice


class ShimOps(CupyOps):
    """`CupyOps` with every kernel on the CPU."""

    def __init__(self, seed: int = 1, deterministic: bool = False, compute: str = "float32") -> None:
        super().__init__(ShimDevice(seed), deterministic, compute)
