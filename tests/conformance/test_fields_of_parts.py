"""The suite sets every field of every part, so that no kernel can leave one out."""

from __future__ import annotations

from dataclasses import MISSING, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.conformance.parts import norms
from ferrum.tensor.batch import RopeTables
from ferrum.tensor.parts import Attention, Embedding, Experts, GatedMlp, Head, Norm, PlainMlp, sets_beyond
from meta_tests.backends.fault import Proof
from meta_tests.backends.judge import survives

PLACES: dict[type[Any], tuple[str, str]] = {
    RopeTables: ("rope_attention", "test_rope_attention_normalises_rotates_writes_and_then_attends"),
    Norm: ("normed", "test_normed_is_the_norm_that_a_model_has"),
    Embedding: ("embedded", "test_embedded_scales_rows_adds_to_them_and_normalises_the_sum"),
    Attention: ("rope_attention", "test_rope_attention_normalises_rotates_writes_and_then_attends"),
    GatedMlp: ("gated", "test_gated_gates_with_its_first_argument"),
    PlainMlp: ("norm_activated", "test_norm_activated_is_all_but_the_last_linear"),
    Experts: ("norm_experts", "test_a_token_is_computed_by_the_experts_that_its_router_chooses"),
    Head: ("logits", "test_logits_are_scaled_and_then_capped"),
}
"""The composition that every use of a part goes through, and the property that sets its fields."""
OPTIONAL = [(kind, each.name) for kind in PLACES for each in fields(kind) if each.default is not MISSING]


def without(part: Any, field: str) -> Any:
    """The part with one field at its default; a backend that knows nothing of the field sees this."""
    plain = next(each.default for each in fields(part) if each.name == field)
    return replace(part, **{field: plain})


@pytest.mark.clause("OPS-59")
@pytest.mark.parametrize(("kind", "field"), OPTIONAL, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_backend_that_knows_nothing_of_a_field_is_caught(kind: type[Any], field: str) -> None:
    place, proof = PLACES[kind]

    def ignorant(self: NumpyOps, *arguments: Any) -> Any:
        known = [without(each, field) if isinstance(each, kind) else each for each in arguments]
        return getattr(NumpyOps, place)(self, *known)

    broken = type(f"Without{field}", (NumpyOps,), {place: ignorant})
    assert not survives(broken(), Proof(proof, {}))


@pytest.mark.clause("OPS-59")
@given(data=st.data())
def test_a_field_in_use_is_seen(data: st.DataObject) -> None:
    norm = data.draw(norms(4)).place(NumpyOps())
    known = data.draw(st.sets(st.sampled_from(["bias", "centred"])))
    used = {name for name, is_used in (("bias", norm.bias is not None), ("centred", norm.centred)) if is_used}
    assert sets_beyond(norm, known | {"weight", "epsilon"}) == bool(used - known)
    assert sets_beyond(norm, known | {"weight"})  # what has no default is always in use
