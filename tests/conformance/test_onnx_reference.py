"""Operations of drawn shapes and values compared with `onnx.reference`, an independent oracle.

ONNX's definitions are given float64, so that a difference is this project's; of norms they make float32 themselves."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from ferrum.backends.registry import load_backend
from ferrum.conformance.attention_oracle import gather
from ferrum.conformance.harness import host, variants
from ferrum.conformance.paged import PagedCase, Rotation, paged_cases, rotations
from ferrum.conformance.strategies import columns, floats, rows, seeds
from ferrum.tensor.compositions import TensorOps

Array = np.ndarray[Any, np.dtype[np.float64]]
OPSET = 28
CLOSE = 2e-5


@pytest.fixture(scope="module", params=["numpy", "numba"])
def ops(request: pytest.FixtureRequest) -> TensorOps:
    return load_backend(request.param)


@cache
def evaluator(operator: str, inputs: int, outputs: int, attributes: tuple[tuple[str, Any], ...]) -> ReferenceEvaluator:
    """A graph of one node."""
    ins, outs = ([f"{letter}{index}" for index in range(count)] for letter, count in (("i", inputs), ("o", outputs)))
    node = helper.make_node(operator, ins, outs, **dict(attributes))
    unsaid = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in (*ins, *outs)]
    graph = helper.make_graph([node], "one", unsaid[:inputs], unsaid[inputs:])
    return ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)]))


def reference(operator: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
    """What ONNX says; floats become float64 first."""
    given = [np.asarray(x, np.float64) if np.asarray(x).dtype.kind == "f" else np.asarray(x) for x in inputs]
    chosen = evaluator(operator, len(given), outputs, tuple(sorted(attributes.items())))
    found = chosen.run(None, {f"i{index}": x for index, x in enumerate(given)})
    return found[0] if outputs == 1 else found


def close(ops: TensorOps, name: str, expected: Any, *arguments: Any, near: float = 1.0) -> None:
    """Every variant of an operation gives the same, to a few roundings of numbers as large as `near`."""
    for function in variants(ops, name):
        np.testing.assert_allclose(host(ops, function(*arguments)), expected, rtol=CLOSE, atol=CLOSE * near)


def placed(ops: TensorOps, values: Any) -> Any:
    return ops.asarray(np.asarray(values), ops.float_dtype)


def drawn(seed: int, *shape: int) -> Array:
    """Values that float32 holds."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(np.float64)


def attended(case: PagedCase, keys: Any, values: Any) -> Array:
    """Each sequence by ONNX's Attention, with what came before as its past: [tokens, heads, head_dim]"""
    attributes: dict[str, Any] = {"scale": float(np.float32(case.scale)), "is_causal": int(case.causal)}
    if case.softcap is not None:
        attributes["softcap"] = case.softcap
    if case.window is not None:
        attributes["left_window_size"] = case.window - 1
        attributes["right_window_size"] = 0 if case.causal else case.window - 1
    found = []
    for sequence, (table, context, count) in enumerate(zip(case.tables, case.contexts, case.counts, strict=True)):
        query = case.query()[case.packed(sequence)].transpose(1, 0, 2)[None]
        own, theirs = (x.transpose(1, 0, 2)[None] for x in gather(keys, values, table, context))
        past = context - count
        inputs = (query, own[:, :, past:], theirs[:, :, past:])
        mask = np.ones((count, context), bool)
        if past:
            inputs = (*inputs, mask, own[:, :, :past], theirs[:, :, :past])
        answer = reference("Attention", *inputs, outputs=3, **attributes)[0]
        found.append(answer[0].transpose(1, 0, 2))
    return np.concatenate(found)


@pytest.mark.clause("SUITE-14")
@given(case=paged_cases(sinking=False, causal=None))
def test_attention(ops: TensorOps, case: PagedCase) -> None:
    layer = case.layer(ops, with_new=True)
    expected = attended(case, *case.pool(ops, with_new=True))
    arguments = placed(ops, case.query()), case.attention(ops), layer, case.batch(ops)
    # scores are sums of head_dim products: what they are off by, the weights are off by
    close(ops, "paged_attention", expected, *arguments, near=1 + 4 * case.scale * case.head_dim)


@pytest.mark.clause("SUITE-14")
@given(data=st.data(), seed=seeds, heads=st.integers(1, 4), tokens=rows, half=st.integers(1, 40))
def test_rotary_embedding(ops: TensorOps, data: st.DataObject, seed: int, heads: int, tokens: int, half: int) -> None:
    case: Rotation = data.draw(rotations(17, 2 * half))
    positions = np.random.default_rng(seed).integers(0, 17, tokens)
    x = drawn(seed, tokens, heads, 2 * half)
    turned = reference(
        "RotaryEmbedding",
        x.transpose(1, 0, 2)[None],
        case.cosines,
        case.sines,
        positions[None],
        rotary_embedding_dim=2 * case.cosines.shape[1],
    )
    arguments = placed(ops, x), case.place(ops), ops.asarray(positions.astype(np.int32), "int32")
    close(ops, "rope", turned[0].transpose(1, 0, 2), *arguments, near=10)


@pytest.mark.clause("SUITE-14")
@given(seed=seeds, count=rows, width=columns, epsilon=st.sampled_from([1e-6, 1e-5, 0.1]))
def test_norms(ops: TensorOps, seed: int, count: int, width: int, epsilon: float) -> None:
    x, weight, bias = drawn(seed, count, width), drawn(seed + 1, width), drawn(seed + 2, width)
    epsilon = float(np.float32(epsilon))
    on_ops = [placed(ops, each) for each in (x, weight, bias)]
    expected = reference("RMSNormalization", x, weight, epsilon=epsilon)
    close(ops, "rms_norm", expected, *on_ops[:2], epsilon, near=10)
    if width > 4:  # fewer may lie so close together that their differences have no digits
        expected = reference("LayerNormalization", x, weight, bias, epsilon=epsilon)
        close(ops, "layer_norm", expected, *on_ops, epsilon, near=10)


@pytest.mark.clause("SUITE-14")
@given(data=st.data(), count=rows, width=columns)
def test_softmax(ops: TensorOps, data: st.DataObject, count: int, width: int) -> None:
    x = data.draw(floats((count, width), -50, 50))
    close(ops, "softmax", reference("Softmax", x), placed(ops, x))
    close(ops, "log_softmax", reference("LogSoftmax", x), placed(ops, x), near=50)


@pytest.mark.clause("SUITE-14")
@given(data=st.data(), count=rows, width=columns)
def test_activations(ops: TensorOps, data: st.DataObject, count: int, width: int) -> None:
    x = data.draw(floats((count, width), -30, 30))
    close(ops, "gelu", reference("Gelu", x), placed(ops, x), near=10)
    close(ops, "gelu_tanh", reference("Gelu", x, approximate="tanh"), placed(ops, x), near=10)
    close(ops, "silu", reference("Swish", x), placed(ops, x), near=10)
    close(ops, "quick_gelu", reference("Swish", x, alpha=float(np.float32(1.702))), placed(ops, x), near=10)
    swiglu = ops.mul(ops.silu(placed(ops, x)), placed(ops, x[::-1].copy()))
    np.testing.assert_allclose(host(ops, swiglu), reference("SwiGLU", x, x[::-1]), rtol=2e-5, atol=1e-4)


@pytest.mark.clause("SUITE-14")
@given(data=st.data(), seed=seeds, count=st.integers(1, 5), width=columns, values=st.sampled_from([2, 9, 10**6]))
def test_top_k(ops: TensorOps, data: st.DataObject, seed: int, count: int, width: int, values: int) -> None:
    """Few different values give many ties."""
    x = np.random.default_rng(seed).integers(-values, values, (count, width)).astype(np.float64)
    most = data.draw(st.integers(1, width))
    expected = reference("TopK", x, np.array([most]), outputs=2)
    for function in variants(ops, "top_k"):
        for found, wanted in zip(function(placed(ops, x), most), expected, strict=True):
            np.testing.assert_array_equal(host(ops, found), wanted)
