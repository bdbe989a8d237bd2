"""What the machine itself can do, measured like everything else: a contestant without a model.

Reading: every thread sums its share of a gigabyte, as 64-bit integers, far more than any cache holds; and one thread
alone does it too. Arithmetic:
a product of two float32 matrices of 2048 by 2048 in NumPy's BLAS. Of a few tries the fastest counts: a limit is what
was reached once.
"""

from __future__ import annotations

import os
import threading
from time import perf_counter

from tasks import answer, told

BUFFER_BYTES = 1 << 30
SIDE = 2048
TRIES = 8


def main() -> None:
    threads = told().threads
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # read when NumPy is first imported
        os.environ[name] = str(threads)
    answer(read_bytes_s=read_rate(threads), read_alone_bytes_s=read_rate(1), sgemm_flop_s=sgemm_rate())


def read_rate(threads: int) -> float:
    """Bytes per second that so many threads read together."""
    import numba
    import numpy as np

    @numba.njit("int64(int64[::1])", nogil=True)
    def total(words: np.ndarray) -> int:
        found = 0
        for word in words:
            found += word
        return found

    parts = np.array_split(np.ones(BUFFER_BYTES // 8, np.int64), threads)  # written once: every page exists
    best = float("inf")
    for _ in range(TRIES):
        workers = [threading.Thread(target=total, args=(part,)) for part in parts]
        started = perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = min(best, perf_counter() - started)
    return BUFFER_BYTES / best


def sgemm_rate() -> float:
    """Floating-point operations per second: two for each multiply-add."""
    import numpy as np

    generator = np.random.default_rng(0)
    left, right = (generator.random((SIDE, SIDE), np.float32) for _ in range(2))
    out = np.empty((SIDE, SIDE), np.float32)
    best = float("inf")
    for _ in range(TRIES):
        started = perf_counter()
        np.matmul(left, right, out=out)
        best = min(best, perf_counter() - started)
    return 2 * SIDE**3 / best


if __name__ == "__main__":
    main()
