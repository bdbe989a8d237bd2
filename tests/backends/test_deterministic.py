"""OPS-45 to OPS-47: in deterministic mode a row has the same bits beside any other rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferrum.backends.numba_kernels.launching import launch
from ferrum.backends.numba_kernels.launching.launch import Tape
from ferrum.backends.numpy_backend import NumbaOps, NumpyOps
from ferrum.backends.registry import load_backend
from ferrum.config import RopeConfig
from ferrum.load.model import load_model
from ferrum.model.params import DecoderParams
from ferrum.tensor import attention
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import GatedMlp
from ferrum.tensor.weights import Q4_0, Q4_1, Q8_0, Dense, Weight
from tests.backends.company import Model, Part, Session, alone, check, in_company, quantised, with_experts, with_weights
from tests.tiny import dense_logits, distance, tiny_config, tiny_params

LONGEST = 24
LONG = 320
FEWER = settings(max_examples=max(5, settings.default.max_examples // 4))
"""The number of examples is small, since each is a model with many steps."""

NATIVE: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "vocab_size": 96, "eos_token_ids": (),
    "max_positions": LONG,
}  # fmt: skip
"""Sizes for which every kernel runs."""


@dataclass(frozen=True)
class Variant:
    """A random model: fields of its configuration, and the types of its weights and of its keys and values."""

    changes: dict[str, Any] = field(default_factory=dict)
    weights: Callable[[Weight], Weight] | None = None
    biased: bool = False
    kv_dtype: str | None = None
    expert_rows: int = 0  # of mixtures instead of MLPs

    def model(self, ops: TensorOps) -> Model:
        config = tiny_config(**self.changes)
        return Model(ops, config, self.params(), self.kv_dtype)

    def params(self) -> DecoderParams:
        params = tiny_params(tiny_config(**self.changes))
        if self.expert_rows:
            params = with_experts(params, self.expert_rows)
        return with_weights(params, self.weights or (lambda weight: weight), biased=self.biased)


def stored_as(dtype: Any) -> Callable[[Weight], Weight]:
    return lambda weight: Dense(weight.data.astype(dtype))


def blocks_of(kind: type[Weight]) -> Callable[[Weight], Weight]:
    return lambda weight: quantised(kind, weight.shape, np.random.default_rng(weight.rows))


FITTING = {
    "kernels": Variant(NATIVE),
    "kernels, window and softcap": Variant({**NATIVE, "sliding_window": 5, "attention_softcap": 2.0}),
    "kernels, biases": Variant(NATIVE, biased=True),
    "q8_0": Variant(NATIVE, blocks_of(Q8_0)),
    "q4_0": Variant(NATIVE, blocks_of(Q4_0)),
    "q4_1": Variant({**NATIVE, "kv_heads": 1}, blocks_of(Q4_1)),
    "float16 weights": Variant(NATIVE, stored_as(np.float16)),
    "bfloat16 weights": Variant(NATIVE, stored_as(ml_dtypes.bfloat16)),
    "float16 cache": Variant(NATIVE, kv_dtype="float16"),
    "q8_0 cache": Variant({**NATIVE, "head_dim": 32, "rope": RopeConfig(10000.0, 32)}, kv_dtype="q8_0"),
    "odd heads": Variant({**NATIVE, "head_dim": 24, "rope": RopeConfig(10000.0, 12), "kv_heads": 1}),
    "experts": Variant(NATIVE, expert_rows=32),
    "experts, biases, float16 weights": Variant(NATIVE, stored_as(np.float16), True, expert_rows=96),
}
"""Models that kernels compute completely."""
FALLING_BACK = {
    "grouped": Variant(),
    "one kv head": Variant({"kv_heads": 1}),
    "window": Variant({"sliding_window": 5}),
    "softcap": Variant({"attention_softcap": 2.0, "attention_scale": 0.5}),
    "biases": Variant(biased=True),
    "odd intermediate": Variant({**NATIVE, "intermediate_size": 40}),
    "odd hidden": Variant({**NATIVE, "hidden_size": 50}),
    "odd attention": Variant({**NATIVE, "head_dim": 12}),
    "bfloat16 cache": Variant(NATIVE, kv_dtype="bfloat16"),
    "bfloat16 cache, q4_1": Variant({**NATIVE, "attention_softcap": 2.0}, blocks_of(Q4_1), kv_dtype="bfloat16"),
    "experts of odd size": Variant(NATIVE, expert_rows=40),
}
"""Models of which compositions compute at least a part."""
VARIANTS = {**FITTING, **FALLING_BACK}

BACKENDS: dict[str, Callable[[], TensorOps]] = {
    "numpy-float32": lambda: NumpyOps("float32", deterministic=True),
    "numpy-float64": lambda: NumpyOps("float64", deterministic=True),
    "numba-1": lambda: NumbaOps(1, deterministic=True),
    "numba-2": lambda: load_backend("numba", threads=2, deterministic=True),
    "numba, mode off": lambda: NumbaOps(2),
}
REFERENCE = {"numba-2": "numba-1", "numba, mode off": "numba-1"}
"""For a backend the one whose bits it must have. All other backends are compared with themselves."""


@functools.cache
def model_of(backend: str, variant: str) -> Model:
    return VARIANTS[variant].model(BACKENDS[backend]())


@pytest.fixture
def all_shared_out() -> Iterator[None]:
    """While the block runs, all threads take part in every launch, also in small ones."""
    with patch.object(launch, "SERIAL_WORK", -1):
        yield


def draw_texts(random: Random, vocab: int, most: int, longest: int) -> list[list[int]]:
    lengths = [random.randint(1, longest) for _ in range(random.randint(1, most))]
    return [[random.randrange(vocab) for _ in range(length)] for length in lengths]


def check_short_texts(model: Model, reference: Model, random: Random) -> None:
    texts = draw_texts(random, model.config.vocab_size, 3, LONGEST)
    with patch.object(NumbaOps, "FUSED_TOKENS", random.choice([1, 4, 64])):
        found = in_company(model, texts, random, range(1, LONGEST + 1))
    check(found, reference)


def short_texts(backend: str, variant: str, random: Random) -> None:
    check_short_texts(model_of(backend, variant), model_of(REFERENCE.get(backend, backend), variant), random)


@pytest.mark.clause("OPS-45")
@pytest.mark.usefixtures("all_shared_out")
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("backend", ["numpy-float32", "numpy-float64", "numba-1", "numba-2"])
@FEWER
@given(random=st.randoms())
def test_company_changes_no_bit(backend: str, variant: str, random: Random) -> None:
    short_texts(backend, variant, random)


@pytest.mark.clause("OPS-47")
@pytest.mark.usefixtures("all_shared_out")
@pytest.mark.parametrize("variant", FITTING)
@FEWER
@given(random=st.randoms())
def test_kernels_have_the_bits_of_the_mode_without_it(variant: str, random: Random) -> None:
    short_texts("numba, mode off", variant, random)


# ---- long texts: many runs of positions, more tokens than fused operations take, more sequences than are replayed
CUTS = (1, 6, 7, 16, 63, 64, 65, 100, LONG)
MOST_TEXTS = 12


@pytest.mark.clause("OPS-45", "OPS-47")
@pytest.mark.parametrize("variant", ["kernels", "kernels, window and softcap", "q4_1", "odd intermediate", "experts"])
@pytest.mark.parametrize("backend", ["numba-1", "numba-2"])
@FEWER
@given(random=st.randoms(use_true_random=True))
def test_long_texts_in_long_and_short_chunks(backend: str, variant: str, random: Random) -> None:
    model, reference = model_of(backend, variant), model_of(REFERENCE.get(backend, backend), variant)
    texts = draw_texts(random, model.config.vocab_size, 3, LONG)
    check(in_company(model, texts, random, CUTS), reference)


@pytest.mark.clause("OPS-45")
@pytest.mark.parametrize("variant", ["kernels", "window"])
def test_a_long_text_by_the_definitions(variant: str) -> None:
    model, random = model_of("numpy-float32", variant), Random(0)
    texts = [[random.randrange(96) for _ in range(length)] for length in (60, 7)]
    check(in_company(model, texts, random, CUTS), model)


@pytest.mark.clause("OPS-45", "OPS-47")
@pytest.mark.usefixtures("all_shared_out")
@pytest.mark.parametrize("variant", ["kernels", "q4_1", "experts", "grouped"])
@FEWER
@given(random=st.randoms(use_true_random=True))
def test_decoding_in_batches_of_any_size(variant: str, random: Random) -> None:
    """Each sequence has one new token in a step. Steps of small batches are recorded and replayed."""
    model = model_of("numba-2", variant)
    texts = [[random.randrange(96) for _ in range(random.randint(1, 40))] for _ in range(MOST_TEXTS)]
    session = Session(model, [[*text, 1, 2, 3, 4, 5] for text in texts], 8, random)
    session.run([Part(t, len(t.token_ids) - 5, [len(t.token_ids) - 6]) for t in session.texts], replay=True)
    with patch.object(Tape, "replay", autospec=True, side_effect=Tape.replay) as replay:
        for _ in range(3):
            session.run([Part(session.texts[0], 1, [0])], replay=True)
        assert replay.called == (variant in FITTING)
        while pending := [text for text in session.texts if text.left]:
            chosen = random.sample(pending, min(len(pending), random.choice([1, 2, 8, 9, MOST_TEXTS])))
            session.run([Part(text, 1, [0]) for text in chosen], replay=True)
    check(session.texts, model_of("numba-1", variant))


# ---- the real model
@pytest.mark.clause("OPS-45", "OPS-47")
def test_a_real_model(smollm2_path: Path) -> None:
    loaded, random = load_model(smollm2_path), Random(0)
    model = Model(NumbaOps(2, deterministic=True), loaded.config, loaded.params)
    prompts = [
        [random.randrange(loaded.config.vocab_size) for _ in range(length)] for length in (100, *range(2, 47, 5))
    ]
    last = [99]
    whole = Session(model, prompts[:1], 16, None)
    whole.run([Part(whole.texts[0], 100, last)], replay=True)
    cut = Session(model, prompts[:1], 32, random)
    while cut.texts[0].left:
        count = min(7, cut.texts[0].left)
        cut.run([Part(cut.texts[0], count, [count - 1])], replay=True)
    beside = Session(model, prompts, 16, random)
    beside.run([Part(text, text.left - 1, []) for text in beside.texts], replay=True)
    beside.run([Part(text, 1, [0]) for text in beside.texts], replay=True)
    expected = whole.texts[0].rows[99]
    assert [session.texts[0].rows[99] == expected for session in (cut, beside)] == [True, True]


# ---- the primitives of the definitions
def lay(x: np.ndarray, layout: str) -> np.ndarray:
    """An equal array with another layout in memory: another order of axes, gaps, or reversed."""
    if layout == "columns first":
        return np.asfortranarray(x)
    if layout == "gaps":
        return np.repeat(x, 3, axis=-1)[..., ::3]
    return np.ascontiguousarray(x[..., ::-1])[..., ::-1] if layout == "backwards" else x


layouts = st.sampled_from(["plain", "columns first", "gaps", "backwards"])
oracles = st.sampled_from(["numpy-float32", "numpy-float64"])


@pytest.mark.clause("OPS-46")
@given(
    backend=oracles, rows=st.integers(1, 9), width=st.integers(1, 70), columns=st.integers(1, 40),
    seed=st.integers(0, 9), layout=layouts, other=layouts,
)  # fmt: skip
def test_a_row_of_a_product_is_what_it_is_alone(
    backend: str, rows: int, width: int, columns: int, seed: int, layout: str, other: str
) -> None:
    ops, random = BACKENDS[backend](), np.random.default_rng(seed)
    x, y = (random.standard_normal(shape).astype(ops.float_dtype) for shape in ((2, rows, width), (width, columns)))
    product = ops.matmul(lay(x, layout), lay(y, other))
    for stack in range(2):
        for row in range(rows):
            np.testing.assert_array_equal(ops.matmul(x[stack, row : row + 1], y)[0], product[stack, row])
    np.testing.assert_allclose(product, x @ y, rtol=1e-4, atol=1e-4)


@pytest.mark.clause("OPS-46")
@pytest.mark.parametrize("name", ["exp", "log", "tanh", "cos", "sin", "erf", "rsqrt", "softmax", "log_softmax", "silu"])
@given(backend=oracles, rows=st.integers(1, 9), width=st.integers(1, 70), seed=st.integers(0, 9), layout=layouts)
def test_a_row_of_a_function_is_what_it_is_alone(
    name: str, backend: str, rows: int, width: int, seed: int, layout: str
) -> None:
    ops = BACKENDS[backend]()
    x = np.random.default_rng(seed).uniform(0.1, 9, (rows, width)).astype(ops.float_dtype)
    found = getattr(ops, name)(lay(x, layout))
    for row in range(rows):
        np.testing.assert_array_equal(getattr(ops, name)(x[row]), found[row])
    np.testing.assert_allclose(found, getattr(NumpyOps(ops.float_dtype), name)(x), rtol=1e-4)


@pytest.mark.clause("OPS-46")
@given(backend=oracles, shape=st.lists(st.integers(1, 40), min_size=2, max_size=3), data=st.data(), layout=layouts)
def test_a_sum_is_what_it_is_alone(backend: str, shape: list[int], data: st.DataObject, layout: str) -> None:
    ops, axis = BACKENDS[backend](), data.draw(st.integers(-len(shape), len(shape) - 1))
    x = np.random.default_rng(0).standard_normal(shape).astype(ops.float_dtype)
    sums = ops.sum(lay(x, layout), axis)
    assert sums.shape == x.sum(axis, keepdims=True).shape
    for index in np.ndindex(*sums.shape):
        one = np.moveaxis(x, axis, -1)[tuple(np.delete(index, axis % x.ndim))]
        assert sums[index] == ops.sum(one, 0)[0]


@pytest.mark.clause("OPS-46")
def test_nothing_stays_nothing() -> None:
    ops, none = NumpyOps(deterministic=True), np.zeros((0, 3), np.float32)
    assert ops.matmul(none, np.zeros((3, 2), np.float32)).shape == (0, 2)
    assert ops.matmul(np.zeros((2, 0)), np.zeros((0, 3))).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert ops.exp(none).shape == none.shape and ops.sum(none, -1).shape == (0, 1)
    assert ops.exp(np.float32(0)) == 1


@pytest.mark.clause("OPS-46")
@pytest.mark.parametrize("variant", ["grouped", "window", "softcap", "one kv head"])
@pytest.mark.parametrize("backend", ["numpy-float32", "numpy-float64"])
def test_the_mode_changes_nothing_but_rounding(backend: str, variant: str) -> None:
    model, text = model_of(backend, variant), list(range(1, LONGEST))
    rows = alone(model, text)
    found = [np.frombuffer(rows[position], model.ops.float_dtype) for position in range(len(text))]
    expected = dense_logits(model.config, VARIANTS[variant].params(), text)
    assert distance(np.array(found), expected) < (1e-4 if backend == "numpy-float32" else 1e-10)


# ---- the property can fail
class BatchedProduct(NumpyOps):
    """A backend that adds up in another order if there are several rows, as BLAS does."""

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        return super().matmul(x[..., ::-1], y[..., ::-1, :]) if x.shape[-2] > 1 else super().matmul(x, y)


class SizedSwiglu(NumbaOps):
    """A backend that chooses between the kernel and the composition by the number of tokens."""

    def gated(self, gate: Tensor, up: Tensor, mlp: GatedMlp) -> Tensor:
        if gate.size % 16:
            return super().gated(gate, up, mlp)
        words = self._kernels.mlp(mlp)
        return self._kernels.gated(*(np.ascontiguousarray(x) for x in (gate, up)), words)


@pytest.mark.clause("OPS-45")
@pytest.mark.parametrize(
    ("ops", "variant"),
    [
        (BatchedProduct(deterministic=True), "grouped"),
        (BatchedProduct("float64", deterministic=True), "grouped"),
        (SizedSwiglu(2, deterministic=True), "odd intermediate"),
        (BatchedProduct(deterministic=True), "float16 cache"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, NumpyOps) else value,
)
def test_a_backend_that_counts_its_rows_is_found(ops: NumpyOps, variant: str) -> None:
    model, random = VARIANTS[variant].model(ops), Random(0)
    with pytest.raises(AssertionError, match="other bits"):
        for _ in range(20):
            check_short_texts(model, model, random)


@pytest.mark.clause("OPS-45", "OPS-46")
@pytest.mark.parametrize("backend", ["numpy-float32", "numba-2"])
def test_attention_to_a_whole_chunk_is_found(backend: str) -> None:
    model, random = VARIANTS["bfloat16 cache"].model(BACKENDS[backend]()), Random(0)
    with (
        patch.object(attention, "query_groups", lambda ops, count: [count]),
        pytest.raises(AssertionError, match="other bits"),
    ):
        for _ in range(20):
            check_short_texts(model, model, random)


@pytest.mark.clause("OPS-45")
def test_the_mode_is_off_unless_asked_for() -> None:
    assert not any(load_backend(name).deterministic for name in ("numpy", "numba"))
    assert all(load_backend(name, deterministic=True).deterministic for name in ("numpy", "numba"))
