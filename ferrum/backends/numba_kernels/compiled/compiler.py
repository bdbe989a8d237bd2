"""Compilation of a function by Numba: from its name to its object code.

Owns: how functions are compiled. `loading.library` imports this module when a function is not in the kernel cache, and
this module imports that of the function. No other module outside of this folder imports Numba.
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
    """The object code of a function of int64 arguments without a result. `name` is "module.function", or
    "module.maker.kind" for the function that maker(kind) returns."""
    module, attribute, *kinds = name.split(".")
    body = getattr(import_module(f"{__package__}.{module}"), attribute)
    for kind in kinds:
        body = body(kind)
    signature = types.void(*[types.int64] * body.__code__.co_argcount)
    function: Any = cfunc(signature, error_model="numpy")(body)
    _check_calls(name, function._library._final_module)
    return ObjectCode(function.native_name, function._library._get_compiled_object())


def _check_calls(name: str, module: Any) -> None:
    """Raises BackendError if the code calls a function that only Numba provides: a warm start does not load Numba."""
    process = ctypes.CDLL(None)
    for called in chain(module.functions, module.global_variables):
        is_allowed = called.name.startswith("llvm.") or called.name in ERROR_PATH
        if called.is_declaration and not is_allowed and not hasattr(process, called.name):
            raise BackendError(f"kernel {name} uses {called.name}, which is not part of the process")
