"""The backend that records a step: it runs no kernels and stores the launches.

Owns: how each primitive is recorded. A primitive of constants (arrays that the step makes from numbers) is computed at
once. Of other operands, it is recorded as a launch if its kernel has the same bits as NumPy; it needs no launch if it
only makes a view; all other primitives raise NotRecordable, since a replay would not repeat them.
A tape also serves fewer tokens than were recorded. So the tokens must be the first axis of every array that depends on
them.
Refuses to know: what a step computes, and when it is recorded.
Specs: OPS-60 to OPS-62. Next: `ferrum.backends.numba_steps`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ferrum.backends.numba_kernels.launching import primitive_calls
from ferrum.backends.numba_kernels.launching.kernel_calls import Kernels
from ferrum.backends.numba_kernels.launching.launch import Recorder
from ferrum.backends.numba_kernels.launching.memory import root
from ferrum.backends.numba_kernels.launching.primitive_calls import MOST_DIMENSIONS
from ferrum.backends.numpy_backend import NumbaOps, NumpyOps
from ferrum.backends.recorded_steps import NotRecordable
from ferrum.tensor.batch import StepBatch
from ferrum.tensor.ops import PRIMITIVES, Shape, Tensor, host_dtype

_FLOAT32, _BOOL = np.dtype(np.float32), np.dtype(np.bool_)
_WORDS = (_FLOAT32, np.dtype(np.int32))
"""Types of four bytes, which kernels copy whatever they mean."""
ELEMENTWISE = {"add": _FLOAT32, "sub": _FLOAT32, "mul": _FLOAT32, "div": _FLOAT32, "maximum": _FLOAT32,
               "rsqrt": _FLOAT32, "less": _BOOL, "equal": _BOOL}  # fmt: skip
"""Primitives of float32 operands that have kernels, with the type of their results."""


class Origins:
    """Which arrays of a recording are constants, depend on the batch, or depend on the number of tokens; by their
    memory."""

    def __init__(self, recorder: Recorder, batch: StepBatch) -> None:
        self.tokens = len(batch.token_ids)
        self._recorder = recorder
        self._batch = {id(root(field)) for field in vars(batch).values() if isinstance(field, np.ndarray)}
        self._constants: set[int] = set()
        self._same: set[int] = set()

    def constant(self, x: Any) -> Any:
        """Marks x, or each array of a tuple, as a constant -> x."""
        if isinstance(x, tuple):
            return tuple(map(self.constant, x))
        x = np.asarray(x)
        self._recorder.keep(root(x))
        self._constants.add(id(root(x)))
        return x

    def is_constant(self, x: Any) -> bool:
        return not isinstance(x, np.ndarray) or id(root(x)) in self._constants

    def changes(self, x: np.ndarray) -> bool:
        """True if the content of x may be different at a replay."""
        return self._recorder.is_result(x) or id(root(x)) in self._batch

    def result(self, shape: Shape, dtype: np.dtype[Any], grows: bool) -> np.ndarray:
        """Memory for the result of a launch. grows: its first axis is the tokens."""
        size = int(np.prod(shape))
        words = self._recorder.buffer((-(-size * dtype.itemsize // 4),))
        if not grows:
            self._same.add(id(root(words)))
        return words.view(dtype)[:size].reshape(shape)

    def grows(self, x: np.ndarray) -> bool:
        """True if the first axis of x is the tokens, or a multiple of them."""
        return self.changes(x) and id(root(x)) not in self._same

    def check_first(self, name: str, xs: Iterable[np.ndarray], shape: Shape) -> bool:
        """True if a result of this shape, to which xs broadcast, depends on the tokens. Raises NotRecordable if they
        would not be its first axis."""
        growing = [x for x in xs if self.grows(x)]
        if self.tokens > 1 and any(len(x.shape) != len(shape) or x.shape[0] != shape[0] for x in growing):
            raise NotRecordable(f"{name} beside the tokens")
        return bool(growing)


class RecordingKernels(Kernels):
    """Kernels whose launches are recorded. Rows must be those of tokens, in memory that a replay can read."""

    def __init__(self, recorder: Recorder, origins: Origins, like: Kernels) -> None:
        super().__init__(recorder, like.compute, like.units)
        self._origins = origins
        self.experts = like.experts  # shared: computing the words of thousands of experts takes as long as many tokens

    def rows(self, x: Tensor, columns: int) -> Tensor:
        if self._origins.tokens > 1 and not self._origins.grows(x):
            raise NotRecordable("a kernel whose size is not a multiple of the tokens")
        in_place = root(np.reshape(x, (-1, columns))) is root(x)
        return super().rows(x if in_place else self.launcher.contiguous(x), columns)


class RecordingOps(NumbaOps):
    """Records the launches of a step."""

    def __init__(self, launcher: Recorder, batch: StepBatch, like: NumbaOps) -> None:
        super().__init__(launcher.threads, like.deterministic, like.compute)
        self.origins = Origins(launcher, batch)
        self._recorder, self._batch = launcher, batch
        self._kernels = RecordingKernels(launcher, self.origins, like._kernels)

    # ---- factory
    def asarray(self, values: Any, dtype: str) -> Tensor:
        made = np.asarray(values, host_dtype(dtype))
        if isinstance(values, np.ndarray) and root(made) is root(values):
            self._recorder.keep(made)
            return made
        if any(self.origins.changes(x) for x in _arrays([values])):
            raise NotRecordable("asarray")
        return self.origins.constant(made)

    def choose(self, logits: Tensor, settings: Tensor) -> Tensor:
        raise NotRecordable("a choice of tokens")

    def ranked(self, logits: Tensor, tokens: Tensor, count: int) -> Tensor:
        raise NotRecordable("a rank of tokens")

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        if x.dtype != host_dtype(dtype):
            raise NotRecordable(f"cast from {x.dtype} to {dtype}")
        return x

    # ---- shape
    def reshape(self, x: Tensor, shape: Shape) -> Tensor:
        made = np.reshape(x, shape)
        if root(made) is not root(x):
            made = np.reshape(self.concat([x], 0), shape)
        if self.origins.grows(x) and self.origins.tokens > 1 and (not made.ndim or made.shape[0] % self.origins.tokens):
            raise NotRecordable("reshape beside the tokens")
        return _view("reshape", made)

    def permute(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        made = np.transpose(x, axes)
        if axes[0] % x.ndim:
            self._check_axis("permute", [x])
        return _view("permute", made)

    def broadcast_to(self, x: Tensor, shape: Shape) -> Tensor:
        self.origins.check_first("broadcast_to", [x], shape)
        return _view("broadcast_to", np.broadcast_to(x, shape))

    def split(self, x: Tensor, sizes: Sequence[int], axis: int) -> tuple[Tensor, ...]:
        if axis % x.ndim == 0:
            self._check_axis("split", [x])
        return tuple(_view("split", part) for part in super().split(x, sizes, axis))

    def concat(self, xs: Sequence[Tensor], axis: int) -> Tensor:
        axis %= xs[0].ndim
        if axis == 0 and len(xs) > 1:
            self._check_axis("concat", xs)
        kind = xs[0].dtype
        self._check("concat", kind, _WORDS, xs[0].ndim)
        xs = [self._operand("concat", x, kind) for x in xs]
        ends = np.cumsum([x.shape[axis] for x in xs])
        shape = (*xs[0].shape[:axis], int(ends[-1]), *xs[0].shape[axis + 1 :])
        grows = any(map(self.origins.grows, xs))
        out = self.origins.result(shape, kind, grows)
        for x, part in zip(xs, np.split(out, ends[:-1], axis), strict=True):
            if x.size:
                primitive_calls.elementwise(self._recorder, "copy", (x,), part, grows)
        return out

    def take(self, x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
        """All rows in order: x itself, without a launch."""
        if indices is self._batch.logit_rows and not axis and x.shape[:1] == indices.shape:
            return x
        if axis or not (isinstance(indices, np.ndarray) and indices.dtype == np.int32 and indices.flags.c_contiguous):
            raise NotRecordable("take along another axis, or by other indices than int32")
        self._check("take", x.dtype, _WORDS, x.ndim)
        if not x.size or not x[0].flags.c_contiguous:
            raise NotRecordable("take of rows with gaps")
        grows = self.origins.grows(indices)
        if self.origins.grows(x) and not grows:
            raise NotRecordable("take beside the tokens")
        self._recorder.keep(x)
        out = self.origins.result((*indices.shape, *x.shape[1:]), x.dtype, grows)
        primitive_calls.take(self._recorder, x, indices, out, grows)
        return out

    # ---- arithmetic
    def where(self, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
        kind = np.result_type(x, y)
        self._check("where", kind, _WORDS)
        operands = (self._operand("where", condition, _BOOL), *(self._operand("where", each, kind) for each in (x, y)))
        return self._launch("where", operands, kind)

    def _arithmetic(self, name: str, *operands: Any) -> Tensor:
        self._check(name, np.result_type(*operands), (_FLOAT32,))
        return self._launch(name, [self._operand(name, x, _FLOAT32) for x in operands], ELEMENTWISE[name])

    def _operand(self, name: str, x: Any, kind: np.dtype[Any]) -> np.ndarray:
        """x as an array of this type. Only constants are converted."""
        if isinstance(x, np.ndarray) and x.dtype == kind:
            self._recorder.keep(x)
            return x
        if not self.origins.is_constant(x):
            raise NotRecordable(f"{name} of {x.dtype}")
        made: np.ndarray = self.origins.constant(np.asarray(x, kind))
        return made

    def _launch(self, name: str, operands: Sequence[np.ndarray], kind: np.dtype[Any]) -> Tensor:
        shape = np.broadcast_shapes(*(x.shape for x in operands))
        self._check(name, kind, (kind,), len(shape))
        grows = self.origins.check_first(name, operands, shape)
        out = self.origins.result(shape, kind, grows)
        if out.size:
            primitive_calls.elementwise(self._recorder, name, operands, out, grows)
        return out

    def _check(self, name: str, kind: np.dtype[Any], kinds: Sequence[np.dtype[Any]], dimensions: int = 0) -> None:
        if kind not in kinds:
            raise NotRecordable(f"{name} of {kind}")
        if dimensions > MOST_DIMENSIONS:
            raise NotRecordable(f"{name} of {dimensions} dimensions")

    def _check_axis(self, name: str, xs: Iterable[Tensor]) -> None:
        """Raises NotRecordable if one of xs depends on the tokens, because the operation changes their order or
        number."""
        if self.origins.tokens > 1 and any(map(self.origins.grows, xs)):
            raise NotRecordable(f"{name} of the tokens")


def _arrays(values: Iterable[Any]) -> Iterator[np.ndarray]:
    for value in values:
        if isinstance(value, np.ndarray):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _arrays(value)


def _view(name: str, made: np.ndarray) -> np.ndarray:
    """A view. Raises NotRecordable for integers with gaps: kernels would copy them when recording, and replay the
    copy."""
    if made.dtype.kind in "iu" and not made.flags.c_contiguous:
        raise NotRecordable(f"{name} of integers")
    return made


def _recorded(name: str) -> Callable[..., Any]:
    """The method that records the primitive of this name."""
    recording: Callable[..., Any] | None = vars(RecordingOps).get(name)
    at_once: Callable[..., Any] = getattr(NumpyOps, name)

    def run(self: RecordingOps, *arguments: Any, **options: Any) -> Any:
        if name != "put" and all(map(self.origins.is_constant, _arrays([*arguments, *options.values()]))):
            return self.origins.constant(at_once(self, *arguments, **options))
        if recording is not None:
            return recording(self, *arguments, **options)
        if name in ELEMENTWISE:
            return self._arithmetic(name, *arguments, **options)
        raise NotRecordable(name)

    return run


for _name in PRIMITIVES:
    setattr(RecordingOps, _name, _recorded(_name))
