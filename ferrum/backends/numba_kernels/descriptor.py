"""What kernels know of a stored weight: ten words.

Owns: the layout of a descriptor and of an expert, and which compiled functions belong to a kind of weight.
Next: `ferrum.backends.numba_kernels.products`.
"""

from __future__ import annotations

from ferrum.backends.numba_kernels.library import LIBRARY
from ferrum.backends.numba_kernels.sizes import BLOCK_COLUMNS

# Ten int64 words, here by their byte offsets.
PRODUCT = 0  # address of the product of few tokens
DATA = 8  # address of the stored rows
ROW_BYTES = 16  # from one row to the next
ROWS = 24
COLUMNS = 32
DECODER = 40  # address of the function (destination, source, columns) that decodes part of a row to float32
STRIP = 48  # address of the product of a panel and a strip of tokens
BIAS = 56  # address, 0 for none
BLOCK_BYTES = 64  # bytes of BLOCK_COLUMNS columns; 0 for float32, which need not be decoded
MULTIPLY = 72  # address of `multiply`
DESCRIPTOR_BYTES = 80

# An expert: the descriptors of its gate, up and down, and the words of what stands between them (`elementwise`).
DOWN = 2 * DESCRIPTOR_BYTES
BETWEEN = 3 * DESCRIPTOR_BYTES
EXPERT_BYTES = BETWEEN + 24

PRODUCTS = {"float32": ("multiply", "strip"), "bfloat16": ("multiply_bfloat16", "strip_bfloat16")}
"""By arithmetic: the product, and its inner loop for many tokens."""


def descriptor(
    kind: str, address: int, row_bytes: int, shape: tuple[int, int], stored: int, bias: int, compute: str
) -> tuple[int, ...]:
    """The words of a weight of this shape [rows, columns], a row of which has `stored` bytes, for the arithmetic
    `compute`; loads what its kind needs."""
    rows, columns = shape
    product = LIBRARY.address(f"products.product.{kind}")
    multiply, strip = (LIBRARY.address(f"products.{name}") for name in PRODUCTS[compute])
    block_bytes = 0 if kind == "f32" else BLOCK_COLUMNS * stored // columns
    return product, address, row_bytes, rows, columns, row_decoder(kind), strip, bias, block_bytes, multiply


def row_decoder(kind: str) -> int:
    """Address of the function (destination, source, columns) that decodes part of a row to float32."""
    return LIBRARY.address(f"products.decoder.{kind}")
