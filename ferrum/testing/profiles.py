"""How many examples Hypothesis tries, by the name of a profile.

Owns: the profiles `few` (5 examples, for tests that run again under other conditions), `dev` (25), `ci` (50) and
`nightly` (2000). `few` and `ci` try the same examples in every run. The environment variable HYPOTHESIS_PROFILE
chooses; without it the profile is `ci` where CI is set, and else `dev`. Refuses to know: what is tested.
Specs: HOUSE-17. Next: `ferrum.testing.blocks`.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings


def load_profile() -> str:
    """Registers the profiles and loads the chosen one; returns its name."""
    # no deadline: the first call of a JIT-compiled kernel takes seconds, the second microseconds
    suppressed = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)
    # Hypothesis has its own profile where CI is set, which repeats its examples
    plain = settings.get_profile("default")
    common = settings(plain, deadline=None, suppress_health_check=suppressed, print_blob=True)
    settings.register_profile("few", common, max_examples=5, derandomize=True)
    settings.register_profile("dev", common, max_examples=25)
    settings.register_profile("ci", common, max_examples=50, derandomize=True)
    settings.register_profile("nightly", common, max_examples=2000)
    name = os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
    settings.load_profile(name)
    return name
