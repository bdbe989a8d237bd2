"""Ctrl-C, heard instead of obeyed.

Owns: the process's reaction to Ctrl-C while an answer is made. The first one is a wish that whoever makes the answer
looks at between two tokens, so that no step of the engine is broken off; the second one does not wait.
Refuses to know: what is interrupted. Specs: CLI-68. Next: `ferrum.cli.line_input`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Was it wished that this ends?"""

    def __init__(self) -> None:
        self.wanted = False

    def _hear(self, _signal: int, _frame: FrameType | None) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True


@contextmanager
def interruption(heard: bool) -> Iterator[Interruption]:
    """While the block runs, Ctrl-C is a wish; unless `heard`, it is what it always was."""
    wish = Interruption()
    if not heard:
        yield wish
        return
    before = signal.signal(signal.SIGINT, wish._hear)
    try:
        yield wish
    finally:
        signal.signal(signal.SIGINT, before)
