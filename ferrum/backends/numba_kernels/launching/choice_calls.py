"""Launches of the kernels that choose tokens and that compute log probabilities.

Owns: their rows of words. The kernel decides which rows of logits it leaves to the definition.
Specs: OPS-74, OPS-75. Next: `ferrum.backends.numba_kernels.launching.kernel_calls`.
"""

from __future__ import annotations

import numpy as np

from ferrum.backends.numba_kernels.launching.launch import Launcher
from ferrum.backends.numba_kernels.launching.memory import address
from ferrum.backends.numba_kernels.sizes import choice_scratch
from ferrum.tensor.ops import Tensor

WORK = 8
"""The work on one logit, in multiply-adds."""


def choose(launcher: Launcher, logits: Tensor, settings: Tensor) -> np.ndarray:
    """logits float32 [rows, vocab] with a contiguous last axis, settings float64 [rows, 5] -> int64 [rows]: a token, or
    UNDECIDED for a row that is left to the definition."""
    rows, vocab = logits.shape
    settings, tokens = np.ascontiguousarray(settings), np.empty(rows, np.int64)
    launcher.launch(
        "choosing.choose",
        address(logits), logits.strides[0], rows, vocab, address(settings), address(tokens),
        *launcher.scratch(choice_scratch(vocab)), work=0 if rows == 1 else WORK * logits.size, count=3,
    )  # fmt: skip
    return tokens


def ranked(launcher: Launcher, logits: Tensor, tokens: np.ndarray, count: int) -> np.ndarray:
    """logits float32 [rows, vocab] with a contiguous last axis, tokens int64 [rows] -> float64 [rows, 2 + 2 * count]:
    the log probability and the rank of the token, then the ids and the log probabilities of the `count` best tokens."""
    rows, vocab = logits.shape
    tokens, out = np.ascontiguousarray(tokens), np.empty((rows, 2 + 2 * count))
    launcher.launch(
        "ranking.ranked",
        address(logits), logits.strides[0], rows, vocab, address(tokens), count, address(out),
        *launcher.scratch(choice_scratch(vocab)), work=0 if rows == 1 else WORK * logits.size, count=3,
    )  # fmt: skip
    return out
