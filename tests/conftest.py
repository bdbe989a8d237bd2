"""What all tests share: how hard Hypothesis looks, and the one real model."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from ferrum.testing.profiles import load_profile

load_profile()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell starts what runs in its background deaf to Ctrl-C, and children inherit that: some tests send it to them
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The real model, SmolLM2-135M-Instruct in Q4_1, as a .gguf file. Downloaded once and kept in the user's cache: the
    only thing that the tests fetch."""
    from ferrum.load.resolve import resolve

    return resolve("smollm2-135m-instruct").path
