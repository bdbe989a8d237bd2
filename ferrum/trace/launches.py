"""The operations that a step runs and the kernels that they launch, with their times.

Owns: `LaunchLog`, and a launcher of kernels that writes to it. Times are microseconds of the host's clock; on a device
the host waits for each operation. Refuses to know: what an operation computes.
Specs: TRACE-05. Next: `ferrum.trace.attention`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ferrum.model.params import DecoderParams
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.parts import Part
from ferrum.tensor.weights import Linear

if TYPE_CHECKING:
    from ferrum.backends.numba_kernels.launching.launch import Launcher

OUTSIDE_LAYERS = frozenset(["embedded", "logits", "choose", "argmax", "ranked"])
"""Operations that belong to no layer: the embedding, the head, and the choice of tokens."""

TIMED = (*OUTSIDE_LAYERS, "norm_linears", "rope_attention", "linear_add", "residual_add", "normed", "norm_gated",
         "norm_activated", "norm_experts")  # fmt: skip
"""Operations that `ferrum.model.decoder` and `ferrum.sample.sampler` call."""


class LaunchLog:
    """The operations of one step, in order."""

    def __init__(self, params: DecoderParams, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._layer_of = layer_numbers(params)
        self._layer: int | None = None
        self._launches: list[list[Any]] = []
        self._kernels: list[list[Any]] = []

    def take(self) -> list[list[Any]]:
        """[operation, layer, microseconds, [[kernel, microseconds], …]] of everything since the last call."""
        launches, self._launches, self._kernels = self._launches, [], []
        return launches

    @contextmanager
    def operation(self, name: str, operands: tuple[Any, ...]) -> Iterator[None]:
        """Measures what is done inside, as the operation of this name on these operands."""
        self._kernels = []
        began = self._clock()
        yield
        microseconds = round(1e6 * (self._clock() - began), 1)
        self._launches.append([name, self._layer_for(name, operands), microseconds, self._kernels])
        self._kernels = []  # kernels between two operations are not the model's: those of attention weights, of drafts

    def kernel(self, name: str, seconds: float) -> None:
        """A kernel has run, as part of the operation that is being measured."""
        self._kernels.append([name, round(1e6 * seconds, 1)])

    def _layer_for(self, name: str, operands: tuple[Any, ...]) -> int | None:
        """The layer that an operand belongs to; where no operand belongs to one, the layer of the operation before."""
        if name in OUTSIDE_LAYERS:
            return None
        layers = (self._layer_of.get(id(part)) for part in _flat(operands))
        self._layer = next((layer for layer in layers if layer is not None), self._layer)
        return self._layer


def layer_numbers(params: DecoderParams) -> dict[int, int]:
    """The number of the layer of each part and each linear, by the object's id."""
    numbers: dict[int, int] = {}

    def visit(tree: Any, number: int) -> None:
        if isinstance(tree, (Part, Linear)):
            numbers[id(tree)] = number
            tree = tuple(vars(tree).values())
        if isinstance(tree, tuple):
            for each in tree:
                visit(each, number)

    for number, layer in enumerate(params.layers):
        visit(layer, number)
    return numbers


def _flat(operands: tuple[Any, ...]) -> Iterator[Any]:
    for operand in operands:
        if isinstance(operand, (tuple, list)):
            yield from operand
        else:
            yield operand


@contextmanager
def timed_kernels(ops: TensorOps, log: LaunchLog) -> Iterator[None]:
    """Inside, the log gets every kernel that the backend `numba` launches. Other backends have no such hook."""
    if ops.name != "numba":
        yield
        return
    from ferrum.backends.numpy_backend import NumbaOps

    if not isinstance(ops, NumbaOps):
        yield
        return
    before = ops.launcher
    ops.launcher = _timed(before, log)
    try:
        yield
    finally:
        ops.launcher = before


def _timed(launcher: Launcher, log: LaunchLog) -> Launcher:
    """A launcher of as many threads that measures each launch."""
    from ferrum.backends.numba_kernels.launching.launch import Launcher

    class TimedLauncher(Launcher):
        def launch(self, kernel: str, *words: int, work: int, count: int) -> None:
            began = perf_counter()
            super().launch(kernel, *words, work=work, count=count)
            log.kernel(kernel, perf_counter() - began)

    return TimedLauncher(launcher.threads)
