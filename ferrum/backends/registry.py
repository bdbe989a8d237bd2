"""Backends by name, imported only when they are asked for.

Owns: the names of backends, the choice of "auto", entry points of other packages. If a backend that was named cannot
run, that is an error with the reason; no other backend takes its place. Refuses to know: what a backend does.
Specs: OPS-40. Next: `ferrum.backends.array_module`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ferrum.backends.cuda import probe
from ferrum.errors import BackendError, FerrumError, InvalidParameter, NotFound
from ferrum.tensor.compositions import Compositions, TensorOps
from ferrum.tensor.ops import FLOATS, PRIMITIVES, Primitives

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

ENTRY_POINT_GROUP = "ferrum.backends"

BUILTIN = {
    "numpy": "ferrum.backends.numpy_backend:NumpyOps",
    "numba": "ferrum.backends.numpy_backend:NumbaOps",
    "cupy": "ferrum.backends.cupy_backend:CupyOps",
}


def backend_names() -> tuple[str, ...]:
    """The names of built-in backends and of those that installed packages register."""
    return tuple(dict.fromkeys([*BUILTIN, *(point.name for point in _entry_points())]))


def load_backend(name: str = "auto", **options: Any) -> TensorOps:
    """A new backend. name: "auto" (the GPU if there is one, else the CPU), the name of a built-in backend or of an
    entry point, or "package.module:Class". options: its keyword arguments (`threads`, `float_dtype`, …); None: not
    given. Raises NotFound for an unknown name, InvalidParameter for an option that the backend does not have,
    BackendError if it cannot run."""
    if not isinstance(name, str) or not name:
        raise InvalidParameter("backend", f"must be a name, not {name!r}")
    given = {option: value for option, value in options.items() if value is not None}
    make = _find(_best(given) if name == "auto" else name)
    known = inspect.signature(make).parameters
    for option in given:
        if option not in known:
            raise InvalidParameter(option, f"is not an option of backend {name!r}")
    if given.get("float_dtype", "float32") not in FLOATS:
        raise InvalidParameter("float_dtype", f"must be {' or '.join(FLOATS)}, not {given['float_dtype']!r}")
    _check_complete(name, make)
    try:
        return make(**given)
    except FerrumError:
        raise
    except (Exception, SystemExit) as error:
        raise BackendError(f"backend {name!r} cannot run: {_told(error)}") from error


def _check_complete(name: str, made: type[Compositions]) -> None:
    """Raises BackendError for a class that does not define all primitives: those of the protocol do nothing."""
    missing = [each for each in PRIMITIVES if getattr(made, each) is getattr(Primitives, each)]
    if missing:
        first = inspect.getsource(getattr(Primitives, missing[0])).strip()
        raise BackendError(f"backend {name!r} lacks primitives: {', '.join(missing)}. Define the first like: {first}")


def _best(given: Mapping[str, Any]) -> str:
    """The name of the backend that "auto" means. With the option `threads` it is always the CPU."""
    return "cupy" if "threads" not in given and probe.available() else "numba"


def _find(name: str) -> type[Compositions]:
    if name in BUILTIN:
        return _load_class(BUILTIN[name])
    for point in _entry_points():
        if point.name == name:
            return _load_class(point.value)
    if ":" in name:
        return _load_class(name)
    raise NotFound(f"there is no backend {name!r}; known: auto, {', '.join(backend_names())}, or package.module:Class")


def _entry_points() -> EntryPoints:
    """The backends that installed packages register. The import is here because it is slow, and built-in backends do
    not need it."""
    from importlib.metadata import entry_points

    return entry_points(group=ENTRY_POINT_GROUP)


def _load_class(target: str) -> type[Compositions]:
    module_name, _, attribute = target.partition(":")
    if "/" in module_name or module_name.endswith(".py"):
        raise BackendError(f"backend {target!r} cannot be imported: name a module, not a file: package.module:Class")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # another package's module may do anything at import
        raise BackendError(f"backend {target!r} cannot be imported: {_told(error)}") from error
    made = getattr(module, attribute, None)
    if not (isinstance(made, type) and issubclass(made, Compositions)):
        file = getattr(module, "__file__", None)  # often not the module that the caller means
        raise NotFound(f"module {module_name!r}{f' is {file} and' if file else ''} has no backend class {attribute!r}")
    return made


def _told(error: BaseException) -> str:
    return f"it ends the process with {error}" if isinstance(error, SystemExit) else str(error)
