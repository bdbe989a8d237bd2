"""Which part of the suite a run is, so that a partial run is not taken for a whole one.

Owns: what was left out before a run, by words or by files. Refuses to know: the results of properties.
Specs: CONFORM-10. Next: `ferrum.conformance.findings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from ferrum.conformance.order import HERE, backend_of, is_ours


@dataclass(frozen=True)
class Scope:
    """collected: properties in the files of the run, for each backend; selected: those that will run; words: those of
    `-k`; reasons: why else the run is not the whole suite."""

    collected: int = 0
    selected: int = 0
    words: str = ""
    reasons: tuple[str, ...] = ()

    def selection(self) -> str | None:
        """What was left out before the run; None if nothing was."""
        excluded = self.collected - self.selected
        by_words = f" by -k {self.words!r}" if self.words else ""
        deselection = [f"{excluded} of {self.collected} properties left out{by_words}"] if excluded else []
        return ", ".join([*self.reasons, *deselection]) or None


def scope_of(items: Sequence[pytest.Item], config: pytest.Config) -> Scope:
    """The scope before properties are selected."""
    ours = properties_in(items)
    every = {path.name for path in HERE.glob("test_*.py")}
    missing = every - {item.path.name for item in ours}
    reasons = [f"{len(missing)} of {len(every)} files left out"] if missing else []
    reasons += ["properties named one by one"] if any("::" in each for each in config.args) else []
    return Scope(len(ours), words=config.option.keyword, reasons=tuple(reasons))


def properties_in(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The suite's properties among all tests of the run."""
    return [item for item in items if is_ours(item) and backend_of(item) is not None]
