"""What kernels know of a stored weight: eleven words.

Owns: the layout of a descriptor and of an expert, and which compiled functions belong to a kind of weight.
Next: `ferrum.backends.numba_kernels.products`.
"""

from __future__ import annotations

from ferrum.backends.numba_kernels.library import LIBRARY
from ferrum.backends.numba_kernels.sizes import BLOCK_COLUMNS, UNIT_ROWS
from ferrum.backends.numba_kernels.unit_sizes import SHARE_ROWS

# Eleven int64 words, here by their byte offsets.
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
SHARE = 80  # rows that the shares of chunks are multiples of
DESCRIPTOR_BYTES = 88

# An expert: the descriptors of its gate, up and down, and the words of what stands between them (`elementwise`).
DOWN = 2 * DESCRIPTOR_BYTES
BETWEEN = 3 * DESCRIPTOR_BYTES
EXPERT_BYTES = BETWEEN + 24

PRODUCTS = {
    "float32": ("multiply", "strip"),
    "bfloat16": ("multiply_bfloat16", "strip_bfloat16"),
    "int8": ("multiply", "strip"),
}
"""By arithmetic: the product of weights as they are stored, and its inner loop for many tokens. Quantised weights have
another one for int8 (`unit_descriptor`); what is left to this one is exact."""


def descriptor(
    kind: str, address: int, row_bytes: int, shape: tuple[int, int], stored: int, bias: int, compute: str
) -> tuple[int, ...]:
    """The words of a weight of this shape [rows, columns], a row of which has `stored` bytes, for the arithmetic
    `compute`; loads what its kind needs."""
    rows, columns = shape
    product = LIBRARY.address(f"products.product.{kind}")
    multiply, strip = (LIBRARY.address(f"products.{name}") for name in PRODUCTS[compute])
    block_bytes = 0 if kind == "f32" else BLOCK_COLUMNS * stored // columns
    return product, address, row_bytes, rows, columns, row_decoder(kind), strip, bias, block_bytes, multiply, UNIT_ROWS


def unit_descriptor(kind: str, address: int, unit_bytes: int, shape: tuple[int, int], bias: int) -> tuple[int, ...]:
    """The same of a weight in units, whose products take rounded activations: DATA are its units, ROW_BYTES those of
    one, PRODUCT is `single` of `integer_products`; words that only other products read are 0."""
    rows, columns = shape
    product, multiply = (LIBRARY.address(f"integer_products.{name}.{kind}") for name in ("single", "multiply"))
    return product, address, unit_bytes, rows, columns, 0, 0, bias, 0, multiply, SHARE_ROWS


def row_decoder(kind: str) -> int:
    """Address of the function (destination, source, columns) that decodes part of a row to float32."""
    return LIBRARY.address(f"products.decoder.{kind}")
