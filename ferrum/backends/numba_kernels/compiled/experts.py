"""The experts of a mixture: each computes all of its tokens together.

Owns: the products of experts, and the weighted sum of a token's experts. A chunk is a part of the rows of all experts:
one token keeps all threads busy, and many tokens read the weights of an expert once. The result of a token does not
depend on the other tokens of its experts. Definition: `mixture` in `ferrum.tensor.experts`.
Specs: OPS-70, OPS-71. Next: `ferrum.backends.numba_kernels.compiled.simd_float64`.
"""

from __future__ import annotations

from ferrum.backends.numba_kernels.compiled.elementwise import gate_row
from ferrum.backends.numba_kernels.compiled.simd import (
    add,
    call11,
    fma,
    inlined,
    load,
    load_float,
    load_word,
    splat,
    store,
    store_word,
    zeros,
)
from ferrum.backends.numba_kernels.layouts import (
    EXPERT_BYTES,
    EXPERT_DOWN,
    EXPERT_MLP,
    WEIGHT_BIAS,
    WEIGHT_BYTES,
    WEIGHT_MULTIPLY,
)
from ferrum.backends.numba_kernels.sizes import EXPERT_ROWS, EXPERT_SHARE_ROWS, EXPERT_TOKENS


@inlined
def _rows_of_chunk(begin, end, pairs, rows, chunk, chunks):
    """The rows first..last that a chunk computes of the expert with places begin..end. The work of all experts is
    divided evenly: a group of EXPERT_SHARE_ROWS rows counts once for each token of its expert."""
    units, count = rows // EXPERT_SHARE_ROWS, end - begin
    if count == 0:
        return 0, 0
    low = pairs * units * chunk // chunks - begin * units
    high = pairs * units * (chunk + 1) // chunks - begin * units
    first = min(max((low + count - 1) // count, 0), units)
    last = min(max((high + count - 1) // count, 0), units)
    return EXPERT_SHARE_ROWS * first, EXPERT_SHARE_ROWS * last


@inlined
def _copy(target, source, size):
    whole = size // 64 * 64
    for place in range(0, whole, 64):
        store(target + place, load(source + place))
    for place in range(whole, size, 8):
        store_word(target + place, load_word(source + place))


# ---- kernels
def inner(row, chunk, chunks):
    """activation(gate) * up of the experts of each token.

    1 x, 2 x stride, 3 tokens, 4 bytes of a row of x, a multiple of 8,
    5 experts, as `layouts` says, 6 their count, 7 chosen, 8 ends and 9 tokens, from `group`,
    10 intermediate, a multiple of 16, 11 out [places, intermediate], 12 scratch, 13 scratch bytes per chunk"""
    size, expert, ends, rows = load_word(row + 32), load_word(row + 40), load_word(row + 64), load_word(row + 80)
    pairs, begin = load_word(row + 24) * load_word(row + 56), 0
    gathered = load_word(row + 96) + chunk * load_word(row + 104)
    lifted = gathered + size * EXPERT_TOKENS
    panel = lifted + 4 * EXPERT_ROWS * EXPERT_TOKENS
    for number in range(load_word(row + 48)):
        end = load_word(ends + 8 * number)
        first, last = _rows_of_chunk(begin, end, pairs, rows, chunk, chunks)
        for place in range(begin, end if first < last else begin, EXPERT_TOKENS):
            count = min(EXPERT_TOKENS, end - place)
            for i in range(count):
                source = load_word(row + 8) + load_word(load_word(row + 72) + 8 * (place + i)) * load_word(row + 16)
                _copy(gathered + size * i, source, size)
            out = load_word(row + 88) + 4 * rows * place
            for top in range(first, last, EXPERT_ROWS):
                width = min(EXPERT_ROWS, last - top)
                up = expert + WEIGHT_BYTES
                call11(
                    load_word(expert + WEIGHT_MULTIPLY), expert, gathered, size, out, 4 * rows,
                    load_word(expert + WEIGHT_BIAS), 0, top, top + width, count, panel,
                )  # fmt: skip
                call11(
                    load_word(up + WEIGHT_MULTIPLY), up, gathered, size, lifted - 4 * top, 4 * width,
                    load_word(up + WEIGHT_BIAS), 0, top, top + width, count, panel,
                )  # fmt: skip
                for i in range(count):
                    gate = out + 4 * (rows * i + top)
                    gate_row(gate, lifted + 4 * width * i, gate, width, expert + EXPERT_MLP)
        begin = end
        expert += EXPERT_BYTES


def outer(row, chunk, chunks):
    """The product with down of the experts of each token.

    1 inner [places, intermediate], 2 tokens, 3 bytes of a row of it,
    4 experts, 5 their count, 6 chosen, 7 ends, 8 columns, a multiple of 16, 9 out [places, columns], 10 scratch,
    11 scratch bytes per chunk"""
    size, expert, ends, rows = load_word(row + 24), load_word(row + 32), load_word(row + 56), load_word(row + 64)
    pairs, begin = load_word(row + 16) * load_word(row + 48), 0
    panel = load_word(row + 80) + chunk * load_word(row + 88)
    for number in range(load_word(row + 40)):
        end = load_word(ends + 8 * number)
        first, last = _rows_of_chunk(begin, end, pairs, rows, chunk, chunks)
        down = expert + EXPERT_DOWN
        for place in range(begin, end if first < last else begin, EXPERT_TOKENS):
            call11(
                load_word(down + WEIGHT_MULTIPLY), down, load_word(row + 8) + size * place, size,
                load_word(row + 72) + 4 * rows * place, 4 * rows, load_word(down + WEIGHT_BIAS), 0,
                first, last, min(EXPERT_TOKENS, end - place), panel,
            )  # fmt: skip
        begin = end
        expert += EXPERT_BYTES


def combine(row, chunk, chunks):
    """The results of a token's experts times their weights, best expert first, plus the result of the shared expert.

    1 results [places, columns], 2 places of the pairs, 3 weights, 4 tokens, 5 chosen, 6 columns, a multiple of 16, 7
    result of the shared expert (0: none), 8 its stride, 9 gates of the shared expert from `shared_gate` (0: it has
    none), 10 out (contiguous)"""
    tokens, chosen, columns = load_word(row + 32), load_word(row + 40), load_word(row + 48)
    shared, gates = load_word(row + 56), load_word(row + 72)
    vectors = columns // 16
    for unit in range(tokens * vectors * chunk // chunks, tokens * vectors * (chunk + 1) // chunks):
        token, column, total = unit // vectors, unit % vectors * 64, zeros()
        for pair in range(chosen * token, chosen * (token + 1)):
            result = load_word(row + 8) + 4 * columns * load_word(load_word(row + 16) + 8 * pair)
            total = fma(splat(load_float(load_word(row + 24) + 4 * pair)), load(result + column), total)
        if shared != 0:
            whole = load(shared + load_word(row + 64) * token + column)
            total = fma(load(gates + 64 * token), whole, total) if gates != 0 else add(total, whole)
        store(load_word(row + 80) + 64 * unit, total)
