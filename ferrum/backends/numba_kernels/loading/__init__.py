"""Machine code of kernels: found in the kernel cache, or compiled and kept there. Imports no Numba at import."""
