"""The kernels of the Numba backend: compiled functions, called through C function pointers.

Three folders, each with a rule that `tests/backends/test_kernel_folders.py` checks:

- `compiled/`: every function that becomes machine code, and `compiler`, which makes it. Only these modules import
  Numba.
- `loading/`: from the name of a compiled function to the address of its machine code, which is kept between runs. It
  imports `compiled.compiler` only when a function is not in the kernel cache.
- `launching/`: from arrays to launches of kernels on threads. It never imports Numba.

`sizes` and `layouts` are the numbers on which `launching` and `compiled` must agree; neither imports the other.

Words that have another meaning elsewhere in the project:

- word: an int64 in memory, or a function of the SIMD vocabulary (`compiled.simd`).
- row of words: the arguments of one launch. A row of a weight is one of its output features.
- chunk: the part of a launch that one call of a kernel does. (The scheduler's chunk is a part of a prompt.)
- page: 16 positions whose keys are read together. It is not a block of the KV cache.
- split: 128 positions whose softmax is computed at once.
- tile: the sums that a loop keeps in registers. In attention: up to six query rows of one sequence that
  share their keys.
- panel: decoded rows of a weight that stay in a cache while many tokens pass over them.
- strip: the tokens that pass over a panel together.
- unit: 16 rows of a quantised weight side by side, for products of integers (int8). In attention: the work on
  one tile and one key/value head.
- board: the words in memory through which the threads of a team share out the chunks of a launch.
- tape: the launches of one step, recorded, and run again without Python in between.

Next: `ferrum.backends.numba_kernels.loading.target`.
"""
