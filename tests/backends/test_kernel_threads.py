"""OPS-42: the same bits on any number of threads, with launches of any size shared out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.backends.numba_kernels.launching import launch, team
from ferrum.backends.numba_kernels.layouts import PROCESSOR_SET_BYTES
from ferrum.backends.numpy_backend import NumbaOps
from ferrum.tensor.batch import KvLayer, RopeTables, StepBatch
from ferrum.tensor.parts import GatedMlp, Norm
from ferrum.tensor.weights import Dense, Linear
from tests.backends.company import random_experts, rule

ALONE, TEAMS = NumbaOps(1), [NumbaOps(2), NumbaOps(3)]


def same_bits(compute: Callable[[NumbaOps], np.ndarray]) -> None:
    expected = compute(ALONE)
    assert np.isfinite(expected).all()
    with patch.object(launch, "SERIAL_WORK", -1):
        for team in TEAMS:
            np.testing.assert_array_equal(compute(team), expected)


def normal(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


@pytest.mark.clause("OPS-42")
@given(tokens=st.integers(1, 80), rows=st.integers(4, 70), groups=st.integers(1, 3), seed=st.integers(0, 99))
def test_products_on_any_number_of_threads(tokens: int, rows: int, groups: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, norm = normal(random, tokens, 32 * groups), Norm(normal(random, 32 * groups), 1e-5)
    one = Linear(Dense(normal(random, rows, 32 * groups)), normal(random, rows))
    other = Linear(Dense(normal(random, rows, 32 * groups).astype(np.float16)))  # decoded into scratch first
    wide = [Linear(Dense(normal(random, 48, 32 * groups))) for _ in range(2)]
    same_bits(lambda ops: np.concatenate(ops.norm_linears(x, norm, (one, other)), 1))
    residual = normal(np.random.default_rng(seed), tokens, rows)
    same_bits(lambda ops: ops.linear_add(x, Linear(one.weight), residual))
    same_bits(lambda ops: ops.linear_add(x, one, residual, None, 0.3))
    same_bits(lambda ops: ops.norm_gated(x, norm, GatedMlp(*wide, wide[0])))
    same_bits(lambda ops: ops.embed(one.weight, np.arange(tokens, dtype=np.int32) % rows))


@pytest.mark.clause("OPS-42")
@given(
    tokens=st.integers(1, 80), count=st.integers(4, 20), chosen=st.integers(1, 4),
    middle=st.sampled_from([32, 96, 544]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_experts_on_any_number_of_threads(tokens: int, count: int, chosen: int, middle: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    experts = random_experts(count, chosen, 64, middle, random, shared=True, gate=True)
    x, norm = normal(random, tokens, 64), Norm(normal(random, 64), 1e-5)
    same_bits(lambda ops: ops.norm_experts(x, norm, experts))


@pytest.mark.clause("OPS-42")
@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=3), heads=st.integers(1, 3), seed=st.integers(0, 99))
def test_attention_on_any_number_of_threads(counts: list[int], heads: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    positions = np.concatenate([np.arange(count) for count in counts]).astype(np.int32)
    sequence = np.repeat(np.arange(len(counts)), counts)
    batch = StepBatch(
        positions, positions, (16 * sequence + positions).astype(np.int32), starts, np.array(counts, np.int32),
        np.arange(len(counts), dtype=np.int32)[:, None], starts[1:] - 1,
        starts=starts.tolist(), contexts=counts,
    )  # fmt: skip
    tables = RopeTables(*(wave(np.outer(np.arange(16), [1.0, 0.1])).astype(np.float32) for wave in (np.cos, np.sin)))
    projections = tuple(normal(random, len(positions), count * 16) for count in (2 * heads, heads, heads))

    def attend(ops: NumbaOps) -> np.ndarray:
        layer = KvLayer(*(np.full((len(counts), heads, 16, 16), np.nan, np.float32) for _ in range(2)))
        return ops.rope_attention(projections, rule(16, 0.25), tables, layer, batch)

    same_bits(attend)


@pytest.mark.clause("OPS-42")
def test_callers_on_several_threads_take_turns() -> None:
    random = np.random.default_rng(0)
    linear, x = Linear(Dense(normal(random, 512, 256))), normal(random, 4, 256)
    expected = ALONE.linear(x, linear)
    found: list[np.ndarray] = []

    def caller() -> None:
        ops = NumbaOps(2)  # a backend has one caller at a time; the team behind it is the process's
        found.extend(ops.linear(x, linear) for _ in range(200))

    callers = [threading.Thread(target=caller) for _ in range(3)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert len(found) == 600
    for result in found:
        np.testing.assert_array_equal(result, expected)


def affinity(monkeypatch: pytest.MonkeyPatch, processors: set[int]) -> None:
    """Lets this process look like one on Linux that may use these processors."""
    monkeypatch.setattr(team.sys, "platform", "linux")
    monkeypatch.setattr(team.os, "sched_getaffinity", lambda process: set(processors), raising=False)


@pytest.mark.clause("OPS-42")
@pytest.mark.parametrize("usable", [{0, 1}, {0, 2, 5}, {7, 8, 9}, {3, 8 * PROCESSOR_SET_BYTES - 1}], ids=str)
def test_a_worker_leaves_for_any_usable_processor_but_the_callers(
    usable: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    affinity(monkeypatch, usable)
    sets = team._processor_sets(2)
    assert sets is not None
    assert (sets.shape, sets.dtype) == ((max(usable) + 1, PROCESSOR_SET_BYTES), np.uint8)
    assert sets.flags.c_contiguous  # compiled code steps from row to row
    for processor, row in enumerate(sets):
        members = {bit for bit in range(8 * PROCESSOR_SET_BYTES) if row[bit // 8] >> bit % 8 & 1}
        assert members == usable - {processor}


@pytest.mark.clause("OPS-42")
@pytest.mark.parametrize(
    ("threads", "usable"),
    [(1, {0, 1}), (3, {0, 1}), (2, {4}), (2, {0, 8 * PROCESSOR_SET_BYTES})],
    ids=["one thread", "more threads than processors", "one processor", "a processor past the set"],
)
def test_workers_stay_where_they_have_no_choice(
    threads: int, usable: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    affinity(monkeypatch, usable)
    assert team._processor_sets(threads) is None


@pytest.mark.clause("OPS-42")
def test_workers_stay_where_the_system_has_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    affinity(monkeypatch, {0, 1})
    monkeypatch.setattr(team.sys, "platform", "darwin")
    assert team._processor_sets(2) is None
