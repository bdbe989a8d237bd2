"""The backend under test, by the name that its author gave it.

Owns: how such a name is spelled (`numpy`, `package.module:Class`, `numpy@float64`), that each backend is made once a
run, and what is said of an option that it does not have.
Refuses to know: pytest, properties. Specs: CONFORM. Next: `ferrum.conformance.admission`.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import Any

from ferrum.backends.registry import load_backend
from ferrum.errors import InvalidParameter, Unsupported
from ferrum.tensor.compositions import Compositions, TensorOps


class NotDeclared(Exception):
    """The backend does not say that it can do this: one sentence. Its properties are passed over."""


@cache
def made(spelling: str, **options: Any) -> TensorOps:
    """A backend by its name, with @float64 behind it for another float type. A module that is named may lie in the
    current folder; what is installed comes first."""
    if ":" in spelling and (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # and stays: the module may import its neighbours later
    name, _, float_dtype = spelling.partition("@")
    chosen = {"float_dtype": float_dtype, **options} if float_dtype else options
    return load_backend(name, **chosen)


def variant_of(spelling: str, **options: Any) -> TensorOps:
    """The same backend with these options. Raises NotDeclared where its class does not take them, or refuses the
    values."""
    try:
        return made(spelling, **options)
    except (InvalidParameter, Unsupported) as error:
        raise NotDeclared(f"{spelling} does not declare this: {error}") from None


def overrides(ops: TensorOps, name: str) -> bool:
    """Has the backend a composition of this name of its own?"""
    return getattr(type(ops), name) is not getattr(Compositions, name)
