"""Operands for tests of kernels: arrays with gaps on a device, and one result from every schedule.

Owns: the ways in which an array may lie in memory. Refuses to know: kernels. Next: `tests.cuda.shim`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ferrum.backends.cuda.device import Array, Device
from tests.cuda.shim import SCHEDULES, device_at

LAYOUTS = ("whole", "columns", "second", "reversed", "permuted")
layouts = st.sampled_from(LAYOUTS)


def laid(device: Device, values: np.ndarray, layout: str = "whole") -> Array:
    """An array of the device with these values, which lie as `layout` says among others that a kernel must not read."""
    if values.ndim == 0 or layout == "whole":
        return device.upload(values.copy())
    if layout == "permuted":
        axes = tuple(reversed(range(values.ndim)))
        return device.upload(np.ascontiguousarray(values.transpose(axes))).transpose(axes)
    n = values.shape[-1]
    wide = np.full((*values.shape[:-1], (2 * n + 6) * values.dtype.itemsize), 0xFF, np.uint8).view(values.dtype)
    places = {"columns": slice(3, 3 + n), "second": slice(0, 2 * n, 2), "reversed": slice(2 * n - 1, n - 1, -1)}
    place = places[layout]
    wide[..., place] = values
    return device.upload(wide)[..., place]


def at_every_schedule(run: Callable[[Device], Any]) -> Any:
    """run(device) -> an array or a tuple of arrays, on the host: the same bytes in whatever order threads run."""
    results = [_on_host(run(device_at(seed))) for seed in SCHEDULES]
    for other in results[1:]:
        assert [each.tobytes() for each in other] == [each.tobytes() for each in results[0]]
    return results[0] if len(results[0]) > 1 else results[0][0]


def _on_host(result: Any) -> list[np.ndarray]:
    assert result is not None, "the kernel took these operands"
    return [np.array(each) for each in (result if isinstance(result, tuple) else (result,))]
