"""One property as Hypothesis runs it: the number of examples, and the time limit of the search for the smallest
failure.

Owns: the count, and the end of the search for the smallest failing case. Hypothesis itself allows five minutes per
property; the report of a backend that is wrong everywhere would take hours. Refuses to know: what a property tests.
Specs: CONFORM-05. Next: `ferrum.conformance.record`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from hypothesis.control import current_build_context
from hypothesis.errors import UnsatisfiedAssumption


class Trial:
    """The examples of one property. `seconds`: the time limit of the search for the smallest failing case."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.examples = 0
        self._failed_at: float | None = None
        self._after = 0  # attempts since the first failure

    @property
    def spent(self) -> float:
        """Seconds since the first failure of the property."""
        return 0.0 if self._failed_at is None else time.perf_counter() - self._failed_at

    @contextmanager
    def around(self, property_: Callable[..., Any]) -> Iterator[None]:
        """While the block runs, examples of this property are counted."""
        handle = getattr(property_, "hypothesis", None)
        if handle is None:  # a test without examples runs once
            self.examples = 1
            yield
            return
        tested = handle.inner_test
        handle.inner_test = self._counted(tested)
        try:
            yield
        finally:
            handle.inner_test = tested

    def _counted(self, tested: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(tested)
        def run(*arguments: Any, **keywords: Any) -> Any:
            __tracebackhide__ = True  # pytest shows the property, not who watches it
            if self._is_over():  # as if no data were left; any other end counts as a failure
                current_build_context().data.mark_overrun()
            self.examples += self._failed_at is None
            try:
                return tested(*arguments, **keywords)
            except UnsatisfiedAssumption:
                self.examples -= self._failed_at is None
                raise
            except Exception:
                if self._failed_at is None:
                    self._failed_at = time.perf_counter()
                raise

        return run

    def _is_over(self) -> bool:
        """True if the time is over. The first failure, which Hypothesis repeats before it searches for smaller ones,
        and the smallest one, which it repeats at the end to report it, must fail again, and are not stopped."""
        if self._failed_at is None or current_build_context().is_final:
            return False
        self._after += 1
        return self._after > 1 and self.spent > self.seconds
