"""A browser and a server for all tests of a file, and the page as it is seen for the first time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser import Browser, chromium
from tests.server.page.steps import scripted, visit
from tests.server.suites.serving import Server


@pytest.fixture(scope="session")
def window() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with scripted(tmp_path_factory.mktemp("page")) as running:
        yield running


@pytest.fixture
def page(window: Browser, server: Server) -> Browser:
    visit(window, server.url)
    return window
