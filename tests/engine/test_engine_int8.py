"""compute="int8", as callers of `LLM` see it: close answers, and every law of batches and of memory as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferrum import LLM, SamplingParams
from ferrum.backends.numpy_backend import NumbaOps
from ferrum.backends.registry import load_backend
from ferrum.config import EngineConfig
from ferrum.errors import InvalidFormat, InvalidParameter, Unsupported
from ferrum.kv.storage import block_bytes
from ferrum.model.params import DecoderParams
from ferrum.tensor.compositions import TensorOps
from ferrum.text.byte_tokenizer import ByteTokenizer
from ferrum.types import DecodeSteps
from tests.backends.company import with_experts, with_weights
from tests.backends.under_target import stored
from tests.cli.conftest import write_model
from tests.core.test_mapping import linux, resident
from tests.tiny import TinyModel, tiny_config, tiny_params

MODEL = tiny_config(hidden_size=64, intermediate_size=96, head_dim=32, layers=3)
GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
TEXT = list(range(65, 65 + 40))
BLOCK = block_bytes(MODEL, 4, "float32")
PARAMS = {
    "dense": with_weights(tiny_params(MODEL), lambda weight: stored("q4_0", weight)),
    "experts": with_weights(with_experts(tiny_params(MODEL), 96), lambda weight: stored("q4_0", weight)),
}


def backend(name: str, **options: Any) -> TensorOps:
    return load_backend(name, **{"deterministic": True, "compute": "int8", **options})


def llm_of(ops: TensorOps, params: DecoderParams = PARAMS["dense"], **engine: Any) -> LLM:
    settings = {"block_size": 4, "compute": "int8", "deterministic": ops.deterministic, **engine}
    return LLM.from_loaded(TinyModel(MODEL, params, ByteTokenizer()), ops, EngineConfig(**settings))


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The median over rows of the relative L2 distance, since a row with another expert is far off."""
    return float(np.median(np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)))


@pytest.mark.clause("ENGINE-20", "OPS-82")
@pytest.mark.parametrize("kind", PARAMS)
@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_logits_are_close_to_those_of_exact_products_and_not_the_same(name: str, kind: str) -> None:
    exact = llm_of(backend("numpy", compute=None), PARAMS[kind], compute="float32").logits(TEXT)
    found = llm_of(backend(name), PARAMS[kind]).logits(TEXT)
    assert 1e-4 < difference(found, exact) < 3e-2


@pytest.mark.clause("ENGINE-40", "OPS-83")
@pytest.mark.parametrize("kv_dtype", ["auto", "q8_0"])
@pytest.mark.parametrize("kind", PARAMS)
def test_a_preempted_sequence_in_a_small_pool_gets_the_same_tokens(kind: str, kv_dtype: str) -> None:
    """int8 has a deterministic mode: chunks, other sequences and preemption do not change the tokens."""
    ops = backend("numba", threads=2)
    prompts = [[*TEXT[: 3 * number], number] for number in range(1, 8)]
    params = [
        SamplingParams(temperature=number % 2, seed=number, max_tokens=12, ignore_eos=True) for number in range(7)
    ]
    alone = llm_of(backend("numba", threads=1), PARAMS[kind], prefix_caching=False, kv_dtype=kv_dtype)
    expected = [alone.generate(prompt, own)[0].token_ids for prompt, own in zip(prompts, params, strict=True)]
    block = block_bytes(MODEL, 4, "q8_0") if kv_dtype == "q8_0" else BLOCK
    crowded = llm_of(
        ops, PARAMS[kind], kv_memory=14 * block, max_model_len=48, max_num_batched_tokens=9, kv_dtype=kv_dtype
    )
    assert [each.token_ids for each in crowded.generate(prompts, params)] == expected
    assert crowded.stats().preemptions


@pytest.mark.clause("OPS-63", "OPS-82")
@pytest.mark.parametrize("kind", PARAMS)
def test_every_decode_step_is_replayed(kind: str) -> None:
    llm = llm_of(backend("numba", deterministic=None), PARAMS[kind])
    llm.generate([TEXT[:3], TEXT[:9]], GREEDY)
    assert llm.stats().decode == DecodeSteps(11, 11)


@pytest.mark.clause("KV-35", "OPS-82")
@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_a_saved_prefix_is_refused_for_another_arithmetic(name: str, tmp_path: Path) -> None:
    file = tmp_path / "prefix.safetensors"
    expected = llm_of(backend(name)).generate([*TEXT, 9], GREEDY)[0].token_ids
    assert llm_of(backend(name)).save_prefix([*TEXT, 1, 2], file) == 40
    fresh = llm_of(backend(name))
    assert fresh.load_prefix(file) == 40
    assert fresh.generate([*TEXT, 9], GREEDY)[0].token_ids == expected
    with pytest.raises(InvalidFormat, match=r"another model.* compute, "):
        llm_of(backend(name, compute=None), compute="float32").load_prefix(file)


@pytest.mark.clause("OPS-82")
def test_a_backend_without_the_arithmetic_refuses_it() -> None:
    with pytest.raises(InvalidParameter, match=r"^compute must be one of float32, bfloat16, not 'int8'"):
        load_backend("ferrum.testing.cuda_shim.backend:ShimOps", compute="int8")
    with pytest.raises(InvalidParameter, match="compute is 'int8', but this numba was made with compute='float32'"):
        llm_of(NumbaOps(1))
    with pytest.raises(InvalidParameter, match="compute must be one of float32, bfloat16, int8, not 'int9'"):
        LLM("no-such-model", compute="int9")
    with pytest.raises(Unsupported, match="compute='float16' is not part of this version"):
        LLM("no-such-model", compute="float16")


@pytest.mark.clause("OPS-82")
@pytest.mark.parametrize("dtype", ["q4_0", "q8_0"])
def test_weights_that_are_rounded_while_they_are_loaded(dtype: str, tmp_path: Path) -> None:
    """The file is safetensors in float32; its embedding is also its head, and some widths are no multiple of 32."""
    path = write_model(tmp_path)
    exact, found = (
        LLM(path, dtype=dtype, compute=compute, backend="numba", threads=1) for compute in ("float32", "int8")
    )
    assert 1e-3 < difference(found.logits(TEXT), exact.logits(TEXT)) < 5e-2


# ---- the real model
ANSWER = SamplingParams(temperature=0, max_tokens=24)


@pytest.mark.clause("OPS-82", "OPS-84")
@linux
def test_the_real_model_answers_sensibly_and_its_file_leaves_memory(smollm2_path: Path) -> None:
    llm = LLM(smollm2_path, compute="int8", threads=2)
    tokens = llm.tokenizer.encode(PASSAGE, add_special_tokens=False)
    found = llm.logits(tokens)
    assert resident(smollm2_path) < 0.2 * smollm2_path.stat().st_size
    assert " 4" in llm.chat([{"role": "user", "content": "What is 2+2?"}], ANSWER)[0].text
    exact = LLM(smollm2_path, threads=2)
    expected = exact.logits(tokens)
    assert 5e-3 < difference(found, expected) < 6e-2
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.8
    np.testing.assert_array_equal(llm.logits(tokens), found)  # not those of `exact`


PASSAGE = (
    "The moon is the only natural satellite of the Earth. It goes around the Earth in about twenty-seven days, and "
    "always shows it the same side. Its pull makes the tides of the oceans. In 1969 people walked there for the first "
    "time, and brought stones back home."
)
