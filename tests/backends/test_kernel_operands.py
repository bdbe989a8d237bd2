"""OPS-43: operands that a kernel does not support go to the composition or are refused; kernels in forked processes."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from dataclasses import make_dataclass, replace
from typing import Any

import numpy as np
import pytest

from ferrum.backends.numpy_backend import NumbaOps, NumpyOps
from ferrum.errors import InvalidParameter
from ferrum.tensor.batch import KvLayer, RopeTables, StepBatch
from ferrum.tensor.parts import ACTIVATIONS, Attention, Experts, GatedMlp, Norm, PlainMlp
from ferrum.tensor.weights import Dense, Linear
from tests.backends.company import rule

ORACLE, OPS = NumpyOps("float64"), NumbaOps(2)
RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


WEIGHT, X = Dense(normal(64, 32)), normal(3, 32)


@pytest.mark.clause("OPS-43")
@pytest.mark.parametrize("bias", [normal(64).astype(np.float64), normal(128)[::2], normal(64)[::-1]])
def test_a_bias_of_another_type_or_layout(bias: np.ndarray) -> None:
    expected = ORACLE.linear(X.astype(np.float64), Linear(WEIGHT, bias))
    np.testing.assert_allclose(OPS.linear(X, Linear(WEIGHT, bias)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.clause("OPS-43")
def test_operands_that_do_not_fit_are_refused() -> None:
    wrong = Linear(Dense(normal(32, 64)))
    refused: list[Callable[[], object]] = [
        lambda: OPS.linear(X, wrong),
        lambda: OPS.norm_linears(X, Norm(np.ones(32, np.float32), 1e-5), (Linear(WEIGHT), wrong)),
        lambda: OPS.norm_linears(X, Norm(np.ones(16, np.float32), 1e-5), (Linear(WEIGHT),)),
        lambda: OPS.normed(X, Norm(np.ones(16, np.float32), 1e-5)),
    ]
    for call in refused:
        with pytest.raises(ValueError, match=r"mismatch|broadcast"):
            call()


def later(kind: type[Any]) -> type[Any]:
    """The same part with a field that no kernel knows."""
    return make_dataclass(kind.__name__, [("later", float, 0.0)], bases=(kind,), frozen=True, eq=False)


LINEAR, TABLE = Linear(WEIGHT), normal(9, 8)
TAKES: list[tuple[Any, Callable[[Any], object]]] = [
    (later(Norm)(np.ones(32, np.float32), 1e-5), OPS._kernels.norm),
    (later(RopeTables)(TABLE, TABLE), OPS._kernels.rotation),
    (later(GatedMlp)(LINEAR, LINEAR, LINEAR), OPS._kernels.mlp),
    (later(PlainMlp)(LINEAR, LINEAR), OPS._kernels.mlp),
    (later(Attention)(LINEAR, LINEAR, LINEAR, LINEAR, 16, 0.25), lambda part: OPS._knows(part, 4) or None),
]


@pytest.mark.clause("OPS-43", "OPS-59")
@pytest.mark.parametrize(("part", "words"), TAKES, ids=[type(part).__name__ for part, _ in TAKES])
def test_a_part_with_a_field_that_kernels_do_not_know_is_theirs_as_long_as_it_is_not_set(
    part: Any, words: Callable[[Any], object]
) -> None:
    assert words(part) is not None
    assert words(replace(part, later=2.0)) is None


@pytest.mark.clause("OPS-43")
def test_sinks_and_growth_of_another_length_are_not_read_past_their_end() -> None:
    attention = Attention(LINEAR, LINEAR, LINEAR, LINEAR, 16, 0.25, sinks=normal(3))
    assert not OPS._knows(attention, 4) and OPS._knows(replace(attention, sinks=normal(4)), 4)
    assert OPS._kernels.rotation(RopeTables(TABLE, TABLE, normal(8))) is None
    assert OPS._kernels.rotation(RopeTables(TABLE, normal(8, 8))) is None
    assert OPS._kernels.rotation(RopeTables(TABLE, TABLE, normal(9))) is not None


@pytest.mark.clause("OPS-43")
def test_a_shared_expert_of_another_width_is_refused() -> None:
    def mlp(width: int) -> GatedMlp:
        up = Linear(Dense(normal(32, 64)))
        return GatedMlp(up, up, Linear(Dense(normal(width, 32))))

    experts = Experts(Linear(Dense(normal(4, 64))), tuple(mlp(64) for _ in range(4)), 2, shared=mlp(32))
    assert OPS._kernels.experts(experts) is not None
    with pytest.raises(ValueError, match="broadcast"):
        OPS.norm_experts(normal(2, 64), None, experts)


@pytest.mark.clause("OPS-13")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_of_any_finite_number(name: str) -> None:
    """This includes the largest numbers of float32, for which exp(-x) overflows."""
    sizes = np.geomspace(30, 3e38, 72).astype(np.float32)
    x = np.concatenate([sizes, -sizes])
    found, expected = OPS.activated(x, name), ORACLE.activated(x.astype(np.float64), name)
    np.testing.assert_allclose(found, expected, rtol=3e-6, atol=1e-30)


@pytest.mark.clause("OPS-43")
def test_a_token_outside_the_table_is_refused() -> None:
    with pytest.raises(IndexError):
        OPS.embed(WEIGHT, np.array([1, 64], np.int32))


@pytest.mark.clause("OPS-43")
def test_no_rows_give_no_rows() -> None:
    assert OPS.linear(X[:0], Linear(WEIGHT)).shape == (0, 64)
    norm = Norm(np.ones(32, np.float32), 1e-5)
    assert [y.shape for y in OPS.norm_linears(X[:0], norm, (Linear(WEIGHT),))] == [(0, 64)]


@pytest.mark.clause("OPS-43")
def test_rope_tables_of_another_type() -> None:
    def attend(ops: NumpyOps, float_type: type) -> np.ndarray:
        angles = np.outer(np.arange(4), [1.0, 0.1])
        layer = KvLayer(np.zeros((1, 1, 4, 4), float_type), np.zeros((1, 1, 4, 4), float_type))
        index = np.array([0], np.int32)
        batch = StepBatch(
            index, index, index, np.array([0, 1], np.int32), index + 1, index[:, None], index,
            starts=[0, 1], contexts=[1],
        )  # fmt: skip
        parts = tuple(np.ones((1, 4), float_type) for _ in range(3))
        return ops.rope_attention(parts, rule(4, 1.0), RopeTables(np.cos(angles), np.sin(angles)), layer, batch)

    np.testing.assert_allclose(attend(OPS, np.float32), attend(ORACLE, np.float64), rtol=1e-5)


@pytest.mark.clause("OPS-43")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_division_by_zero_gives_what_arithmetic_gives() -> None:
    x = np.stack([np.zeros(32, np.float32), X[0]])
    ours, expected = (ops.normed(x, Norm(np.ones(32, np.float32), 0.0)) for ops in (OPS, NumpyOps()))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)  # a row of NaN, and a row of numbers


@pytest.mark.clause("OPS-43")
@pytest.mark.parametrize("threads", [0, -1, 10_000])
def test_a_number_of_threads_that_cannot_be(threads: int) -> None:
    with pytest.raises(InvalidParameter, match="threads must be from 1 to"):
        NumbaOps(threads)


@pytest.mark.clause("OPS-43")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking with threads: just what is tested
def test_a_forked_child_computes() -> None:
    linear, x = Linear(Dense(normal(512, 256))), normal(8, 256)
    expected, stop = OPS.linear(x, linear), threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            NumbaOps(2).linear(x, linear)

    def child(found: multiprocessing.queues.Queue) -> None:  # type: ignore[name-defined]
        found.put(OPS.linear(x, linear))

    busy = threading.Thread(target=keep_busy)
    busy.start()
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    process = context.Process(target=child, args=(found,), daemon=True)
    process.start()
    try:
        np.testing.assert_array_equal(found.get(timeout=60), expected)
    finally:
        stop.set()
        busy.join()
        process.kill()
