"""Every kernel of every file, launched through its binding on a case that keeps several warps and blocks busy.

Owns: the table of files, and a device that notes what is launched. Refuses to know: what the results should be.
Next: `tests.cuda.operands`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ferrum.backends.cuda.attention import AttentionKernels
from ferrum.backends.cuda.blocks import BlockKernels
from ferrum.backends.cuda.choose import Choosing
from ferrum.backends.cuda.device import Array, Device
from ferrum.backends.cuda.elementwise import binary, cast, contiguous, unary
from ferrum.backends.cuda.exact_products import matmul
from ferrum.backends.cuda.experts import ExpertKernels
from ferrum.backends.cuda.launch import Kernel, Kernels, Size
from ferrum.backends.cuda.products import Products
from ferrum.backends.cuda.rows import RowKernels
from ferrum.backends.cuda.steps import batch_of_graph, fill
from ferrum.tensor.batch import KvLayer, RopeTables, StepBatch
from ferrum.tensor.parts import Attention, Experts, GatedMlp, Norm
from ferrum.tensor.weights import Dense, Linear
from ferrum.testing.cuda_shim.device import ShimDevice

Launches = Callable[[Device], list[Array | None]]
"""Launches every kernel of a file -> all results."""


def floats(device: Device, *shape: int, seed: int = 0) -> Array:
    return device.upload(np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32))


def ints(device: Device, values: Any, dtype: str = "int32") -> Array:
    return device.upload(np.asarray(values, dtype))


def linear(device: Device, rows: int, columns: int, seed: int) -> Linear:
    return Linear(Dense(floats(device, rows, columns, seed=seed)), floats(device, rows, seed=seed))


def mlp(device: Device, hidden: int, middle: int, seed: int) -> GatedMlp:
    sizes = ((middle, hidden), (middle, hidden), (hidden, middle))
    return GatedMlp(*(linear(device, *size, seed + each) for each, size in enumerate(sizes)))


# ---- rows and elements
def _elementwise(device: Device) -> list[Array | None]:
    x, y = floats(device, 40, 70), floats(device, 70, seed=1)
    return [contiguous(device, x.transpose()), unary(device, "exp", x), binary(device, "add", x, y)]


def _norm(device: Device) -> list[Array | None]:
    rows, result = RowKernels(device), []
    for n in (100, 1500):
        x, norm = floats(device, 3, n), Norm(floats(device, n), 1e-5, None, True)
        result += [rows.normed(x, norm), rows.residual_add(x, x, norm, 2.0), rows.residual_add(x, x, None)]
    return result


def _activate(device: Device) -> list[Array | None]:
    rows, x = RowKernels(device), floats(device, 3, 700)
    return [rows.activated(x, "silu"), rows.gated(x, x, mlp(device, 4, 4, 0)), rows.softcapped(x, 5.0)]


def _softmax(device: Device) -> list[Array | None]:
    rows, both = RowKernels(device), [floats(device, 3, n) for n in (100, 1500)]
    return [each for x in both for each in (rows.softmax(x), rows.log_softmax(x))]


# ---- choosing tokens
def _argmax(device: Device) -> list[Array | None]:
    return [Choosing(device).argmax(floats(device, 2, 5000))]


def _top_k(device: Device) -> list[Array | None]:
    choosing, x = Choosing(device), floats(device, 2, 5000)
    tokens = ints(device, [7, 4321], "int64")
    values, ids = choosing.top_k(x, 300) or (None, None)
    return [values, ids, choosing.logsumexp(x), choosing.rank(x, tokens), choosing.ranked(x, tokens, 5)]


def _draw(device: Device) -> list[Array | None]:
    """Temperature, top_k, top_p, min_p, unit of each row; the last row is greedy."""
    units = np.linspace(0, 0.99, 8)
    settings = [*([0.9, 300, 0.8, 0.01, unit] for unit in units), *([1.5, 0, 1, 0, unit] for unit in units), [0] * 5]
    logits = floats(device, len(settings), 5000)
    return [Choosing(device).choose(logits, device.upload(np.array(settings, np.float64)))]


# ---- products
def _linear_few(device: Device) -> list[Array | None]:
    products, x = Products(device), floats(device, 3, 300)
    together = [linear(device, rows, 300, rows) for rows in (40, 7, 12)]
    return [products.few(x, together, floats(device, 3, 59), 0.5), products.gated(x, mlp(device, 300, 37, 0))]


def _dequantize(device: Device) -> list[Array | None]:
    products, x = Products(device), floats(device, 30, 40)
    return [products.dequantized(Dense(x), "bfloat16"), products.rounded(x)]


def _embed(device: Device) -> list[Array | None]:
    return [Products(device).embed(Dense(floats(device, 30, 40)), ints(device, [0, 29, 30, -1, 5]), 2.0)]


def _matmul(device: Device) -> list[Array | None]:
    return [matmul(device, floats(device, 2, 9, 30), floats(device, 2, 30, 17))]


def _mixture(device: Device) -> list[Array | None]:
    """Of 40 experts, so that a lane of the router has more than one; seven of them for each token."""
    hidden, middle = 36, 44
    experts = tuple(mlp(device, hidden, middle, 3 * each) for each in range(40))
    part = Experts(linear(device, 40, hidden, 99), experts, 7, True)
    kernels, x = ExpertKernels(device, Products(device)), floats(device, 3, hidden)
    assert kernels.fits(x, part)
    return [kernels.mixture(x, part, x)]


# ---- attention
@dataclass
class Scene:
    """A batch over a pool of blocks of 16 positions; six query heads on two key heads of 72 dimensions."""

    layer: KvLayer
    batch: StepBatch
    attention: Attention
    query: Array
    key: Array
    value: Array


def scene(device: Device, contexts: list[int], counts: list[int]) -> Scene:
    heads, kv_heads, size, head_dim = 6, 2, 16, 72
    width = -(-max(contexts) // size)
    tables = np.random.default_rng(0).permutation(len(contexts) * width).reshape(len(contexts), width)
    starts = [sum(counts[:each]) for each in range(len(counts) + 1)]
    owners = [each for each, count in enumerate(counts) for _ in range(count)]
    positions = [p for context, count in zip(contexts, counts, strict=True) for p in range(context - count, context)]
    slots = [tables[o, p // size] * size + p % size for o, p in zip(owners, positions, strict=True)]
    facts = ([0] * len(owners), positions, slots, starts, contexts, tables, starts[:-1])
    batch = StepBatch(*(ints(device, each) for each in facts), starts=starts, contexts=contexts)
    pool = floats(device, tables.size, kv_heads, head_dim, size), floats(device, tables.size, kv_heads, size, head_dim)
    unused = linear(device, 4, 4, 0)
    attention = Attention(unused, unused, unused, unused, head_dim, 0.1, sinks=floats(device, heads))
    new = [floats(device, len(owners), n, head_dim, seed=n) for n in (heads, kv_heads, kv_heads)]
    return Scene(KvLayer(*pool), batch, attention, *new)


def _rope_write(device: Device) -> list[Array | None]:
    of, kernels = scene(device, [40, 3], [5, 1]), AttentionKernels(device)
    tables = RopeTables(floats(device, 64, 32), floats(device, 64, 32, seed=1), floats(device, 64))
    query = kernels.turn_and_write(of.query, of.key, of.value, of.layer, tables, of.batch.positions, of.batch.slots)
    return [query, of.layer.keys, of.layer.values]


def _attend_few(device: Device) -> list[Array | None]:
    of = scene(device, [600, 30, 300], [1, 2, 1])
    return [AttentionKernels(device).attend(of.query, of.attention, of.layer, of.batch, False)]


def _attend_many(device: Device) -> list[Array | None]:
    of = scene(device, [200, 90], [40, 90])
    return [AttentionKernels(device).attend(of.query, of.attention, of.layer, of.batch, True)]


def _blocks(device: Device) -> list[Array | None]:
    return [BlockKernels(device).gather(floats(device, 5, 9, 700), ints(device, [4, 0, 2], "int64"))]


def _fill(device: Device) -> list[Array | None]:
    own = batch_of_graph(device, 4, 60)
    fill(device, own, scene(device, [600, 30, 300], [1, 1, 1]).batch)
    return [own.positions, own.slots, own.context_lens, own.block_tables]


LAUNCHES: dict[str, Launches] = {
    "activate": _activate,
    "argmax": _argmax,
    "attend_combine": _attend_few,
    "attend_few": _attend_few,
    "attend_many": _attend_many,
    "blocks": _blocks,
    "cast": lambda device: [cast(device, floats(device, 3, 700), "float16")],
    "dequantize": _dequantize,
    "draw": _draw,
    "elementwise": _elementwise,
    "embed": _embed,
    "experts": _mixture,
    "fill": _fill,
    "linear_few": _linear_few,
    "matmul": _matmul,
    "norm": _norm,
    "rope_write": _rope_write,
    "route": _mixture,
    "softmax": _softmax,
    "top_k": _top_k,
}


# ---- what was launched
@dataclass(frozen=True)
class Noted:
    """One launch."""

    file: str
    kernel: str
    defines: tuple[tuple[str, str], ...]
    threads: int
    shared: int


class NotingKernels(Kernels):
    """Kernels that note their launches."""

    def __init__(self, kernels: Kernels, noted: list[Noted]) -> None:
        super().__init__(kernels._load)
        self._noted = noted

    def get(self, file: str, name: str, **defines: str) -> Kernel:
        kernel = super().get(file, name, **defines)

        def run(grid: Size, block: Size, arguments: tuple[Any, ...], shared_mem: int) -> None:
            self._noted.append(Noted(file, name, tuple(defines.items()), int(np.prod(block)), shared_mem))
            kernel.run(grid, block, arguments, shared_mem=shared_mem)

        return replace(kernel, run=run)


def noted(launches: Launches) -> list[Noted]:
    """What a function of the table launches."""
    device, found = ShimDevice(), list[Noted]()
    device.kernels = NotingKernels(device.kernels, found)
    launches(device)
    return found
