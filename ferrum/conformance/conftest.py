"""The backends that the suite runs on, and the fixtures that make one: `ops`, and `variant` with other options.

Owns: the default backends, the marker `clause`, the effect of the options of `plugin` on pytest. Refuses to know: what
is tested.
Specs: OPS, CONFORM. Next: `ferrum.conformance.named`.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from ferrum.conformance import plugin
from ferrum.conformance.named import NotDeclared, load_named, variant_of
from ferrum.conformance.order import LISTED, in_order, mark_xfails, under_own_names
from ferrum.conformance.record import watched
from ferrum.conformance.recorder import RECORDER
from ferrum.errors import FerrumError
from ferrum.tensor.compositions import TensorOps
from ferrum.testing.cuda_shim.compiler import compiler
from ferrum.testing.profiles import load_profile


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    # in a source tree the plugin is not registered, and this file is loaded early enough to register it
    if not pluginmanager.has_plugin(plugin.NAME):
        pluginmanager.register(plugin, plugin.NAME)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "clause(id): the clause of specs/ that this test proves")
    if config.getoption("--level", default=None) is None:  # a level is its own profile
        load_profile()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    try:
        mark_xfails(config.getoption("--xfails-file", default=None), items)  # before -k removes any
    except FerrumError as error:
        raise pytest.UsageError(str(error)) from None
    with under_own_names(items):
        yield
    in_order(items)  # after pytest has sorted them


def default_backends() -> list[str]:
    """The oracle in both float types, the compiled CPU backend if its compiler is installed, and the CUDA backend, with
    its kernels run on the CPU, if a C++ compiler is installed."""
    compiled = ["numba"] if importlib.util.find_spec("numba") else []
    fibers = ["ferrum.testing.cuda_shim.backend:ShimOps"] if compiler() and sys.platform.startswith("linux") else []
    return ["numpy", "numpy@float64", *compiled, *fibers]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        names = metafunc.config.getoption("--backend", default=[]) or default_backends()
        metafunc.parametrize("backend", list(dict.fromkeys(names)), indirect=True, scope="session")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call" and call.excinfo is None and report.failed and LISTED in item.stash:
        report.longrepr = item.stash[LISTED]
    return report


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> str:
    """The name of the backend under test."""
    return str(request.param)


@pytest.fixture(scope="session")
def ops(backend: str, pytestconfig: pytest.Config) -> TensorOps:
    """The backend under test, made once per run."""
    return watched(load_named(backend)) if is_recorded(pytestconfig) else load_named(backend)


def is_recorded(config: pytest.Config) -> bool:
    return config.pluginmanager.has_plugin(RECORDER)


@pytest.fixture(scope="session")
def variant(backend: str, pytestconfig: pytest.Config) -> Callable[..., TensorOps]:
    """`variant(deterministic=True)` is the backend under test with that option, made once per run. The test is skipped
    if the class does not take the option."""

    def make(**options: Any) -> TensorOps:
        try:
            tensor_ops = variant_of(backend, **options)
        except NotDeclared as reason:
            pytest.skip(str(reason))
        return watched(tensor_ops) if is_recorded(pytestconfig) else tensor_ops

    return make
