"""The backend under test, by the name that its author gave it.

Owns: the forms of such a name (`numpy`, `package.module:Class`, `numpy@float64`), making each backend once per run, and
the message for an option that it does not have. Refuses to know: pytest, properties.
Specs: CONFORM. Next: `ferrum.conformance.admission`.
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
    """The backend does not have this option: one sentence. Its properties are skipped."""


@cache
def load_named(spelling: str, **options: Any) -> TensorOps:
    """A backend by its name; @float64 after it selects another float type. The named module may be in the current
    folder; installed modules have priority."""
    if ":" in spelling and (folder := os.getcwd()) not in sys.path:
        sys.path.append(folder)  # it stays on the path: the module may import its neighbours later
    name, _, float_dtype = spelling.partition("@")
    settings = {"float_dtype": float_dtype, **options} if float_dtype else options
    return load_backend(name, **settings)


def variant_of(spelling: str, **options: Any) -> TensorOps:
    """The same backend with these options. Raises NotDeclared if its class does not take them, or refuses the
    values."""
    try:
        return load_named(spelling, **options)
    except (InvalidParameter, Unsupported) as error:
        raise NotDeclared(f"{spelling} does not declare this: {error}") from None


def overrides(ops: TensorOps, name: str) -> bool:
    """True if the backend overrides the composition of this name."""
    return getattr(type(ops), name) is not getattr(Compositions, name)
