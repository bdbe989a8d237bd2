"""The CUDA backend: arrays of CuPy, and CUDA kernels for the operations that take most of the time of a decoder.

Owns: which kernel computes an operation, and which operations are left to the definition. Every override asks its
kernels whether they can take the operands. Products of a few tokens read weights as they are stored; products of more
tokens decode the weights first and are computed by cuBLAS.
Refuses to know: models and scheduling; how kernels are launched (`ferrum.backends.cuda`).
Specs: CUDA-60 to CUDA-66. Next: `ferrum.backends.cuda.source`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ferrum.backends.array_module import ArrayModuleOps
from ferrum.backends.cuda import elementwise, exact_products
from ferrum.backends.cuda.attention import MANY, AttentionKernels
from ferrum.backends.cuda.blocks import BlockKernels
from ferrum.backends.cuda.choose import Choosing
from ferrum.backends.cuda.device import Device, NotCapturable
from ferrum.backends.cuda.experts import ExpertKernels
from ferrum.backends.cuda.products import Products
from ferrum.backends.cuda.rows import RowKernels
from ferrum.backends.cuda.steps import capture
from ferrum.backends.recorded_steps import RecordedSteps
from ferrum.errors import InvalidParameter
from ferrum.tensor.batch import KvLayer, RopeTables, StepBatch
from ferrum.tensor.compositions import Step
from ferrum.tensor.experts import shared_part
from ferrum.tensor.ops import Shape, Tensor, host_dtype
from ferrum.tensor.parts import ACTIVATIONS, Attention, Experts, GatedMlp, Norm
from ferrum.tensor.weights import Dense, Linear, Weight
from ferrum.types import DecodeSteps, DeviceMemory

FEW_TOKENS = 8
"""Most tokens for which our own kernel multiplies with weights that cuBLAS could read: reading them is the limit."""
FEW_DECODED = 32
"""The same for weights that must be decoded for cuBLAS, which costs as much as reading them several times."""
COMPUTE = ("float32", "bfloat16")


class CupyOps(ArrayModuleOps):
    """Operations on a GPU. Activations are float32."""

    name = "cupy"
    float_dtype = "float32"
    on_host = False
    flops_per_byte = 1500.0  # about 40 TFLOP/s of the GPU and 25 GB/s of PCI Express

    def __init__(self, device: Device | None = None, deterministic: bool = False, compute: str = "float32") -> None:
        """device: None means the first GPU. compute: "bfloat16" rounds the operands of products of many tokens. Raises
        BackendError if there is no GPU that can be used."""
        if compute not in COMPUTE:
            raise InvalidParameter("compute", f"must be one of {', '.join(COMPUTE)}, not {compute!r}")
        if compute != "float32" and deterministic:
            raise InvalidParameter("compute", f"must be float32 in deterministic mode, not {compute!r}")
        self.device = _gpu() if device is None else device
        self.deterministic, self.compute = deterministic, compute
        self._products = Products(self.device)
        self._experts = ExpertKernels(self.device, self._products)
        self._attention = AttentionKernels(self.device)
        self._blocks = BlockKernels(self.device)
        self._rows = RowKernels(self.device)
        self._choosing = Choosing(self.device)
        self._recorded: RecordedSteps[CupyOps] = RecordedSteps(
            lambda ops, step, sequences, width: capture(ops.device, ops, step, sequences, width)
        )

    @property
    def xp(self) -> Any:
        return self.device.xp

    def run_step(self, step: Step, batch: StepBatch) -> Tensor:
        return self._recorded.run(self, step, batch)

    def decode_steps(self, step: Step) -> DecodeSteps:
        return self._recorded.counts(step)

    def own_memory(self) -> DeviceMemory:
        return DeviceMemory(*self.device.memory())

    def on_compile(self, listener: Callable[[str], None]) -> None:
        self.device.kernels.listener = listener

    # ---- factory
    def asarray(self, values: Any, dtype: str) -> Tensor:
        return self.device.upload(np.asarray(values, host_dtype(dtype), order="C"))

    def to_numpy(self, x: Tensor) -> np.ndarray:
        return self.device.download(x)

    def empty(self, shape: Shape, dtype: str) -> Tensor:
        return self.device.empty(shape, dtype)

    def full(self, shape: Shape, value: float, dtype: str) -> Tensor:
        if shape:
            return super().full(shape, value, dtype)
        if self.device.capturing:
            raise NotCapturable("full, for which there is no kernel")
        return self.asarray(value, dtype)  # a kernel of CuPy would turn subnormal numbers into 0

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        if str(x.dtype) == dtype:
            return x
        made = elementwise.cast(self.device, x, dtype)
        return super().cast(x, dtype) if made is None else made

    def bitcast(self, x: Tensor, dtype: str) -> Tensor:
        x = self._whole(x)
        aligned = self.device.address(x) % host_dtype(dtype).itemsize == 0
        return super().bitcast(x if aligned else x.copy(), dtype)

    # ---- host memory, the second tier of the KV cache
    def host_array(self, shape: Shape, dtype: str) -> np.ndarray:
        return self.device.pinned(shape, dtype)

    def store(self, x: Tensor, places: np.ndarray, rows: Sequence[int]) -> None:
        self.device.store(self._whole(x), places, rows)

    def fetch(self, places: np.ndarray, rows: Sequence[int], dtype: str) -> Tensor:
        return self.device.fetch(places, rows)

    # ---- shape
    def reshape(self, x: Tensor, shape: Shape) -> Tensor:
        return self._whole(x).reshape(shape)

    def take(self, x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
        if axis % x.ndim == 0:
            return self._blocks.gather(x, indices)
        return super().take(_bits(x), indices, axis).view(x.dtype)

    def take_along(self, x: Tensor, indices: Tensor) -> Tensor:
        return super().take_along(_bits(x), indices).view(x.dtype)

    def concat(self, xs: Sequence[Tensor], axis: int) -> Tensor:
        return super().concat([_bits(x) for x in xs], axis).view(xs[0].dtype)

    def put(self, x: Tensor, indices: Sequence[Tensor], values: Tensor) -> None:
        rows = indices[0]
        plain = len(indices) == 1 and rows.ndim == 1 and values.shape == (rows.shape[0], *x.shape[1:])
        if plain and x.flags.c_contiguous and values.dtype == x.dtype:
            self._blocks.scatter(x, rows, values)
        else:
            super().put(_bits(x), indices, _bits(values))

    # ---- arithmetic
    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return self._binary("add", x, y)

    def sub(self, x: Tensor, y: Tensor) -> Tensor:
        return self._binary("sub", x, y)

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        return self._binary("mul", x, y)

    def div(self, x: Tensor, y: Tensor) -> Tensor:
        return self._binary("div", x, y)

    def maximum(self, x: Tensor, y: Tensor) -> Tensor:
        return self._binary("maximum", x, y)

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        made = exact_products.matmul(self.device, x, y) if self.deterministic else None
        return self.xp.matmul(x, y) if made is None else made

    def exp(self, x: Tensor) -> Tensor:
        return self._unary("exp", x)

    def log(self, x: Tensor) -> Tensor:
        return self._unary("log", x)

    def rsqrt(self, x: Tensor) -> Tensor:
        made = elementwise.unary(self.device, "rsqrt", x)
        return super().rsqrt(x) if made is None else made

    def tanh(self, x: Tensor) -> Tensor:
        return self._unary("tanh", x)

    def erf(self, x: Tensor) -> Tensor:
        return self._unary("erf", x)

    def cos(self, x: Tensor) -> Tensor:
        return self._unary("cos", x)

    def sin(self, x: Tensor) -> Tensor:
        return self._unary("sin", x)

    # ---- reductions
    def sum(self, x: Tensor, axis: int) -> Tensor:
        if not self.deterministic or str(x.dtype) != "float32":
            return super().sum(x, axis)
        order = [*(each for each in range(x.ndim) if each != axis % x.ndim), axis % x.ndim]
        rows = self.reshape(x.transpose(order), (-1, x.shape[axis]))
        total = self.matmul(rows, self.full((x.shape[axis], 1), 1, "float32"))
        return total.reshape(tuple(1 if each == axis % x.ndim else length for each, length in enumerate(x.shape)))

    def argmax(self, x: Tensor, axis: int) -> Tensor:
        if str(x.dtype) != "float32" or not x.shape[axis]:
            return super().argmax(x, axis)
        axis %= x.ndim
        order = [*(each for each in range(x.ndim) if each != axis), axis]
        best = self._choosing.argmax(self.reshape(x.transpose(order), (-1, x.shape[axis])))
        shape = tuple(length for each, length in enumerate(x.shape) if each != axis)
        return super().argmax(x, axis) if best is None else best.reshape(shape)

    def argsort(self, x: Tensor) -> Tensor:
        # CuPy sorts a single row by its bits, and would place a NaN with a sign first
        return super().argsort(x) if x.ndim > 1 else super().argsort(x[None])[0]

    # ---- rows
    def ranked(self, logits: Tensor, tokens: Tensor, count: int) -> Tensor:
        made = self._choosing.ranked(logits, tokens, count)
        return super().ranked(logits, tokens, count) if made is None else made

    def choose(self, logits: Tensor, settings: Tensor) -> Tensor:
        made = self._choosing.choose(logits, settings)
        return super().choose(logits, settings) if made is None else made

    def softmax(self, x: Tensor) -> Tensor:
        made = self._rows.softmax(x)
        return super().softmax(x) if made is None else made

    def log_softmax(self, x: Tensor) -> Tensor:
        made = self._rows.log_softmax(x)
        return super().log_softmax(x) if made is None else made

    def normed(self, x: Tensor, norm: Norm | None) -> Tensor:
        made = None if norm is None else self._rows.normed(x, norm)
        return super().normed(x, norm) if made is None else made

    def head_norm(self, x: Tensor, norm: Norm | None, head_dim: int) -> Tensor:
        if norm is None or norm.weight.shape == (x.shape[1],):
            return self.normed(x, norm)
        made = self._rows.normed(x, norm, x.shape[1] // head_dim)
        return super().head_norm(x, norm, head_dim) if made is None else made

    def residual_add(self, y: Tensor, residual: Tensor, after: Norm | None = None, scale: float = 1.0) -> Tensor:
        made = self._rows.residual_add(y, residual, after, scale)
        return super().residual_add(y, residual, after, scale) if made is None else made

    def gated(self, gate: Tensor, up: Tensor, mlp: GatedMlp) -> Tensor:
        made = self._rows.gated(gate, up, mlp)
        return super().gated(gate, up, mlp) if made is None else made

    def activated(self, x: Tensor, activation: str) -> Tensor:
        made = self._rows.activated(x, activation) if activation in ACTIVATIONS else None
        return super().activated(x, activation) if made is None else made

    def softcapped(self, x: Tensor, cap: float) -> Tensor:
        made = self._rows.softcapped(x, cap)
        return super().softcapped(x, cap) if made is None else made

    # ---- weights
    def embed(self, table: Weight, token_ids: Tensor) -> Tensor:
        made = self._products.embed(table, token_ids)
        return super().embed(table, token_ids) if made is None else made

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        if not self._products.fits(x, (linear,)):
            return super().linear(x, linear)
        return self._products.few(x, (linear,)) if self._is_few(x, linear) else self._many(x, linear)

    def linear_add(
        self, x: Tensor, linear: Linear, residual: Tensor, after: Norm | None = None, scale: float = 1.0
    ) -> Tensor:
        fits = after is None and residual.shape == (x.shape[0], linear.weight.rows)
        if fits and self._is_few(x, linear) and self._products.fits(x, (linear,)):
            return self._products.few(x, (linear,), residual, scale)
        return super().linear_add(x, linear, residual, after, scale)

    def norm_linears(self, x: Tensor, norm: Norm | None, linears: Sequence[Linear]) -> tuple[Tensor, ...]:
        x = self.normed(x, norm)
        if not (self._is_few(x, linears[0]) and self._products.fits(x, tuple(linears))):
            return super().norm_linears(x, None, linears)
        joined = self._products.few(x, tuple(linears))
        return self.split(joined, [linear.weight.rows for linear in linears], 1)

    def norm_gated(self, x: Tensor, norm: Norm | None, mlp: GatedMlp) -> Tensor:
        x = self.normed(x, norm)
        if self._is_few(x, mlp.gate) and self._products.fits_gated(x, mlp):
            return self._products.gated(x, mlp)
        return super().norm_gated(x, None, mlp)

    def norm_experts(self, x: Tensor, norm: Norm | None, experts: Experts) -> Tensor:
        if not self._experts.fits(x, experts):
            return super().norm_experts(x, norm, experts)
        x = self.normed(x, norm)
        return self._experts.mixture(x, experts, None if experts.shared is None else shared_part(self, x, experts))

    # ---- attention
    def kv_write(self, layer: KvLayer, key: Tensor, value: Tensor, slots: Tensor) -> None:
        if self._attention.writes(layer) and layer.takes(key, value, slots.shape[0]):
            self._attention.write(layer, key, value, slots)
        else:
            super().kv_write(layer, key, value, slots)

    def paged_attention(self, query: Tensor, attention: Attention, layer: KvLayer, batch: StepBatch) -> Tensor:
        fits = self._attention.fits(layer, attention, query.shape[1], query.shape[2])
        if not fits or not self._attention.reaches(layer, batch):
            return super().paged_attention(query, attention, layer, batch)
        return self._attention.attend(query, attention, layer, batch, self._many_queries(batch))

    def rope_attention(
        self,
        projections: tuple[Tensor, Tensor, Tensor],
        attention: Attention,
        tables: RopeTables | None,
        layer: KvLayer,
        batch: StepBatch,
    ) -> Tensor:
        width = attention.head_dim
        fits = self._attention.fits(layer, attention, projections[0].shape[1] // width, width, tables)
        fits = fits and layer.takes(projections[1], projections[2], projections[0].shape[0])
        if not fits or not self._attention.reaches(layer, batch):
            return super().rope_attention(projections, attention, tables, layer, batch)
        query = self.head_norm(projections[0], attention.query_norm, width)
        key = self.head_norm(projections[1], attention.key_norm, width)
        query, key, value = (self._heads(x, width) for x in (query, key, projections[2]))
        query = self._attention.turn_and_write(query, key, value, layer, tables, batch.positions, batch.slots)
        attended = self._attention.attend(query, attention, layer, batch, self._many_queries(batch))
        return attended.reshape((attended.shape[0], -1))

    # ---- what the operations above share
    def _whole(self, x: Tensor) -> Tensor:
        """x, contiguous."""
        return elementwise.contiguous(self.device, x)

    def _heads(self, x: Tensor, width: int) -> Tensor:
        """[tokens, heads * width] -> [tokens, heads, width]; a view even if the rows of x have gaps between them."""
        return (x if x[:1].flags.c_contiguous else self._whole(x)).reshape((x.shape[0], -1, width))

    def _binary(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        made = elementwise.binary(self.device, name, x, y)
        return getattr(super(), name)(x, y) if made is None else made

    def _unary(self, name: str, x: Tensor) -> Tensor:
        made = elementwise.unary(self.device, name, self._whole(x))
        return getattr(self.xp, name)(x) if made is None else made

    def _as_stored(self, weight: Weight) -> bool:
        """True if cuBLAS can multiply with the weight as it is stored."""
        return isinstance(weight, Dense) and str(weight.data.dtype) == self.compute

    def _is_few(self, x: Tensor, linear: Linear) -> bool:
        """True if our own kernel computes the product of x, for few tokens or in deterministic mode."""
        return self.deterministic or x.shape[0] <= (FEW_TOKENS if self._as_stored(linear.weight) else FEW_DECODED)

    def _many(self, x: Tensor, linear: Linear) -> Tensor:
        """[tokens, in] -> [tokens, out] by cuBLAS, with the weights decoded once for all tokens. A graph cannot contain
        it if weights must be decoded: its memory would hold all weights of the model a second time."""
        weight = linear.weight
        if self.device.capturing and not self._as_stored(weight):
            raise NotCapturable("a product of many tokens with weights that have to be decoded")
        matrix = weight.data if self._as_stored(weight) else self._products.dequantized(weight, self.compute)
        x = self._whole(x) if self.compute == "float32" else self._products.rounded(x)
        y = self.device.product(x, matrix)
        return y if linear.bias is None else self.add(y, linear.bias)

    def _many_queries(self, batch: StepBatch) -> bool:
        """True if a sequence may have so many new tokens that they should read its keys together."""
        new = batch.token_ids.shape[0] - batch.context_lens.shape[0]  # more than one for each sequence
        return new >= MANY - 1 and not self.deterministic


def _bits(x: Tensor) -> Tensor:
    """x, or a view of it as uint16 if it is bfloat16, which CuPy cannot copy."""
    return x.view(np.uint16) if str(x.dtype) == "bfloat16" else x


def _gpu() -> Device:
    """The first GPU. Raises BackendError if it cannot be used."""
    from ferrum.backends.cuda import probe

    probe.check()
    from ferrum.backends.cuda.gpu import GpuDevice

    return GpuDevice()
