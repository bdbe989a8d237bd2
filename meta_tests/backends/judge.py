"""Runs one property of the conformance suite on a backend.
Owns: copies of the suite's modules whose properties stop at the first failure. Refuses to know: which faults there are.
"""

from __future__ import annotations

import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable
from functools import cache, partial
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

import ferrum.conformance
from ferrum.tensor.compositions import Compositions
from meta_tests.backends.fault import Proof

MANY, FEW = 1000, 5
"""Numbers of examples: to find a mistake, and to check that a right backend passes."""


def survives(ops: Compositions, proof: Proof, examples: int = MANY) -> bool:
    """True if a property holds on this backend, or is skipped."""
    judged = properties(examples)[proof.property]
    fixtures = {"ops": ops, "variant": partial(type(ops))}
    wanted = fixtures.keys() & inspect.signature(judged).parameters.keys()
    try:
        judged(**proof.arguments, **{name: fixtures[name] for name in wanted})
    except pytest.skip.Exception:
        return True
    except Exception:
        return False
    return True


@cache
def properties(examples: int) -> dict[str, Callable[..., None]]:
    """Every property of the suite by its name."""
    profile, current = f"meta-{examples}", settings.get_current_profile_name()
    settings.register_profile(
        profile,
        max_examples=examples,
        phases=[Phase.explicit, Phase.generate],
        database=None,
        deadline=None,
        derandomize=True,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile(profile)  # a property keeps the settings under which it was defined
    try:
        modules = [_copy(each.name) for each in pkgutil.iter_modules(ferrum.conformance.__path__)]
    finally:
        settings.load_profile(current)
    return {
        name: value
        for module in modules
        if module is not None
        for name, value in vars(module).items()
        if name.startswith("test_") and value.__module__ == module.__name__
    }


def _copy(name: str) -> ModuleType | None:
    """A module of the suite, imported a second time."""
    if not name.startswith("test_"):
        return None
    full = f"ferrum.conformance.{name}"
    spec: Any = importlib.util.find_spec(full)
    made, usual = importlib.util.module_from_spec(spec), sys.modules.get(full)
    sys.modules[full] = made  # dataclasses look for the module that they are made in
    try:
        spec.loader.exec_module(made)
    finally:
        del sys.modules[full]
        if usual is not None:
            sys.modules[full] = usual
    return made
