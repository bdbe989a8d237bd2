"""Compiled kernels of the Numba backend, as C function pointers.

What stands behind a launch imports no Numba: target, features, cache, image, objects, ahead, library, sizes,
choice_sizes, memory, descriptor, operands, bind_experts, bind_choosing, bind, board, team, processors, exact, launch.
Kernels are named and come from the kernel cache. Only where something is missing there does the library import
compiler, and that the module of the kernel: ir, simd, doubles, blocks, k_blocks, tiles, panels, activations,
elementwise, products, linear, routing, experts, views, choosing, ranking, pages, pages_q8, moves, writing, writing_q8,
splits, splits_q8, attention, claims, primitives.
Next: `ferrum.backends.numba_kernels.target`.
"""
