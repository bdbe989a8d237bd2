"""Checks before any property runs: packages are installed, each backend can be made, and its tensors follow the
protocol.

Owns: these checks; each fails with one sentence. Refuses to know: pytest, properties.
Specs: CONFORM-08, CONFORM-09, CONFORM-11. Next: `specs/README.md`.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from ferrum.conformance.named import load_named
from ferrum.errors import BackendError, ConfigError
from ferrum.tensor.compositions import TensorOps


def check_installed() -> None:
    """Raises ConfigError if a package of the extra is missing."""
    missing = [name for name in ("pytest", "hypothesis") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"the suite needs {' and '.join(missing)}: pip install 'ferrum-ref[conformance]'")


def admit(names: Iterable[str]) -> None:
    """Makes every backend, for the properties to use, and checks one of its tensors. Raises FerrumError."""
    for name in names:
        look_at(name, load_named(name))


def look_at(spelling: str, ops: TensorOps) -> None:
    """Raises BackendError for a mistake that would make every property fail."""
    from ferrum.conformance.tolerances import TOLERANCES

    subject = f"backend {spelling!r}"
    if not isinstance(getattr(ops, "name", None), str):
        raise BackendError(f"{subject} has no name: `name` of the class is to be a string")
    float_dtype = getattr(ops, "float_dtype", None)
    if float_dtype not in TOLERANCES:
        raise BackendError(f"{subject} has the float_dtype {float_dtype!r}; it must be one of {', '.join(TOLERANCES)}")
    try:
        x = ops.full((2, 3), 1, float_dtype)
    except (Exception, SystemExit):  # the properties of `full` report it in more detail
        return
    dtype, shape = str(getattr(x, "dtype", None)), getattr(x, "shape", None)
    if dtype != float_dtype:
        raise BackendError(f"str(x.dtype) of a tensor of {subject} is {dtype!r}; it must be {float_dtype!r}")
    if not (isinstance(shape, tuple) and all(isinstance(size, int) for size in shape)):
        raise BackendError(f"x.shape of a tensor of {subject} is {shape!r}; it must be a tuple of int, as (2, 3)")
