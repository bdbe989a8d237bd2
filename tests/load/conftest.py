"""A packaged model, and a cache for it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ferrum.load.packaged import PackagedModel
from tests.load.toy_package import CONTENT, make_wheel


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "deep" / "cache"
    monkeypatch.setenv("FERRUM_CACHE", str(folder))
    return folder


@pytest.fixture
def toy(tmp_path: Path) -> PackagedModel:
    wheel = make_wheel(tmp_path / "toy.whl")
    return PackagedModel("toy", "toy-model==1.0", "toy_model", "toy_model/toy.gguf", len(CONTENT), len(wheel),
                         hashlib.sha256(wheel).hexdigest(), hashlib.sha256(CONTENT).hexdigest())  # fmt: skip
