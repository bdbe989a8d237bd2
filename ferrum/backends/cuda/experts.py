"""Launches of mixtures of experts; the experts of a token are chosen on the device and never read by the host.

Owns: which mixtures the kernels can compute, and the table of addresses in which kernels find the weights of an expert.
A graph can contain all launches, because the choice is data in memory. Refuses to know: the shared expert. Specs:
CUDA-26 to CUDA-29. Next: `ferrum.backends.cuda.attention`.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from ferrum.backends.cuda.device import Array, Device
from ferrum.backends.cuda.elementwise import contiguous, lined_up
from ferrum.backends.cuda.products import FORMATS, ROWS, Products, gate_facts, has_kernel, plain, warps_of_block
from ferrum.errors import InternalError
from ferrum.tensor.parts import Experts, GatedMlp, sets_beyond

MOST_CHOSEN = 16
"""Most experts of a token: each has a warp of a block in one kernel, and a lane of a warp in another."""
MOST_EXPERTS = 8192
"""Most experts: their probabilities lie in shared memory."""

_KNOWN_OF_EXPERTS = frozenset(["router", "experts", "chosen", "normalised", "shared", "shared_weight"])

VARIANTS: tuple[tuple[str, dict[str, str]], ...] = (
    ("route", {}),
    *(("experts", {"FORMAT": name, "ROWS": str(ROWS)}) for name in FORMATS),
)


Kind = tuple[str, str, tuple[int, int], tuple[int, float, float]]
"""What all experts of a mixture share: formats of gate and up, format of down, (middle, hidden), arguments of the
gate."""


@dataclass(frozen=True, eq=False)
class Table:
    """The arguments of kernels for the experts of a mixture."""

    addresses: Array  # uint64 [experts, 6]: gate, up, down, the biases of gate, up and down; 0 for none
    inner_format: str
    outer_format: str
    hidden: int
    middle: int


class ExpertKernels:
    """Mixtures on one device."""

    def __init__(self, device: Device, products: Products) -> None:
        self._device, self._products = device, products
        self._tables: WeakKeyDictionary[Experts, Table | None] = WeakKeyDictionary()

    def fits(self, x: Array, experts: Experts) -> bool:
        """True if `mixture` can compute it. The first call for a mixture uploads the addresses of its experts."""
        if experts not in self._tables:
            self._tables[experts] = self._table(experts)
        table = self._tables[experts]
        return table is not None and x.shape[1:] == (table.hidden,) and self._products.fits(x, (experts.router,))

    def mixture(self, x: Array, experts: Experts, always: Array | None) -> Array:
        """[tokens, hidden] -> [tokens, hidden]: the weighted sum of the results of a token's experts, plus `always`,
        the result of the shared expert, if it is not None."""
        table, device = self._tables.get(experts), self._device
        if table is None:
            raise InternalError("mixture() without fits(), or for experts that do not fit")
        tokens, chosen = x.shape[0], experts.chosen
        x = lined_up(device, x)
        weights, numbers = self._routed(x, experts)
        inner = device.empty((tokens, chosen, table.middle), "float32")
        groups, pairs = -(-table.middle // (ROWS // 2)), tokens * chosen
        warps = warps_of_block(device, groups * pairs)
        kernel = device.kernels.get("experts", "expert_inner", FORMAT=table.inner_format, ROWS=str(ROWS))
        kernel(
            (-(-groups // warps) * pairs,), (32 * warps,), x, table.addresses, numbers, pairs, chosen, table.hidden,
            table.middle, *gate_facts(experts.experts[0]), inner,
        )  # fmt: skip
        out = device.empty((tokens, table.hidden), "float32")
        kernel = device.kernels.get("experts", "expert_outer", FORMAT=table.outer_format, ROWS=str(ROWS))
        kernel(
            (-(-table.hidden // ROWS) * tokens,), (32 * chosen,), inner, table.addresses, numbers, weights,
            None if always is None else contiguous(device, always), chosen, table.hidden, table.middle, out,
        )  # fmt: skip
        return out

    def _routed(self, x: Array, experts: Experts) -> tuple[Array, Array]:
        """-> weights float32 and numbers int32 of each token's experts, both [tokens, chosen], the best first."""
        scores = self._products.few(x, (experts.router,))
        (tokens, count), chosen, empty = scores.shape, experts.chosen, self._device.empty
        weights, numbers = empty((tokens, chosen), "float32"), empty((tokens, chosen), "int32")
        kernel = self._device.kernels.get("route", "route")
        kernel((tokens,), (32,), scores, count, chosen, experts.normalised, weights, numbers, shared=4 * count)
        return weights, numbers

    def _table(self, experts: Experts) -> Table | None:
        """The table of a mixture; None if kernels cannot compute it. All experts must have the same `Kind`."""
        each, count = experts.experts, experts.router.weight.rows
        kinds = {self._kind(expert) for expert in each}
        if sets_beyond(experts, _KNOWN_OF_EXPERTS) or count != len(each) or count > MOST_EXPERTS or len(kinds) != 1:
            return None
        (kind,) = kinds
        if kind is None or not 0 < experts.chosen <= min(count, MOST_CHOSEN):
            return None
        inner, outer, (middle, hidden), _ = kind
        addresses = self._device.upload(np.array([self._addresses(expert) for expert in each], np.uint64))
        return Table(addresses, inner, outer, hidden, middle)

    def _kind(self, expert: GatedMlp) -> Kind | None:
        """The kind of an expert; None if kernels cannot compute it."""
        gate, up, down = expert.gate, expert.up, expert.down
        inner, other, outer = (self._products.format_of(each.weight) for each in (gate, up, down))
        shape = gate.weight.shape
        if inner is None or other != inner or outer is None or not has_kernel(expert):
            return None
        if up.weight.shape != shape or down.weight.shape != shape[::-1]:
            return None
        if not all(plain(each.bias) for each in (gate, up, down)):
            return None
        return inner, outer, shape, gate_facts(expert)

    def _addresses(self, expert: GatedMlp) -> list[int]:
        linears = (expert.gate, expert.up, expert.down)
        arrays = [*(each.weight.data for each in linears), *(each.bias for each in linears)]
        return [0 if each is None else self._device.address(each) for each in arrays]
