"""Launches that choose tokens: the largest logits of each row, log probabilities, and sampling.

Owns: which logits the kernels can take, and the number of threads and blocks of a row. These depend on the vocabulary
alone, so the result of a row does not depend on the other rows.
Refuses to know: requests, seeds, and what edits logits before a token is chosen (`ferrum.sample.definition`).
Specs: CUDA-46, CUDA-47, CUDA-48. Next: `ferrum.backends.cuda.graphs`.
"""

from __future__ import annotations

from ferrum.backends.cuda.device import Array, Device
from ferrum.backends.cuda.elementwise import contiguous

MOST_LARGEST = 1024
"""The largest k of `top_k`."""
_MOST_TOKENS = 1 << 26  # chunks of a row are numbered along y, of which a grid has 65535
_THREADS = 256  # of a block where a row has many
_ARGMAX, _SUMS, _WEIGHTS = 8, 8, 4  # elements of a thread, as ELEMENTS in argmax.cu, top_k.cu and draw.cu
_MOST_THREADS = 512  # of a block that has a row for itself
VARIANTS: tuple[tuple[str, dict[str, str]], ...] = (("argmax", {}), ("top_k", {}), ("draw", {}))
"""Every combination of definitions with which the kernels are compiled."""


class Choosing:
    """Kernels on float32 logits [rows, vocab] of one device. A method returns None if its kernel cannot take the
    operands."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def argmax(self, x: Array) -> Array | None:
        """-> int64 [rows]: the id of the largest logit of each row, of equal ones the lowest; NaN counts as the
        largest."""
        if not _fits(x):
            return None
        return self._best(contiguous(self._device, x))

    def top_k(self, x: Array, k: int) -> tuple[Array, Array] | None:
        """-> the k largest values [rows, k] and their ids, int64 [rows, k]: the largest first, of equal ones the lowest
        id."""
        if not _fits(x) or not 0 < k <= min(MOST_LARGEST, x.shape[1]):
            return None
        x, (rows, n) = contiguous(self._device, x), x.shape
        values, ids = self._device.empty((rows, k), "float32"), self._device.empty((rows, k), "int64")
        kernel = self._device.kernels.get("top_k", "top_k")
        padded = 1 << (k - 1).bit_length()
        kernel((rows,), (_threads(n),), x, values, ids, n, k, padded)
        return values, ids

    def logsumexp(self, x: Array) -> Array | None:
        """-> float64 [rows]: log of the sum of exponentials. A logit minus this is its log probability."""
        if not _fits(x):
            return None
        x, (rows, n) = contiguous(self._device, x), x.shape
        best, chunks = self._best(x), -(-n // (_THREADS * _SUMS))
        sums, out = self._device.empty((rows, chunks), "float64"), self._device.empty((rows,), "float64")
        self._device.kernels.get("top_k", "sums_of_chunks")((rows, chunks), (_THREADS,), x, best, sums, n)
        self._device.kernels.get("top_k", "logsumexp")((rows,), (32,), x, best, sums, out, n, chunks)
        return out

    def rank(self, x: Array, tokens: Array) -> Array | None:
        """int64 tokens [rows] -> int64 [rows]: the number of logits that are larger, or equal with a lower id. For an
        id out of range it is the vocabulary size."""
        if not _fits(x) or tokens.shape != x.shape[:1] or str(tokens.dtype) != "int64":
            return None
        x, tokens = contiguous(self._device, x), contiguous(self._device, tokens)
        out = self._device.empty(tokens.shape, "int64")
        kernel = self._device.kernels.get("top_k", "rank")
        kernel((x.shape[0],), (_threads(x.shape[1]),), x, tokens, out, x.shape[1])
        return out

    def ranked(self, logits: Array, tokens: Array, count: int) -> Array | None:
        """-> float64 [rows, 2 + 2 * count], as `Compositions.ranked` defines it."""
        if not _fits(logits) or tokens.shape != logits.shape[:1] or str(tokens.dtype) != "int64":
            return None
        if not 0 <= count <= min(MOST_LARGEST, logits.shape[1]):
            return None
        logits, (rows, n) = contiguous(self._device, logits), logits.shape
        total, rank = self.logsumexp(logits), self.rank(logits, tokens)
        values, ids = self.top_k(logits, count) or (None, None)  # None for count 0
        out = self._device.empty((rows, 2 + 2 * count), "float64")
        kernel = self._device.kernels.get("top_k", "tell")
        kernel((rows,), (64,), logits, contiguous(self._device, tokens), total, rank, values, ids, out, n, count)
        return out

    def choose(self, logits: Array, settings: Array) -> Array | None:
        """settings float64 [rows, 5] -> int64 [rows]: one token per row, as `Compositions.choose` defines it."""
        if not _fits(logits) or settings.shape != (logits.shape[0], 5) or str(settings.dtype) != "float64":
            return None
        logits, settings, (rows, n) = *(contiguous(self._device, x) for x in (logits, settings)), logits.shape
        best = self._best(logits)
        weights, out = self._device.empty((rows, n), "float64"), self._device.empty((rows,), "int64")
        grid = (rows, -(-n // (_THREADS * _WEIGHTS)))
        self._device.kernels.get("draw", "weigh")(grid, (_THREADS,), logits, best, settings, weights, n)
        kernel = self._device.kernels.get("draw", "draw")
        kernel((rows,), (_threads(n),), logits, weights, best, settings, out, n)
        return out

    def _best(self, x: Array) -> Array:
        rows, n = x.shape
        chunks = -(-n // (_THREADS * _ARGMAX))
        parts = self._device.empty((rows, chunks), "int64")
        self._device.kernels.get("argmax", "argmax_of_chunks")((rows, chunks), (_THREADS,), x, parts, n)
        if chunks == 1:
            return parts.reshape((rows,))
        out = self._device.empty((rows,), "int64")
        self._device.kernels.get("argmax", "argmax_of_parts")((rows,), (32,), x, parts, out, n, chunks)
        return out


def _fits(x: Array) -> bool:
    return x.ndim == 2 and 0 < x.shape[1] < _MOST_TOKENS and str(x.dtype) == "float32"


def _threads(n: int) -> int:
    """Threads of a block that computes one row of n logits."""
    return min(_MOST_THREADS, -(-n // 256) * 32)
