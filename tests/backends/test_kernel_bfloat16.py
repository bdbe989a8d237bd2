"""OPS-52: products of operands rounded to bfloat16, on processors with the instruction and on others.

The backend refuses the arithmetic if the processor does not have the instruction. The tests then let it compute with
two multiply-adds in place of the instruction.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum import LLM, SamplingParams
from ferrum.backends.numba_kernels.compiled.tiles import FEW_BFLOAT16
from ferrum.backends.numba_kernels.loading import features
from ferrum.backends.numpy_backend import NumbaOps
from ferrum.backends.registry import load_backend
from ferrum.config import EngineConfig
from ferrum.conformance.strategies import FLOAT_KINDS, KINDS, WEIGHT_TYPES
from ferrum.errors import InvalidParameter, Unsupported
from ferrum.tensor.ops import host_dtype
from ferrum.tensor.weights import Dense, Linear, Weight
from ferrum.testing.blocks import random_blocks
from ferrum.text.byte_tokenizer import ByteTokenizer
from tests.backends.company import Model, Part, Session, random_experts
from tests.house.source import ROOT
from tests.tiny import TinyModel, distance, tiny_config, tiny_params


@pytest.fixture(scope="module")
def ops() -> Iterator[NumbaOps]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "HAS_BFLOAT16", True)
        yield NumbaOps(2, compute="bfloat16")


def make_weight(kind: str, rows: int, columns: int, random: np.random.Generator) -> Weight:
    if kind in FLOAT_KINDS:
        return Dense(random.standard_normal((rows, columns), np.float32).astype(host_dtype(kind)))
    return WEIGHT_TYPES[kind](random_blocks(kind, (rows, columns), random, size=1.0))


def rounded(x: np.ndarray) -> np.ndarray:
    """The oracle: x rounded to the nearest bfloat16 by ml_dtypes, as float64."""
    return x.astype(ml_dtypes.bfloat16).astype(np.float64)


@pytest.mark.clause("OPS-52")
@given(
    st.sampled_from(KINDS), st.integers(4, 300), st.integers(1, 8), st.integers(FEW_BFLOAT16 + 1, 40), st.booleans(),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_operands_are_rounded_and_sums_are_not(
    ops: NumbaOps, kind: str, rows: int, groups: int, tokens: int, has_bias: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    weight = make_weight(kind, rows, 256 * groups, random)
    bias = random.standard_normal(rows, np.float32) if has_bias else None
    x = random.standard_normal((tokens, 256 * groups), np.float32)
    found = ops.linear(x, Linear(weight, bias))
    left, right = rounded(x), rounded(np.asarray(weight.dequantize(ops, weight.data))).T
    expected = left @ right + (0 if bias is None else bias)
    allowed = 1e-6 * (np.abs(left) @ np.abs(right)) + 1e-6 * np.abs(expected)
    assert (np.abs(found - expected) <= allowed).all()


@pytest.mark.clause("OPS-52")
@given(st.sampled_from(KINDS), st.integers(1, FEW_BFLOAT16), st.integers(0, 2**32 - 1))
def test_few_tokens_have_the_bits_of_float32(ops: NumbaOps, kind: str, tokens: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    linear = Linear(make_weight(kind, 24, 256, random), None)
    x = random.standard_normal((tokens, 256), np.float32)
    np.testing.assert_array_equal(ops.linear(x, linear), NumbaOps(1).linear(x, linear))


@pytest.mark.clause("OPS-52")
@pytest.mark.parametrize(
    "bits", [0x7FC00000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800000, 0xFF800000, 0x7F7F0000, 0x80000000], ids=hex
)
def test_what_is_no_ordinary_number_stays_what_it_is(ops: NumbaOps, bits: int) -> None:
    """The numbers are NaN with and without a payload that rounding could lose, infinities, the largest number, -0."""
    weight = np.eye(32, dtype=np.float32)
    x = np.zeros((FEW_BFLOAT16 + 1, 32), np.float32)
    x[:, 3] = np.array(bits, np.uint32).view(np.float32)
    with np.errstate(invalid="ignore"):
        expected = rounded(x) @ rounded(weight)
    np.testing.assert_array_equal(ops.linear(x, Linear(Dense(weight), None)), expected)


@pytest.mark.clause("OPS-52")
def test_a_whole_model_computes_so(ops: NumbaOps) -> None:
    """Prefill computes in bfloat16, decode in float32. The logits are close to those of float32, and not equal."""
    config = tiny_config(hidden_size=64, intermediate_size=96, head_dim=16)
    model = TinyModel(config, tiny_params(config), ByteTokenizer())
    token_ids = [i % config.vocab_size for i in range(40)]
    found = LLM.from_loaded(model, ops, EngineConfig(compute="bfloat16"))
    expected = LLM.from_loaded(model, NumbaOps(1)).logits(token_ids)
    assert 1e-4 < distance(found.logits(token_ids), expected) < 3e-2
    (answer,) = found.generate([token_ids], SamplingParams(temperature=0, max_tokens=5, ignore_eos=True))
    assert len(answer.token_ids) == 5


@pytest.mark.clause("OPS-52")
def test_experts_compute_so_and_their_router_does_not(ops: NumbaOps) -> None:
    """Experts have more tokens than they take at a time. A router that rounded would choose other experts for some."""
    random = np.random.default_rng(0)
    experts = random_experts(4, 2, 512, 96, random)
    x = random.standard_normal((300, 512)).astype(np.float32)
    expected = NumbaOps(1).norm_experts(x, None, experts)
    assert 1e-4 < distance(ops.norm_experts(x, None, experts), expected) < 3e-2


@pytest.mark.clause("OPS-41", "OPS-52")
def test_a_replayed_batch_has_the_bits_of_its_step(ops: NumbaOps) -> None:
    """The batch has so many sequences that both compute in bfloat16."""
    config = tiny_config(hidden_size=64, intermediate_size=96, head_dim=16)
    model = Model(ops, config, tiny_params(config))
    texts = np.random.default_rng(0).integers(0, config.vocab_size, (2 * FEW_BFLOAT16 + 1, 5)).tolist()
    sessions = [Session(model, texts, 4, None) for _ in range(2)]
    for session, replay in zip(sessions, (False, True), strict=True):
        for _ in texts[0]:
            session.run([Part(text, 1, [0]) for text in session.texts], replay=replay)
    computed, replayed = ([text.rows for text in session.texts] for session in sessions)
    assert computed == replayed


@pytest.mark.clause("OPS-52")
def test_a_backend_without_the_arithmetic_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidParameter, match=r"^compute must be float32 or int8, not 'bfloat16'"):
        load_backend("numpy", compute="bfloat16")
    with pytest.raises(InvalidParameter, match=r"^compute must be one of float32, bfloat16"):
        load_backend("numba", compute="float8")
    monkeypatch.setattr(features, "HAS_BFLOAT16", False)
    with pytest.raises(Unsupported, match="AVX512_BF16"):
        load_backend("numba", compute="bfloat16")
    monkeypatch.setattr(features, "HAS_BFLOAT16", True)
    with pytest.raises(InvalidParameter, match=r"^compute 'bfloat16' makes a row's bits depend on the number of rows"):
        load_backend("numba", compute="bfloat16", deterministic=True)


@pytest.mark.clause("OPS-52")
def test_the_instruction_is_used_where_it_is_there() -> None:
    """The code is compiled for a processor that has the instruction, and is not executed."""
    forced = {
        "NUMBA_CPU_NAME": "znver4",
        "NUMBA_CPU_FEATURES": "+sse2,+avx,+avx2,+fma,+f16c,+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512bf16",
    }
    program = (
        "from tests.backends.under_target import assembly_of; code = assembly_of('products.strip_bfloat16');"
        "print(code.count('vdpbf16ps'), code.count('vfmadd'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **forced, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    dots, others = map(int, done.stdout.split())
    assert dots >= 24 and others == 0
