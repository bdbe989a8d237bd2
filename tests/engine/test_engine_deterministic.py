"""ENGINE-40: a request gets the same bits alone and beside any other requests."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum import LLM, SamplingParams
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.backends.registry import load_backend
from ferrum.config import EngineConfig
from ferrum.kv.eviction import POLICIES
from ferrum.kv.storage import block_bytes
from ferrum.load.model import LoadedModel, load_model
from ferrum.load.resolve import resolve
from ferrum.sched.order import ORDERS
from ferrum.tensor.compositions import TensorOps
from ferrum.text.byte_tokenizer import ByteTokenizer
from ferrum.types import Priority
from tests.tiny import TinyModel, tiny_config, tiny_params

BACKENDS = ("numpy", "numba")
TINY = tiny_config(hidden_size=64, intermediate_size=96, head_dim=16)  # a size for which the kernels run


@cache
def ops_of(backend: str) -> TensorOps:
    return NumpyOps(deterministic=True) if backend == "numpy" else load_backend("numba", threads=2, deterministic=True)


def tiny_llm(backend: str, blocks: int, host_blocks: int, **settings: object) -> LLM:
    model = TinyModel(TINY, tiny_params(TINY), ByteTokenizer())
    size = block_bytes(TINY, int(settings.get("block_size", 16)), "float32")  # type: ignore[call-overload]
    config = EngineConfig(kv_memory=blocks * size, host_kv_memory=host_blocks * size, deterministic=True)
    return LLM.from_loaded(model, ops_of(backend), replace(config, **settings))  # type: ignore[arg-type]


@cache
def alone(backend: str, prompt: tuple[int, ...], params: SamplingParams) -> tuple[int, ...]:
    """The oracle: the answer of a new engine with blocks of 16, in which there is no other request and no cache."""
    llm = tiny_llm(backend, 4, 0, prefix_caching=False)
    return llm.generate(list(prompt), params)[0].token_ids


requests = st.tuples(
    st.lists(st.sampled_from([65, 66]), min_size=1, max_size=30).map(tuple),
    st.builds(
        SamplingParams,
        temperature=st.sampled_from([0.0, 1.0]),
        seed=st.integers(0, 3),
        max_tokens=st.integers(1, 12),
        ignore_eos=st.just(True),
    ),
    st.sampled_from(Priority),
)


@pytest.mark.clause("ENGINE-40")
@pytest.mark.parametrize("backend", BACKENDS)
@given(
    asked=st.lists(requests, min_size=1, max_size=6),
    block_size=st.sampled_from([1, 3, 8, 16]),
    spare=st.integers(0, 6),
    host_blocks=st.sampled_from([0, 4, 40]),
    budget=st.integers(1, 40),
    seqs=st.integers(1, 6),
    scheduler=st.sampled_from(sorted(ORDERS)),
    eviction=st.sampled_from(sorted(POLICIES)),
    caching=st.booleans(),
)
def test_tokens_are_those_of_a_request_by_itself(
    backend: str,
    asked: list[tuple[tuple[int, ...], SamplingParams, Priority]],
    block_size: int,
    spare: int,
    host_blocks: int,
    budget: int,
    seqs: int,
    scheduler: str,
    eviction: str,
    caching: bool,
) -> None:
    llm = tiny_llm(
        backend, -(-42 // block_size) + spare, host_blocks, block_size=block_size, max_num_batched_tokens=budget,
        max_num_seqs=seqs, scheduler=scheduler, eviction=eviction, prefix_caching=caching, max_model_len=42,
    )  # fmt: skip
    prompts, params, priorities = (list(column) for column in zip(*asked, strict=True))
    completions = llm.generate([list(prompt) for prompt in prompts], params, priority=priorities)
    for completion, prompt, own in zip(completions, prompts, params, strict=True):
        assert completion.token_ids == alone(backend, prompt, own)


# ---- the real model
COUNT, NEW_TOKENS = 32, 12


@pytest.fixture(scope="module")
def loaded(smollm2_path: Path) -> LoadedModel:
    return load_model(resolve(str(smollm2_path)), "auto")


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """Draws prompts, some of which share a prefix."""
    chance = random.Random(7)
    beginnings = [[chance.randrange(20, 49000) for _ in range(length)] for length in (16, 40)]
    return [
        (beginnings[chance.randrange(2)] if chance.random() < 0.6 else [])
        + [chance.randrange(20, 49000) for _ in range(chance.randint(1, 50))]
        for _ in range(COUNT)
    ]


@pytest.fixture(scope="module")
def params() -> list[SamplingParams]:
    return [
        SamplingParams(temperature=index % 2 * 0.9, seed=index, max_tokens=NEW_TOKENS, ignore_eos=True)
        for index in range(COUNT)
    ]


@pytest.fixture(scope="module")
def one_at_a_time(loaded: LoadedModel, prompts: list[list[int]], params: list[SamplingParams]) -> list[tuple[int, ...]]:
    llm = LLM.from_loaded(loaded, ops_of("numba"), EngineConfig(prefix_caching=False, deterministic=True))
    return [llm.generate(prompt, own)[0].token_ids for prompt, own in zip(prompts, params, strict=True)]


@pytest.mark.clause("ENGINE-40")
@pytest.mark.parametrize("scheduler", ORDERS)
@pytest.mark.parametrize("eviction", POLICIES)
def test_a_crowd_in_a_tiny_pool_gets_the_same_tokens(
    eviction: str,
    scheduler: str,
    loaded: LoadedModel,
    prompts: list[list[int]],
    params: list[SamplingParams],
    one_at_a_time: list[tuple[int, ...]],
) -> None:
    block = block_bytes(loaded.config, 8, "float32")
    llm = LLM.from_loaded(
        loaded,
        ops_of("numba"),
        EngineConfig(
            block_size=8,
            kv_memory=36 * block,
            host_kv_memory=7 * block,
            max_num_seqs=COUNT,
            max_num_batched_tokens=100,
            scheduler=scheduler,
            eviction=eviction,
            deterministic=True,
        ),
    )
    priorities = [Priority(index % 4) for index in range(COUNT)]
    completions = llm.generate(prompts, params, priority=priorities)
    assert [completion.token_ids for completion in completions] == one_at_a_time
    stats = llm.stats()
    assert stats.preempted_by_swap > 0 and stats.preempted_by_recompute > 0, stats
    assert stats.kv.evicted > 0 and stats.kv.swapped_in > 0 and stats.kv.hit_tokens > 0, stats
    assert stats.device.held == stats.host.held == 0
