"""The node tests of ONNX: an operator, inputs, and the outputs that its authors expect.

Owns: which cases there are, and what is equal. Cases of several nodes are left out: they say of the same data what the
operator's own case says. Refuses to know: how an operator is made of primitives.
Specs: SUITE-13. Source: the backend test suite of ONNX. Next: `ferrum.conformance.harness`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor

from .fetch import ONNX, Source
from .onnx_attention import attention
from .onnx_elementwise import ELEMENTWISE
from .onnx_node import FLOATS, Host, Node, Promised, Refused
from .onnx_rows import ROWS
from .onnx_shapes import SHAPES
from .verdict import Verdict

SOURCE = Source(ONNX, "node tests", of_backends=True)

OPERATORS: Mapping[str, Callable[[Any, Node], Tensor | Sequence[Tensor]]] = {
    **ELEMENTWISE,
    **ROWS,
    **SHAPES,
    "Attention": attention,
}
TOLERANCES = {"float64": 1e-5, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
"""Absolute and relative, by the type of what is expected. The authors' own is 1e-3."""


def run_on(ops: TensorOps, data: Path) -> Iterator[Verdict]:
    for name, node, expected in cases():
        yield judged(ops, name, node, expected)


@cache
def cases() -> list[tuple[str, Node, Sequence[Host]]]:
    """Name, node, and what it should give, of every case of one node."""
    from onnx import helper
    from onnx.backend.test.case.node import collect_testcases

    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on overflows that are meant
        collected = collect_testcases(None)
    for case in collected:
        graph = case.model.graph.node
        if len(graph) != 1:
            continue
        attributes = {each.name: helper.get_attribute_value(each) for each in graph[0].attribute}
        for given, expected in case.data_sets:
            inputs = iter([array(each) for each in given])
            placed = [next(inputs) if name else None for name in graph[0].input]
            node = Node(graph[0].op_type, attributes, placed, list(graph[0].output))
            found.append((case.name, node, [array(each) for each in expected]))
    return found


def array(value: Any) -> Host:
    """Types that NumPy lacks come in the form of a file. What is no tensor is an object, whose type is refused."""
    from onnx import TensorProto, numpy_helper

    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, (np.ndarray, np.generic)) else np.array(None)


def judged(ops: TensorOps, name: str, node: Node, expected: Sequence[Host]) -> Verdict:
    if node.operator not in OPERATORS:
        return Verdict(name, "refused", f"operator {node.operator}")
    try:
        with np.errstate(all="ignore"):
            found = OPERATORS[node.operator](Promised(ops), node)
    except Refused as refused:
        return Verdict(name, "refused", str(refused))
    except Exception as error:
        return Verdict(name, "different", f"{type(error).__name__}: {error}")
    results = found if isinstance(found, (tuple, list)) else [found]
    wanted = [result for index, result in enumerate(results) if node.wants(index)]
    if len(wanted) != len(expected):
        return Verdict(name, "different", f"{len(wanted)} results, expected {len(expected)}")
    wrong = [difference(ops, *pair) for pair in zip(wanted, expected, strict=True)]
    details = "; ".join(each for each in wrong if each)
    return Verdict(name, "different" if details else "equal", details)


def difference(ops: TensorOps, found: Tensor, expected: Host) -> str:
    """In a few words; nothing where there is none. A float that was computed in a wider type is cast first."""
    name = expected.dtype.name
    if name in FLOATS and str(found.dtype) in FLOATS:
        found = ops.cast(found, name)
    if str(found.dtype) != name:
        return f"{found.dtype}, expected {name}"
    given = ops.to_numpy(found)
    if given.shape != expected.shape:
        return f"shape {given.shape}, expected {expected.shape}"
    if name in TOLERANCES:
        tolerance = TOLERANCES[name]
        given, expected = given.astype(np.float64), expected.astype(np.float64)
        same = np.isclose(given, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
    else:
        same = given == expected
    if same.all():
        return ""
    worst = tuple(int(index) for index in np.argwhere(~same)[0])
    return f"{given[worst]} at {list(worst)}, expected {expected[worst]}"
