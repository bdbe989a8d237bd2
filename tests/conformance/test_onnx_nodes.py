"""The node tests of ONNX on the built-in backends, with the same file of reasons as benchmarks/others.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.suites import explained, onnx_nodes, table
from benchmarks.suites.verdict import Verdict
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.backends.registry import load_backend
from ferrum.tensor.batch import RopeTables
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor

NOWHERE = Path()  # the cases come with a package that is installed


def verdicts(ops: TensorOps) -> list[Verdict]:
    return list(onnx_nodes.run_on(ops, NOWHERE))


@pytest.mark.clause("SUITE-12")
@pytest.mark.clause("SUITE-13")
@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_node_tests_give_what_onnx_expects(name: str) -> None:
    found, said = verdicts(load_backend(name)), explained.reasons("onnx_nodes")
    assert explained.unexplained(found, said) == []
    assert explained.unneeded(found, said) == []
    (kept,) = [row for row in table.read() if row.suite == f"onnx_nodes on {name}"]
    counted = table.count(kept.suite, kept.whose, found, kept.date)
    assert counted == kept, "python benchmarks/others.py onnx_nodes; then with --readme"


class UncappedScores(NumpyOps):
    def softcapped(self, x: Tensor, cap: float) -> Tensor:
        return x


class TurnsBackwards(NumpyOps):
    def rope(self, x: Tensor, tables: RopeTables, positions: Tensor) -> Tensor:
        return super().rope(x, RopeTables(tables.cos, -tables.sin), positions)


class LaterTies(NumpyOps):
    def argmax(self, x: Tensor, axis: int) -> Tensor:
        return x.shape[axis] - 1 - super().argmax(x[(slice(None),) * (axis % x.ndim) + (slice(None, None, -1),)], axis)


def different(ops: TensorOps, *operators: str) -> Iterator[str]:
    for name, node, expected in onnx_nodes.cases():
        if node.operator in operators and onnx_nodes.judged(ops, name, node, expected).outcome == "different":
            yield name


@pytest.mark.clause("SUITE-13")
def test_a_wrong_backend_is_seen() -> None:
    assert "test_attention_4d_softcap" in different(UncappedScores(), "Attention")
    assert len(list(different(TurnsBackwards(), "RotaryEmbedding"))) == 8
    assert "test_argmax_no_keepdims_example" in different(LaterTies(), "ArgMax")


@pytest.mark.clause("SUITE-13")
def test_what_no_backend_has_to_offer_is_refused() -> None:
    found = {verdict.case: verdict for verdict in verdicts(NumpyOps())}
    assert found["test_max_uint64"].detail == "maximum of uint64"  # NumPy could
    assert found["test_conv_with_autopad_same"].detail == "operator Conv"
    assert found["test_cast_FLOAT_to_INT4"].detail == "Cast: to int4"
    assert found["test_bitcast_scalar_float32_to_int32"].outcome == "equal"
