"""What each contestant's arithmetic costs in accuracy: its logits of one prompt beside those of ferrum in float32."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from contestants import BFLOAT16, FERRUM, FERRUM_INT8, SCRIPT, Line
from tasks import Failed, run, say


def relative_l2(exact: np.ndarray, other: np.ndarray) -> float:
    """0 where all logits are equal, 1 where the differences are as large as the logits."""
    wide = exact.astype(np.float64)
    return float(np.linalg.norm(other - wide) / np.linalg.norm(wide))


def errors_of(lines: Sequence[Line], threads: int, failures: list[str]) -> dict[Line, float]:
    """Of all lines whose contestant gives logits, but of ferrum in float32, which is what they are measured by."""
    found: dict[Line, float] = {}
    for name in dict.fromkeys(line.format for line in lines):
        group = [line for line in lines if line.format == name and line.has_logits]
        exact = next((line for line in group if line.contestant == FERRUM), None)
        if exact is None:
            continue
        try:
            wanted = logits_of(exact, threads)
        except Failed as error:
            failures.append(f"{name}, {FERRUM}, logits: {error}")
            continue
        for line in group:
            if line.script != SCRIPT or line.contestant in (BFLOAT16, FERRUM_INT8):  # other targets have the same bits
                try:
                    found[line] = relative_l2(wanted, logits_of(line, threads))
                except Failed as error:
                    failures.append(f"{name}, {line.contestant}, logits: {error}")
    return found


def logits_of(line: Line, threads: int) -> np.ndarray:
    """float32 [tokens, vocabulary]. Raises Failed."""
    say(f"{line.format}, {line.contestant}, logits")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "logits.npy"
        run(line.logits_task(str(path), threads))
        return np.load(path)
