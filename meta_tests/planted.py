"""A plugin for pytest: the tests run on the copy, and stop at the first failing example.

Owns: the check that the package under test is the one in the copy, and a Hypothesis profile that shrinks nothing, since
its examples are not read. Refuses to know: faults. Specs: PROOF-03. Next: `meta_tests.judge`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import Phase, settings

FOLDER = "FERRUM_PLANTED_IN"
"""The environment variable that names the copy."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    """Runs behind every conftest that chooses a profile, and before tests are imported, which read it."""
    import ferrum

    found, wanted = Path(ferrum.__file__).resolve(), Path(os.environ[FOLDER]).resolve()
    if wanted not in found.parents:
        pytest.exit(f"ferrum comes from {found}, not from the copy in {wanted}", returncode=pytest.ExitCode.USAGE_ERROR)
    settings.register_profile("planted", settings(), phases=(Phase.explicit, Phase.generate))
    settings.load_profile("planted")
