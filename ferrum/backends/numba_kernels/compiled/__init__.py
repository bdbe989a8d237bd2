"""Functions that Numba compiles to kernels, and the compiler. Nothing else imports Numba."""
