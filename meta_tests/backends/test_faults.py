"""The conformance suite fails on backends with common mistakes."""

from __future__ import annotations

import pytest

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.tensor.compositions import Compositions
from meta_tests.backends import backends, controls, faults
from meta_tests.backends.fault import Control, Fault, Proof
from meta_tests.backends.judge import FEW, survives

FAULTS = [(fault, proof) for fault in faults() for proof in fault.proofs]
PROOFS = list({repr(proof): proof for _, proof in FAULTS}.values())
ACCEPTED = [(control, proof) for control in controls() for proof in control.proofs]


def name(value: object) -> str:
    if isinstance(value, Fault):
        return value.name
    if isinstance(value, Control):
        return value.backend.__name__
    return "-".join([value.property, *map(str, value.arguments.values())]) if isinstance(value, Proof) else str(value)


@pytest.mark.clause("OPS-11", "PROOF-20")
@pytest.mark.parametrize(("fault", "proof"), FAULTS, ids=name)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_faulty_backend_is_caught(fault: Fault, proof: Proof) -> None:
    assert not survives(fault.backend(), proof), f"{proof.property} does not notice: {fault.sentence}"


@pytest.mark.clause("PROOF-21")
@pytest.mark.parametrize("proof", PROOFS, ids=name)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_catches_a_fault_passes_without_it(proof: Proof) -> None:
    """Arguments that no property takes would catch everything."""
    assert survives(NumpyOps(), proof, FEW)


@pytest.mark.clause("OPS-11")
@pytest.mark.parametrize(("control", "proof"), ACCEPTED, ids=name)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_another_right_way_passes(control: Control, proof: Proof) -> None:
    assert survives(control.backend(), proof, FEW)


@pytest.mark.clause("PROOF-20")
def test_every_backend_here_says_what_it_is() -> None:
    """A line of text each; and all but bases are judged."""
    for backend in backends():
        sentence = vars(backend).get("__doc__") or ""
        assert sentence.endswith(".") and "\n" not in sentence, backend
        marks = [mark in vars(backend) for mark in ("proofs", "permitted")]
        assert marks.count(True) == (0 if sentence.startswith("Base of ") else 1), backend


@pytest.mark.clause("OPS-01")
def test_a_missing_primitive_is_caught() -> None:
    methods = {name: value for name, value in vars(NumpyOps).items() if name not in ("erf", "__dict__", "__weakref__")}
    lacking = type("Lacking", (Compositions,), methods)()
    assert survives(lacking, Proof("test_every_primitive_is_there", {"name": "tanh"}))
    assert not survives(lacking, Proof("test_every_primitive_is_there", {"name": "erf"}))
