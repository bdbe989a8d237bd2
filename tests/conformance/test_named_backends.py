"""Backends under test by their names, and variants of them."""

from __future__ import annotations

import pytest

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.conformance.named import NotDeclared, load_named, variant_of
from ferrum.errors import Unsupported


class OneType(NumpyOps):
    def __init__(self, float_dtype: str = "float32") -> None:
        if float_dtype != "float32":
            raise Unsupported("one type only")
        super().__init__()


@pytest.mark.clause("CONFORM-01")
def test_an_option_that_a_class_does_not_take_is_not_declared() -> None:
    assert variant_of("numpy", float_dtype="float64").float_dtype == "float64"
    with pytest.raises(NotDeclared, match=r"numpy does not declare this: .*bogus"):
        variant_of("numpy", bogus=True)
    with pytest.raises(NotDeclared, match="one type only"):
        variant_of(f"{__name__}:OneType", float_dtype="float64")


@pytest.mark.clause("CONFORM-01")
def test_a_variant_has_the_float_type_of_its_backend_and_is_made_once() -> None:
    variant = variant_of("numpy@float64", deterministic=True)
    assert (variant.float_dtype, variant.deterministic) == ("float64", True)
    assert variant is variant_of("numpy@float64", deterministic=True) is not load_named("numpy@float64")
