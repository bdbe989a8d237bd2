"""KV-30: which texts and which models have the same digest."""

from __future__ import annotations

import struct
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.backends.registry import load_backend
from ferrum.config import EngineConfig, ModelConfig, RopeConfig, RopeScaling
from ferrum.engine.setup import content_root
from ferrum.errors import InternalError
from ferrum.kv.prefix import DIGEST_BYTES, PrefixChain, child_digest, root_digest
from ferrum.model.params import DecoderParams, leaves, mapped
from ferrum.tensor.weights import Dense, Weight
from tests.tiny import tiny_config, tiny_params

ROOT = root_digest("the tests")
LEAST, MOST = -(2**63), 2**63 - 1

ids = st.one_of(st.integers(0, 1), st.sampled_from([LEAST, -1, 255, 256, 2**31, MOST]))
texts = st.lists(ids, max_size=12)


def chain_of(text: Any, size: int, root: bytes = ROOT) -> list[bytes]:
    chain = PrefixChain(root, size)
    return [chain.digest(index, text) for index in range(len(text) // size)]


# ---- chains
@pytest.mark.clause("KV-30")
@given(size=st.integers(1, 4), common=texts, first=texts, second=texts)
@example(size=2, common=[], first=[0, 1, 0, 1], second=[1, 0, 0, 1])  # equal blocks after unequal ones
@example(size=1, common=[], first=[0, 0, 0], second=[0])  # equal blocks in other places
@example(size=1, common=[], first=[256], second=[1])
def test_digests_are_equal_exactly_where_the_texts_are_up_to_there(
    size: int, common: list[int], first: list[int], second: list[int]
) -> None:
    first, second = common + first, common + second
    for i, mine in enumerate(chain_of(first, size)):
        for j, other in enumerate(chain_of(second, size)):
            assert (mine == other) == (first[: (i + 1) * size] == second[: (j + 1) * size])


@pytest.mark.clause("KV-30")
@given(size=st.integers(1, 4), text=texts)
def test_digests_follow_the_definition(size: int, text: list[int]) -> None:
    """Files carry the root that they begin from, so they must be the same in every process."""
    parent, expected = ROOT, []
    for start in range(0, len(text) - size + 1, size):
        packed = struct.pack(f"={size}q", *text[start : start + size])
        parent = blake2b(parent + packed, digest_size=DIGEST_BYTES).digest()
        expected.append(parent)
    assert chain_of(text, size) == expected
    assert len(set(expected)) == len(expected)


@pytest.mark.clause("KV-30")
@given(size=st.integers(1, 3), text=texts)
def test_texts_after_another_root_have_other_digests(size: int, text: list[int]) -> None:
    assert not set(chain_of(text, size)) & set(chain_of(text, size, root_digest("another")))
    assert not set(chain_of(text, size)) & set(chain_of(text, size, b""))


@pytest.mark.clause("KV-30")
@given(size=st.integers(1, 3), text=texts, data=st.data())
def test_a_chain_is_the_same_in_whatever_order_it_is_asked_and_while_the_text_grows(
    size: int, text: list[int], data: st.DataObject
) -> None:
    expected, chain = chain_of(text, size), PrefixChain(ROOT, size)
    for index in data.draw(st.lists(st.integers(0, len(expected) - 1), max_size=8) if expected else st.just([])):
        end = data.draw(st.integers((index + 1) * size, len(text)))  # as much of the text as there was then
        assert chain.digest(index, text[:end]) == expected[index]


@pytest.mark.clause("KV-31")
@given(size=st.integers(2, 4), text=texts, more=texts)
def test_a_block_that_is_not_full_has_no_digest(size: int, text: list[int], more: list[int]) -> None:
    chain, longer = PrefixChain(ROOT, size), text + more
    with pytest.raises(InternalError, match=f"block {len(text) // size} of a text of {len(text)} tokens is not full"):
        chain.digest(len(text) // size, text)
    expected = chain_of(longer, size)  # the failed call changed nothing
    assert [chain.digest(index, longer) for index in range(len(expected))] == expected


@pytest.mark.clause("KV-30")
@given(size=st.integers(1, 3), common=texts, first=texts, second=texts, data=st.data())
def test_a_forked_chain_goes_its_own_way(
    size: int, common: list[int], first: list[int], second: list[int], data: st.DataObject
) -> None:
    source, blocks = PrefixChain(ROOT, size), len(common) // size
    for index in range(data.draw(st.integers(0, blocks))):  # not all of them need be made by then
        source.digest(index, common)
    target = source.fork(blocks)
    for chain, text in ((source, common + first), (target, common + second)):
        expected = chain_of(text, size)
        assert [chain.digest(index, text) for index in range(len(expected))] == expected


@pytest.mark.clause("KV-30")
@given(size=st.integers(1, 3), common=texts, first=texts, second=texts)
def test_a_chain_that_is_forked_before_its_end_forgets_what_comes_after(
    size: int, common: list[int], first: list[int], second: list[int]
) -> None:
    source, made = PrefixChain(ROOT, size), chain_of(common + first, size)
    assert [source.digest(index, common + first) for index in range(len(made))] == made
    target, expected = source.fork(len(common) // size), chain_of(common + second, size)
    assert [target.digest(index, common + second) for index in range(len(expected))] == expected
    assert [source.digest(index, common + first) for index in range(len(made))] == made


@pytest.mark.clause("KV-30")
def test_it_does_not_matter_what_holds_the_tokens() -> None:
    text = [LEAST, -1, 0, MOST]
    assert chain_of(text, 2) == chain_of(tuple(text), 2) == chain_of(np.array(text, np.int64), 2)
    assert child_digest(ROOT, [1, 2]) == child_digest(ROOT, np.array([1, 2], np.int32))


# ---- the root
def root_of(model: ModelConfig | None = None, params: DecoderParams | None = None, ops: Any = None, **engine: Any):
    model = tiny_config() if model is None else model
    return content_root(ops or NumpyOps(), model, params or tiny_params(model), EngineConfig(**engine))


SAME = root_of()


@pytest.mark.clause("KV-30")
def test_the_root_is_the_same_for_the_same_model_and_does_not_care_for_the_rest() -> None:
    assert root_of() == SAME and len(SAME) == DIGEST_BYTES
    unrelated = EngineConfig(
        kv_memory=1 << 20, host_kv_memory=1 << 19, max_num_seqs=3, eviction="clock", max_model_len=7
    )
    assert content_root(NumpyOps(), tiny_config(), tiny_params(tiny_config()), unrelated) == SAME
    assert root_of(kv_dtype="float32") == SAME  # the type that "auto" stands for on this backend


@pytest.mark.clause("KV-30", "KV-35")
@pytest.mark.parametrize("changed", [{"block_size": 8}, {"kv_dtype": "float16"}])
def test_the_root_changes_with_what_a_block_is(changed: dict[str, Any]) -> None:
    assert root_of(**changed) != SAME


@pytest.mark.clause("KV-30")
def test_the_root_changes_with_the_arithmetic() -> None:
    deterministic = NumpyOps(deterministic=True), load_backend("numba", deterministic=True)  # other bits
    backends = (NumpyOps(), NumpyOps("float64"), load_backend("numba"), *deterministic)
    roots = {root_of(ops=ops) for ops in backends}
    assert len(roots) == len(backends)
    assert root_of(ops=NumpyOps("float64"), kv_dtype="float32") not in roots


@pytest.mark.clause("KV-30", "KV-35")
@pytest.mark.parametrize(
    "changed",
    [
        {"norm_epsilon": 1e-6},
        {"rope": RopeConfig(10000.0, 6)},
        {"rope": RopeConfig(20000.0, 8)},
        {"sliding_window": 4},
        {"attention_scale": 0.5},
        {"attention_softcap": 5.0},
        {"hidden_activation": "gelu"},
        {"architecture": "mistral"},
    ],
)
def test_the_root_changes_with_the_model(changed: dict[str, Any]) -> None:
    """The weights are the same: only what is done with them differs."""
    assert root_of(tiny_config(**changed), tiny_params(tiny_config())) != SAME


STRETCHED = RopeConfig(10000.0, 8, factor=2.0, original_max_positions=20, factors=(1.0,) * 4, long_factors=(3.0,) * 4)


@pytest.mark.clause("KV-30", "KV-35", "MODEL-15")
@pytest.mark.parametrize("scaling", [RopeScaling.DYNAMIC, RopeScaling.LONGROPE])
def test_the_root_changes_with_the_longest_context_where_keys_do(scaling: RopeScaling) -> None:
    model = tiny_config(rope=replace(STRETCHED, scaling=scaling))
    short, edge, long = (root_of(model, max_model_len=longest) for longest in (7, 20, 21))
    assert short == edge != long


def every_weight(params: DecoderParams) -> list[str]:
    """A path to each matrix."""
    return [path for path, leaf in leaves(params) if isinstance(leaf, Weight)]


def with_another(params: DecoderParams, path: str, change: Any) -> DecoderParams:
    """The same parameters, but for one matrix."""
    target = dict(leaves(params))[path]
    return mapped(params, lambda leaf: Dense(change(leaf.data)) if leaf is target else leaf)


PARAMS = tiny_params(tiny_config())


@pytest.mark.clause("KV-30", "KV-35")
@pytest.mark.parametrize("path", every_weight(PARAMS))
def test_the_root_changes_with_any_weight(path: str) -> None:
    assert root_of(params=with_another(PARAMS, path, np.copy)) == SAME
    assert root_of(params=with_another(PARAMS, path, lambda data: data * np.float32(1.0001))) != SAME
    assert root_of(params=with_another(PARAMS, path, lambda data: data.astype(np.float16))) != SAME


def with_other_vector(params: DecoderParams, path: str, change: Any) -> DecoderParams:
    """The same parameters, but for one norm or bias; some biases are None before."""
    return changed_at(params, path.split("."), change)


def changed_at(tree: Any, path: list[str], change: Any) -> Any:
    if not path:
        return change(tree)
    name, *rest = path
    if isinstance(tree, tuple):
        return tuple(changed_at(each, rest, change) if str(at) == name else each for at, each in enumerate(tree))
    return replace(tree, **{name: changed_at(getattr(tree, name), rest, change)})


def one_changed(vector: Any, at: int) -> Any:
    changed = vector.copy()
    changed[at] = np.nextafter(changed[at], np.float32(9))
    return changed


@pytest.mark.clause("KV-30", "KV-35")
@pytest.mark.parametrize("path", [path for path, leaf in leaves(PARAMS) if not isinstance(leaf, Weight)])
def test_the_root_changes_with_any_number_of_a_norm_or_bias(path: str) -> None:
    assert root_of(params=with_other_vector(PARAMS, path, np.copy)) == SAME
    for at in (0, 11, -1):
        assert root_of(params=with_other_vector(PARAMS, path, lambda vector, at=at: one_changed(vector, at))) != SAME
    assert root_of(params=with_other_vector(PARAMS, path, lambda vector: vector.astype(np.float64))) != SAME


@pytest.mark.clause("KV-30", "KV-35")
def test_the_root_changes_with_a_bias_that_is_there_or_not_or_elsewhere() -> None:
    bias = np.ones(16, np.float32)
    first, second = (f"layers.{number}.stages.0.0.body" for number in (0, 1))
    paths = [f"{first}.key.bias", f"{second}.key.bias", f"{first}.value.bias", "head.linear.bias"]
    roots = {root_of(params=with_other_vector(PARAMS, path, lambda _: bias)) for path in paths}
    assert len(roots | {SAME, root_of(params=with_other_vector(PARAMS, f"{first}.query.bias", lambda _: None))}) == 6


@pytest.mark.clause("KV-30", "KV-35")
@pytest.mark.parametrize("path", every_weight(PARAMS))
def test_the_root_changes_with_any_bit_of_a_matrix(path: str) -> None:
    random = np.random.default_rng(2)
    for _ in range(10):

        def flipped(data: Any) -> Any:
            changed = data.copy()
            changed.view(np.uint8).reshape(-1)[random.integers(changed.nbytes)] ^= 1 << int(random.integers(8))
            return changed

        assert root_of(params=with_another(PARAMS, path, flipped)) != SAME


@pytest.mark.clause("KV-30")
def test_two_random_models_have_two_roots() -> None:
    assert root_of(params=tiny_params(tiny_config(), seed=1)) != SAME
