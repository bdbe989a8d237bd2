"""How many examples the suite tries: `--level smoke`, `full` or `stress`.

Owns: the levels, as numbers. Every property runs at every level. Refuses to know: properties; Hypothesis, until a level
is chosen.
Specs: CONFORM-03. Next: `ferrum.conformance.trial`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Level:
    """examples: of each property. repeatable: True if every run tries the same ones. shrinking: seconds in which the
    smallest failing case of one property is searched; all_shrinking: of all such properties together."""

    examples: int
    repeatable: bool
    shrinking: float
    all_shrinking: float


LEVELS: Mapping[str, Level] = {
    "smoke": Level(examples=5, repeatable=True, shrinking=3, all_shrinking=15),
    "full": Level(examples=100, repeatable=True, shrinking=5, all_shrinking=60),
    "stress": Level(examples=2000, repeatable=False, shrinking=60, all_shrinking=600),
}
"""smoke: after every change. full: before a release. stress: every night."""


def load_level(name: str) -> Level:
    """Configures Hypothesis. Properties that are defined from now on follow the level."""
    from hypothesis import Phase, settings

    from ferrum.testing.profiles import load_profile

    load_profile()  # a level shares the settings of all profiles
    level = LEVELS[name]
    profile = f"conformance-{name}"
    settings.register_profile(
        profile,
        settings(),
        max_examples=level.examples,
        database=None,  # a level is the same on every machine, and leaves no files
        derandomize=level.repeatable,
        report_multiple_bugs=False,
        print_blob=False,
        phases=[phase for phase in Phase if phase is not Phase.explain],  # explaining takes longer than shrinking
    )
    settings.load_profile(profile)
    return level
