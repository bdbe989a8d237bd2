"""Which vector instructions compiled kernels may use.

Owns: one set of feature names, read from the same variables as Numba, so that a forced target
(`NUMBA_CPU_NAME`, `NUMBA_CPU_FEATURES`) is tested on any machine with exactly the code it would run.
Next: `ferrum.backends.numba_kernels.sizes`.
"""

from __future__ import annotations

import os

from ferrum.backends.numba_kernels.loading.target import this_processor


def cpu_features() -> frozenset[str]:
    """The LLVM names of the features that Numba compiles for: those of NUMBA_CPU_FEATURES if it is set; none if
    NUMBA_CPU_NAME is "generic"; else those of this processor, even if NUMBA_CPU_NAME names another one."""
    forced = os.environ.get("NUMBA_CPU_FEATURES")
    if forced is None and os.environ.get("NUMBA_CPU_NAME", "").lower() == "generic":
        forced = ""
    if forced is not None:
        return frozenset(part[1:] for part in forced.split(",") if part.startswith("+"))
    host = this_processor().features
    if os.environ.get("NUMBA_ENABLE_AVX") == "0":
        return frozenset(name for name in host if not name.startswith("avx"))
    return host


FEATURES = cpu_features()
HAS_AVX512 = "avx512f" in FEATURES
HAS_HALF = HAS_AVX512 or "f16c" in FEATURES
"""Instructions that convert float16. Without them LLVM would call a helper function that the process does not have."""
HAS_BFLOAT16 = HAS_AVX512 and "avx512bf16" in FEATURES
"""Instructions for dot products of pairs of bfloat16."""
HAS_X86_PAUSE = "sse2" in FEATURES or HAS_AVX512
HAS_BYTE_SHUFFLE = "avx2" in FEATURES
"""An instruction that shuffles bytes within each half of a 32-byte register."""

HAS_WIDE_BYTE_DOTS = HAS_AVX512 and "avx512vnni" in FEATURES
"""An instruction for dot products of four bytes, 16 at a time."""
HAS_BYTE_DOTS = "avxvnni" in FEATURES or {"avx512vnni", "avx512vl"} <= FEATURES
"""The same, 8 at a time."""

WIDTH = 16 if HAS_AVX512 else 8 if "avx" in FEATURES else 4
"""Floats in a vector register."""
REGISTERS = 32 if HAS_AVX512 or "neon" in FEATURES else 16
"""Vector registers of the processor."""
