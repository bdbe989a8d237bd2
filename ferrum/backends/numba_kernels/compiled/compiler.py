"""From the name of a Python function to its object code, by Numba.

Owns: how functions are compiled. This is the only module that the rest of the backend imports for it, and only when
something is not in the kernel cache.
Next: `ferrum.backends.numba_kernels.loading.image`.
"""

from __future__ import annotations

import ctypes
from importlib import import_module
from itertools import chain
from typing import Any

from numba import cfunc, types

from ferrum.backends.numba_kernels.loading.objects import ERROR_PATH, ObjectCode
from ferrum.errors import BackendError


def compiled(name: str) -> ObjectCode:
    """The object code of a function whose arguments are all int64 and which returns nothing: "module.function", or
    "module.maker.kind" for the one that a maker returns for a kind of weight."""
    module, attribute, *kinds = name.split(".")
    body = getattr(import_module(f"{__package__}.{module}"), attribute)
    for kind in kinds:
        body = body(kind)
    signature = types.void(*[types.int64] * body.__code__.co_argcount)
    made: Any = cfunc(signature, error_model="numpy")(body)
    _check_calls(name, made._library._final_module)
    return ObjectCode(made.native_name, made._library._get_compiled_object())


def _check_calls(name: str, module: Any) -> None:
    """What Numba alone knows would be missing in a process without Numba."""
    process = ctypes.CDLL(None)
    for called in chain(module.functions, module.global_variables):
        known = called.name.startswith("llvm.") or called.name in ERROR_PATH
        if called.is_declaration and not known and not hasattr(process, called.name):
            raise BackendError(f"kernel {name} uses {called.name}, which is not part of the process")
