"""What several tests here share.

Owns: a cache of compiled kernels for tests alone. Refuses to know: what is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is compiled here is kept nowhere else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERRUM_CACHE", str(tmp_path_factory.mktemp("ferrum")))
        yield
