"""Numbers out of range are refused by the name of their key; accepted numbers give finite tables."""

from __future__ import annotations

import contextlib
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.config import ModelConfig, RopeConfig
from ferrum.errors import FerrumError, InvalidFormat
from ferrum.fields import Fields
from ferrum.load.config_gguf import describe
from ferrum.load.config_json import parse_config as parse_json
from ferrum.load.families import HUGGING_FACE_FAMILIES
from ferrum.load.families_gguf import GGUF_FAMILIES, QUERY_GROWTH
from ferrum.load.gguf import GGUFFile
from ferrum.load.limits import NumberKey
from ferrum.load.token_ids import NO_IDS
from ferrum.model.rope import rope_tables
from tests.load.gguf_writer import Stored, Value, gguf_bytes
from tests.load.tiny_models import CONFIG, HEAD_DIM, METADATA, changed, gguf_tensors, tensors, write_gguf

TINY, HUGE = 5e-324, 1e308
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 128}  # fmt: skip
MSCALE = {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}
SCALED = {"yarn": YARN, "llama3": LLAMA3, "mscale": MSCALE, "linear": {"rope_type": "linear", "factor": 2.0}}
EXTREMES = [TINY, 1e-200, 1e-45, 1e200, HUGE]

CASES = [
    *(("default", "rope_theta", value) for value in EXTREMES),
    *(("yarn", "rope_theta", value) for value in (1.0, 1, 0.5, *EXTREMES)),
    *((kind, "factor", value) for kind in ("linear", "yarn", "llama3") for value in EXTREMES),
    *(("yarn", key, value) for key in ("beta_fast", "beta_slow", "attention_factor") for value in EXTREMES),
    ("yarn", "beta_fast", 0.5),
    ("yarn", "beta_slow", 33),
    *(("llama3", key, value) for key in ("low_freq_factor", "high_freq_factor") for value in EXTREMES),
    ("llama3", "high_freq_factor", 1.0),
    ("llama3", "low_freq_factor", 4.0),
    *((k, "original_max_position_embeddings", v) for k in ("yarn", "llama3") for v in (2**31, 2**62, 2**63 - 1)),
    *(("mscale", "mscale", value) for value in (1e200, HUGE, 1e6)),
    ("mscale", "mscale_all_dim", HUGE),
]
NAMED = {"beta_slow": "beta_(slow|fast)", "low_freq_factor": "(low|high)_freq_factor", "mscale_all_dim": "mscale"}


def from_json(**keys: Any) -> ModelConfig:
    return parse_json(Fields(changed(CONFIG, **keys), "config.json"), HUGGING_FACE_FAMILIES["llama"])


def scaling_of(kind: str) -> dict[str, Any]:
    return {"rope_type": "default"} if kind == "default" else SCALED[kind]


@pytest.mark.clause("LOAD-29")
@pytest.mark.parametrize(("kind", "key", "value"), CASES)
@pytest.mark.parametrize("dialect", ["rope_scaling", "rope_parameters"])
def test_a_number_beyond_all_models_is_refused_by_its_key(dialect: str, kind: str, key: str, value: float) -> None:
    scaling = {**scaling_of(kind), key: value}
    keys = {dialect: scaling}
    if dialect == "rope_scaling" and key == "rope_theta":
        keys = {"rope_scaling": scaling_of(kind), "rope_theta": value}
    with pytest.raises(InvalidFormat, match=rf"^config\.json: {NAMED.get(key, key)} must be "):
        from_json(**keys)


@pytest.mark.clause("LOAD-29")
@pytest.mark.parametrize("value", EXTREMES)
def test_the_base_of_windows_is_refused_by_its_key(value: float) -> None:
    keys = changed(CONFIG, rope_local_base_freq=value, sliding_window=8)
    with pytest.raises(InvalidFormat, match=r"^config\.json: rope_local_base_freq must be "):
        parse_json(Fields(keys, "config.json"), HUGGING_FACE_FAMILIES["gemma3_text"])


GGUF_CASES = [
    *(("none", "rope__freq_base", value) for value in (0.0, -1.0, float("inf"), float("nan"), 1e-40, 1e38)),
    *(("yarn", "rope__freq_base", value) for value in (1.0, 0.5, 1e-40)),
    *((k, "rope__scaling__factor", v) for k in ("linear", "yarn") for v in (1e-45, 1e-10, 1e30, float("inf"))),
    *(("yarn", f"rope__scaling__yarn_beta_{k}", v) for k in ("fast", "slow") for v in (1e-45, 1e30, float("nan"))),
    ("yarn", "rope__scaling__yarn_beta_fast", 0.5),
    ("yarn", "rope__scaling__yarn_beta_slow", 64.0),
    *(("yarn", "rope__scaling__original_context_length", Value("uint64", v)) for v in (2**31, 2**62, 2**63, 2**64 - 1)),
    *(("none", "context_length", Value("uint64", v)) for v in (2**31, 2**40, 2**62, 2**64 - 1)),
    *(("none", "attention__layer_norm_rms_epsilon", v) for v in (0.0, 1e-45, 1e-30, 2.0, 1e38, float("nan"))),
]


@pytest.mark.clause("LOAD-29")
@pytest.mark.parametrize(("kind", "key", "value"), GGUF_CASES)
def test_so_it_is_in_gguf(tmp_path: Path, kind: str, key: str, value: Any) -> None:
    keys: dict[str, Any] = {"llama__rope__scaling__type": kind, "llama__rope__scaling__factor": 2.0}
    path = write_gguf(tmp_path / "model.gguf", **{**keys, f"llama__{key}": value})
    named = key.replace("__", ".").replace("beta_slow", "beta_(slow|fast)")
    with pytest.raises(InvalidFormat, match=rf"model\.gguf: llama\.{named} must be "):
        describe(GGUFFile(path), NO_IDS)


@pytest.mark.clause("LOAD-29")
@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e-45, 1e-10, 0.0, -1.0, 2e30])
def test_divisors_that_no_model_has_are_refused(tmp_path: Path, value: float) -> None:
    factors = np.ones(HEAD_DIM // 2, np.float32)
    factors[-1] = value
    write_gguf_with(tmp_path, factors)
    with pytest.raises(InvalidFormat, match=r"rope_freqs\.weight must hold a number from 0\.001 to 1e\+30 everywhere"):
        describe(GGUFFile(tmp_path / "model.gguf"), NO_IDS)


def write_gguf_with(folder: Path, factors: np.ndarray) -> None:
    stored = {name: Stored.float32(array) for name, array in gguf_tensors(tensors()).items()}
    stored["rope_freqs.weight"] = Stored.float32(factors)
    (folder / "model.gguf").write_bytes(gguf_bytes(METADATA, stored))


@pytest.mark.clause("LOAD-29")
@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("rms_norm_eps", value) for value in (TINY, 1e-45, 1e-21, 1.5, 1e30, HUGE)),
        *(("max_position_embeddings", value) for value in (2**31, 2**40, 2**62, 10**30)),
        *(("num_hidden_layers", value) for value in (2**12 + 1, 2**16, 2**40)),
    ],
)
def test_other_numbers_of_config_json(key: str, value: float) -> None:
    with pytest.raises(InvalidFormat, match=rf"config\.json: {key} must be"):
        from_json(**{key: value})


JSON_SCALES = sorted(
    {(name, given.key) for name, row in HUGGING_FACE_FAMILIES.items() for given in row.numbers.values()}
    - {(name, "hidden_size") for name in HUGGING_FACE_FAMILIES}
)
BEYOND = [TINY, 1e-40, 9e-7, 1.1e6, 1e30, HUGE]


@pytest.mark.clause("LOAD-29")
@pytest.mark.parametrize("value", BEYOND)
@pytest.mark.parametrize(("name", "key"), JSON_SCALES)
def test_scales_and_caps_of_config_json(name: str, key: str, value: float) -> None:
    """One over the smallest overflows; as float32 it is 0, which kernels take for none."""
    with pytest.raises(InvalidFormat, match=rf"config\.json: {key} must be a number from 1e-06 to 1e\+06"):
        parse_json(Fields(changed(CONFIG, **{key: value}), "config.json"), HUGGING_FACE_FAMILIES[name])


@pytest.mark.clause("LOAD-29")
@pytest.mark.parametrize("value", [1e-6, 1.0, 1e6])
def test_scales_and_caps_at_their_bounds_are_taken(value: float) -> None:
    assert NumberKey("scale").read(Fields({"scale": value}, "config.json"), ()) == value
    assert NumberKey("scale", value, power=-1).read(Fields({}, "config.json"), ()) == pytest.approx(1 / value)


@pytest.mark.clause("LOAD-29")
@pytest.mark.parametrize("value", BEYOND)
def test_the_growth_of_queries(value: float) -> None:
    keys = changed(CONFIG, rope_parameters={**YARN, "llama_4_scaling_beta": value})
    with pytest.raises(InvalidFormat, match=r"config\.json: llama_4_scaling_beta must be a number from 1e-06"):
        parse_json(Fields(keys, "config.json"), HUGGING_FACE_FAMILIES["ministral3"])


GGUF_SCALES = [
    (name, given.key)
    for name, row in GGUF_FAMILIES.items()
    for given in row.numbers.values()
    if given.key != "embedding_length"
]


@pytest.mark.clause("LOAD-29")
@pytest.mark.parametrize("value", [1e-40, 9e-7, 1.1e6, 1e30])
@pytest.mark.parametrize(("name", "key"), [*GGUF_SCALES, ("mistral3", QUERY_GROWTH)])
def test_scales_and_caps_of_gguf(tmp_path: Path, name: str, key: str, value: float) -> None:
    metadata = {found.replace("llama.", f"{name}."): each for found, each in METADATA.items()}
    metadata |= {"general.architecture": name, f"{name}.{key}": value}
    stored = {tensor: Stored.float32(array) for tensor, array in gguf_tensors(tensors()).items()}
    (tmp_path / "model.gguf").write_bytes(gguf_bytes(metadata, stored))
    with pytest.raises(InvalidFormat, match=rf"{name}\.{key} must be a number from 1e-06 to 1e\+06"):
        describe(GGUFFile(tmp_path / "model.gguf"), NO_IDS)


@pytest.mark.clause("LOAD-29")
@pytest.mark.parametrize("value", [2**16 + 2, 2**30, 2**40, 2**62])
def test_the_width_of_a_head_has_a_bound(tmp_path: Path, value: int) -> None:
    for keys in ({"head_dim": value}, {"head_dim": None, "hidden_size": value, "num_attention_heads": 1}):
        with pytest.raises(InvalidFormat, match=f"the width of a head, {value}, must be even and at most 65536"):
            from_json(**{"num_key_value_heads": 1, **keys})
    key = {"llama__attention__key_length": Value("uint64", value)}
    with pytest.raises(InvalidFormat, match=f"the width of a head, {value}, must be"):
        describe(GGUFFile(write_gguf(tmp_path / "model.gguf", **key)), NO_IDS)


POWERS = st.integers(-330, 309).map(lambda power: float(f"1e{power}"))
NUMBERS = st.one_of(
    st.floats(0.5, 100.0),
    st.sampled_from([1.0, 1 + 2**-52, 1.0000001, 1e-3, 1e3, 1e6, 1e30, 2**-1074, 1e6 + 1, 2**31 - 1, 2**31, 2**62]),
    st.floats(0, exclude_min=True, allow_infinity=False),
    POWERS,
)


def assert_finite(rope: RopeConfig) -> None:
    """The float32 tables of the first and of the last positions are cosines and sines times a sane factor."""
    with np.errstate(all="raise", under="ignore"):
        tables = rope_tables(NumpyOps(), rope, 40)
    assert np.isfinite(tables.cos).all() and np.isfinite(tables.sin).all()
    assert 0 < np.abs(tables.cos[0]).min() <= np.abs(tables.cos).max() <= 1000.01


@pytest.mark.clause("LOAD-29")
@given(
    kind=st.sampled_from(["default", *SCALED]),
    scaling=st.dictionaries(
        st.sampled_from(["rope_theta", "factor", "beta_fast", "beta_slow", "attention_factor", "mscale",
                         "mscale_all_dim", "low_freq_factor", "high_freq_factor"]), NUMBERS),
    original=st.one_of(st.none(), st.integers(1, 2**63)),
    truncate=st.booleans(),
    head_dim=st.sampled_from([2, 4, 16, 128]),
)  # fmt: skip
@example(kind="yarn", scaling={"rope_theta": 1 + 2**-52}, original=2**31 - 1, truncate=True, head_dim=16)
@example(kind="yarn", scaling={"rope_theta": 1 + 2**-52}, original=2**31 - 1, truncate=True, head_dim=4096)
@example(kind="yarn", scaling={"rope_theta": 1 + 2**-52}, original=1, truncate=True, head_dim=4096)
@example(kind="yarn", scaling={"beta_fast": 1e6, "beta_slow": 1e6}, original=1, truncate=False, head_dim=2)
def test_what_is_accepted_gives_finite_tables(
    kind: str, scaling: dict[str, float], original: int | None, truncate: bool, head_dim: int
) -> None:
    whole = {**scaling_of(kind), **scaling, "truncate": truncate}
    if original is not None:
        whole["original_max_position_embeddings"] = original
    with contextlib.suppress(FerrumError):
        assert_finite(from_json(rope_parameters=whole, head_dim=head_dim).rope)


@pytest.mark.clause("LOAD-29")
@pytest.mark.parametrize("kind", ["default", *SCALED])
@pytest.mark.parametrize("theta", [10000.0, 500000, 1e6, 8e6, 1e9])
def test_what_models_use_is_accepted(kind: str, theta: float) -> None:
    rope = from_json(rope_parameters={**scaling_of(kind), "rope_theta": theta}, max_position_embeddings=10**7).rope
    assert rope.theta == theta
    assert_finite(rope)


SIZES = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
         "head_dim", "vocab_size", "max_position_embeddings"]  # fmt: skip


@pytest.mark.clause("LOAD-29")
@example({"num_hidden_layers": 2**12})
@given(st.dictionaries(st.sampled_from(SIZES), st.one_of(st.integers(1, 64), st.integers(0, 64).map(lambda n: 2**n))))
def test_no_size_costs_memory_before_a_tensor_is_looked_at(keys: dict[str, int]) -> None:
    tracemalloc.start()
    with contextlib.suppress(FerrumError):
        from_json(**keys)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
