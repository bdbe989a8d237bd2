"""Keys and values in q8_0, as callers of `LLM` see them: close answers, and every law of the memory below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ferrum import LLM, SamplingParams
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.backends.registry import load_backend
from ferrum.config import EngineConfig
from ferrum.errors import InvalidFormat, Unsupported
from ferrum.kv.storage import block_bytes
from ferrum.tensor.compositions import TensorOps
from ferrum.text.byte_tokenizer import ByteTokenizer
from tests.tiny import TinyModel, dense_logits, distance, tiny_config, tiny_params

MODEL = tiny_config(hidden_size=64, intermediate_size=64, head_dim=32)
GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
TEXT = list(range(65, 65 + 40))
BLOCK = block_bytes(MODEL, 4, "q8_0")


def backend(name: str) -> TensorOps:
    return load_backend(name, deterministic=True)


def llm_of(ops: TensorOps, **engine: Any) -> LLM:
    settings = {"block_size": 4, "kv_dtype": "q8_0", "deterministic": True, **engine}
    return LLM.from_loaded(TinyModel(MODEL, tiny_params(MODEL), ByteTokenizer()), ops, EngineConfig(**settings))


@pytest.mark.clause("ENGINE-20", "OPS-92")
@pytest.mark.parametrize("block_size", [4, 16])
@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_logits_are_close_to_those_of_the_textbook_model(name: str, block_size: int) -> None:
    logits = llm_of(backend(name), block_size=block_size).logits(TEXT)
    assert 1e-4 < distance(logits, dense_logits(MODEL, tiny_params(MODEL), TEXT)) < 3e-2


@pytest.mark.clause("ENGINE-40", "KV-17", "KV-50")
@pytest.mark.parametrize("host_blocks", [0, 12])
@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_a_preempted_sequence_in_a_small_pool_gets_the_same_tokens(name: str, host_blocks: int) -> None:
    ops = backend(name)
    prompts = [[*TEXT[: 3 * number], number] for number in range(1, 8)]
    params = [
        SamplingParams(temperature=number % 2, seed=number, max_tokens=12, ignore_eos=True) for number in range(7)
    ]
    alone = llm_of(ops, prefix_caching=False)
    expected = [alone.generate(prompt, own)[0].token_ids for prompt, own in zip(prompts, params, strict=True)]
    crowded = llm_of(
        ops, kv_memory=14 * BLOCK, host_kv_memory=host_blocks * BLOCK, max_model_len=48, max_num_batched_tokens=9
    )
    for _ in range(2):  # the second time much is found
        assert [each.token_ids for each in crowded.generate(prompts, params)] == expected
    stats = crowded.stats()
    assert stats.preemptions and not stats.device.held and not stats.host.held
    assert stats.device.total == 14
    assert bool(stats.kv.swapped_out) == bool(host_blocks)


@pytest.mark.clause("KV-16", "KV-50")
def test_several_choices_share_a_prompt_and_part_where_they_write() -> None:
    params = SamplingParams(temperature=1.0, seed=1, n=3, max_tokens=8, ignore_eos=True)
    shared, apart = llm_of(NumpyOps(deterministic=True)), llm_of(NumpyOps(deterministic=True), prefix_caching=False)
    found = [each.token_ids for each in shared.generate(TEXT[:-1], params)[0].choices]
    assert found == [each.token_ids for each in apart.generate(TEXT[:-1], params)[0].choices]
    assert len(set(found)) == 3


@pytest.mark.clause("KV-35", "KV-50")
@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_a_saved_prefix_is_found_again_and_refused_for_another_type(name: str, tmp_path: Path) -> None:
    ops, file = backend(name), tmp_path / "prefix.safetensors"
    expected = llm_of(ops).generate([*TEXT, 9], GREEDY)[0].token_ids
    assert llm_of(ops).save_prefix([*TEXT, 1, 2], file) == 40
    fresh = llm_of(ops)
    assert fresh.load_prefix(file) == 40
    completion = fresh.generate([*TEXT, 9], GREEDY)[0]
    assert (completion.token_ids, completion.usage.cached_tokens) == (expected, 40)
    for other in ("float32", "float16"):
        with pytest.raises(InvalidFormat, match=r"another model.* kv_dtype, "):
            llm_of(ops, kv_dtype=other).load_prefix(file)
    llm_of(ops, kv_dtype="float16").save_prefix(TEXT, tmp_path / "half")
    with pytest.raises(InvalidFormat, match=r"another model.* kv_dtype, "):
        llm_of(ops).load_prefix(tmp_path / "half")


@pytest.mark.clause("KV-50")
def test_a_model_whose_heads_are_no_whole_groups_is_refused_when_it_is_made() -> None:
    config = tiny_config()
    model = TinyModel(config, tiny_params(config), ByteTokenizer())
    with pytest.raises(Unsupported, match="multiple of 32"):
        LLM.from_loaded(model, NumpyOps(), EngineConfig(kv_dtype="q8_0"))
