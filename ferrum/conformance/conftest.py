"""Which backends the suite runs on, and the fixture `ops` that gives one.

Owns: the default backends, the parsing of `--backend`, the marker `clause`, the Hypothesis profile of this suite.
Refuses to know: what is tested. Specs: OPS. Next: `ferrum.conformance.strategies`.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache

import pytest

from ferrum.backends.registry import load_backend
from ferrum.conformance import plugin
from ferrum.errors import FerrumError
from ferrum.tensor.compositions import TensorOps
from ferrum.testing.cuda_shim.compiler import compiler
from ferrum.testing.profiles import load_profile


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    # in a source tree nothing has registered the plugin, and this file is found early enough to stand in for it
    if not pluginmanager.has_plugin(plugin.NAME):
        plugin.pytest_addoption(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "clause(id): the clause of specs/ that this test proves")
    load_profile()


def default_backends() -> list[str]:
    """The oracle in both its float types, the compiled CPU backend where its compiler is installed, and the CUDA
    backend, with its kernels run on the CPU, where theirs is."""
    compiled = ["numba"] if importlib.util.find_spec("numba") else []
    fibers = ["ferrum.testing.cuda_shim.backend:ShimOps"] if compiler() and sys.platform.startswith("linux") else []
    return ["numpy", "numpy@float64", *compiled, *fibers]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "ops" in metafunc.fixturenames:
        named = metafunc.config.getoption("--backend", default=[])
        for name in named:  # one that cannot be made ends the run with one sentence, instead of every test with it
            try:
                made(name)
            except FerrumError as error:
                pytest.exit(f"--backend {name}: {error}", returncode=pytest.ExitCode.USAGE_ERROR)
        names = named or default_backends()
        metafunc.parametrize("ops", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def ops(request: pytest.FixtureRequest) -> TensorOps:
    """The backend under test, made once per run."""
    return made(str(request.param))


@cache
def made(spelling: str) -> TensorOps:
    """A backend by its name, with @float64 behind it for another float type."""
    name, _, float_dtype = spelling.partition("@")
    return load_backend(name, float_dtype=float_dtype) if float_dtype else load_backend(name)
