"""Faults in the second tier: what is stored on the host, and what comes back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.tensor.ops import Tensor, host_dtype
from meta_tests.backends.fault import caught_by


@caught_by("test_what_is_stored_is_fetched")
class StoresLater(NumpyOps):
    """Copies what is stored when it is fetched: by then it may have changed."""

    def store(self, x: Tensor, places: np.ndarray, rows: Sequence[int]) -> None:
        vars(self).setdefault("waiting", []).append((x, places, list(rows)))

    def fetch(self, places: np.ndarray, rows: Sequence[int], dtype: str) -> Tensor:
        waiting = vars(self).pop("waiting", [])
        for x, wanted, own in waiting:
            wanted[own] = x
        return super().fetch(places, rows, dtype)


@caught_by("test_what_is_stored_is_fetched")
class StoresARun(NumpyOps):
    """Copies to neighbouring rows from the first one on."""

    def store(self, x: Tensor, places: np.ndarray, rows: Sequence[int]) -> None:
        first = min(rows)
        room = len(places[first : first + len(rows)])
        places[first : first + room] = x[:room]


@caught_by("test_what_is_stored_is_fetched")
class FetchesInOrder(NumpyOps):
    """Brings rows back in the order of their places, not in the one that was asked for."""

    def fetch(self, places: np.ndarray, rows: Sequence[int], dtype: str) -> Tensor:
        return super().fetch(places, sorted(rows), dtype)


@caught_by("test_what_was_fetched_stays")
class FetchesAView(NumpyOps):
    """Gives a window on the host's memory: the next block that is stored there shows through."""

    def fetch(self, places: np.ndarray, rows: Sequence[int], dtype: str) -> Tensor:
        run = list(range(rows[0], rows[0] + len(rows))) if len(rows) else []
        return (
            places[rows[0] : rows[0] + len(rows)] if run == list(rows) and run else super().fetch(places, rows, dtype)
        )


@caught_by("test_host_arrays_are_not_shared")
class OneHostArray(NumpyOps):
    """Returns the same array for every request of a host array of one shape."""

    def host_array(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        return vars(self).setdefault("kept", {}).setdefault((shape, dtype), super().host_array(shape, dtype))


@caught_by("test_a_move_keeps_every_bit", name="store and fetch", dtype="float64")
class StoresInSingle(NumpyOps):
    """Moves every float by way of float32."""

    def store(self, x: Tensor, places: np.ndarray, rows: Sequence[int]) -> None:
        super().store(x.astype(np.float32) if x.dtype == np.float64 else x, places, rows)


@caught_by("test_what_is_stored_is_fetched")
class StoresInHalf(NumpyOps):
    """Moves bfloat16 by way of float16, which has two types of one size mixed up."""

    def fetch(self, places: np.ndarray, rows: Sequence[int], dtype: str) -> Tensor:
        found = super().fetch(places, rows, dtype)
        return found.view(np.float16).astype(host_dtype("bfloat16")) if dtype == "bfloat16" else found


@caught_by("test_what_is_stored_is_fetched")
class ClearsTheRest(NumpyOps):
    """Writes zeros to the rows that are not stored to."""

    def store(self, x: Tensor, places: np.ndarray, rows: Sequence[int]) -> None:
        super().store(x, places, rows)
        places[[row for row in range(len(places)) if row not in set(rows)]] = 0
