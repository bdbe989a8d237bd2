"""Backends with one mistake each. The conformance suite has to find every one of them.

Owns: the list of faults and controls, read from the modules of this package. Every class says of itself which property
finds it (`@caught_by`), or why it is no fault (`@permitted`); the first line of its docstring says what a real kernel
does wrong. A fault's `spelling` is what `pytest --pyargs ferrum.conformance --backend` takes.
Refuses to know: how a fault is judged (`meta_tests.backends.judge`).
Specs: OPS-11, PROOF-20, PROOF-21.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from ferrum.tensor.compositions import Compositions
from meta_tests.backends.fault import Control, Fault


def faults() -> tuple[Fault, ...]:
    """Every faulty backend, in the order of modules and of lines."""
    return tuple(Fault(each, vars(each)["proofs"]) for each in backends() if "proofs" in vars(each))


def controls() -> tuple[Control, ...]:
    """Every backend that the suite has to accept."""
    return tuple(Control(each, *vars(each)["permitted"]) for each in backends() if "permitted" in vars(each))


def backends() -> Iterator[type[Compositions]]:
    """Every backend class that is defined in this package."""
    for found in pkgutil.iter_modules(__path__):
        if not found.name.startswith("test_"):
            module = importlib.import_module(f"{__name__}.{found.name}")
            for value in vars(module).values():
                if isinstance(value, type) and issubclass(value, Compositions) and value.__module__ == module.__name__:
                    yield value
