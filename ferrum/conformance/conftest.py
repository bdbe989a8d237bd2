"""Which backends the suite runs on, and the fixture `ops` that gives one.

Owns: the default backends, the parsing of `--backend`, the marker `clause`, the Hypothesis profile of this suite.
Refuses to know: what is tested. Specs: OPS. Next: `ferrum.conformance.strategies`.
"""

from __future__ import annotations

import importlib.util
import sys

import pytest

from ferrum.backends.registry import load_backend
from ferrum.conformance import plugin
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
        names = metafunc.config.getoption("--backend", default=[]) or default_backends()
        metafunc.parametrize("ops", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def ops(request: pytest.FixtureRequest) -> TensorOps:
    """The backend under test, made once per run."""
    name, _, float_dtype = str(request.param).partition("@")
    return load_backend(name, float_dtype=float_dtype) if float_dtype else load_backend(name)
