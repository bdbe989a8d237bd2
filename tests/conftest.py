"""What all tests share: how hard Hypothesis looks, how a run is shared out, and the one real model."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ferrum.testing.profiles import load_profile

load_profile()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell starts what runs in its background deaf to Ctrl-C, and children inherit that: some tests send it to them
    signal.signal(signal.SIGINT, signal.default_int_handler)

MOST_PROCESSES = 8
"""Each of them imports everything and may hold a model of its own."""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """`pytest` alone, which runs everything, is shared out among processes, one for each processor, where pytest-xdist
    is installed. A process keeps to neighbouring tests until it runs out of them, so that few fixtures are made twice.
    With any argument a run is one process, as a debugger wants it, unless `-n` says otherwise."""
    if "PYTEST_XDIST_WORKER" in os.environ:  # one of those processes, which has no arguments either
        return
    alone, asked = not config.invocation_params.args, config.option
    if alone and config.pluginmanager.has_plugin("xdist") and asked.numprocesses is None:
        asked.numprocesses, asked.maxprocesses, asked.dist = "auto", MOST_PROCESSES, "worksteal"
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's threads wait for each other by spinning


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The real model, SmolLM2-135M-Instruct in Q4_1, as a .gguf file. Downloaded once and kept in the user's cache: the
    only thing that the tests fetch."""
    from ferrum.load.resolve import resolve

    return resolve("smollm2-135m-instruct").path
