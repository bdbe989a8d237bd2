"""Families of GGUF: their rows, the keys that they read, and other layouts of the same model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferrum.config import ModelConfig, RopeConfig, RopeScaling
from ferrum.engine.llm import LLM
from ferrum.errors import FerrumError, InvalidFormat, ModelError, Unsupported
from ferrum.load.config_gguf import describe
from ferrum.load.families_gguf import GGUF_FAMILIES
from ferrum.load.gguf import GGUFFile, GGUFTensor
from ferrum.load.known_keys import GGUF_HARMLESS, GGUF_NEUTRAL, GGUF_READ
from ferrum.load.token_ids import NO_IDS
from tests.load.gguf_writer import Stored, Value, gguf_bytes
from tests.model.families import FAMILIES, from_recipe, write_gguf
from tests.model.test_family_goldens import TOLERANCE, architecture, error

GOLDENS = {arch: name for name, golden in FAMILIES.items() if (arch := architecture(golden)) is not None}
"""A golden for each architecture."""


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], GGUFFile]:
    """The GGUF file of a golden."""
    root = tmp_path_factory.mktemp("gguf")

    @cache
    def file(name: str) -> GGUFFile:
        return GGUFFile(write_gguf(FAMILIES[name], root / f"{name}.gguf"))

    return file


def config_of(file: GGUFFile, tensors: dict[str, np.ndarray] | None = None, **changes: Any) -> ModelConfig:
    """With some keys changed: named without the architecture, and with __ for a dot; None takes a key away."""
    changed, prefix = copy.copy(file), file.metadata["general.architecture"] + "."
    keys = {prefix + key.replace("__", "."): value for key, value in changes.items()}
    changed.metadata = {key: value for key, value in {**file.metadata, **keys}.items() if value is not None}
    f32 = next(iter(file.tensors.values())).type
    more = {
        name: GGUFTensor(name, f32, array.shape, array.astype(np.float32)) for name, array in (tensors or {}).items()
    }
    changed.tensors = {**file.tensors, **more}
    return describe(changed, NO_IDS).config


# ---- rows
@pytest.mark.clause("LOAD-130")
def test_every_family_has_a_golden() -> None:
    assert GOLDENS.keys() == GGUF_FAMILIES.keys()


@pytest.mark.clause("LOAD-83", "LOAD-131")
@pytest.mark.parametrize("family", GGUF_FAMILIES)
def test_a_key_that_a_family_does_not_read_is_refused_unless_neutral(family: str, opened: Any) -> None:
    file, row = opened(GOLDENS[family]), GGUF_FAMILIES[family]
    assert row.read_keys <= GGUF_NEUTRAL.keys() | GGUF_HARMLESS | GGUF_READ
    for key in GGUF_NEUTRAL.keys() - row.read_keys:
        assert f"{family}.{key}" not in file.metadata or key in GGUF_READ
        with pytest.raises(Unsupported, match=rf"{family}\.{key} 0\.25 is not supported"):
            config_of(file, **{key: 0.25})


@pytest.mark.clause("LOAD-131")
@pytest.mark.parametrize("family", GGUF_FAMILIES)
def test_every_key_that_a_family_reads_may_be_odd(family: str, opened: Any) -> None:
    file = opened(GOLDENS[family])
    for key in sorted(GGUF_FAMILIES[family].read_keys | GGUF_READ):
        for value in (0, -1, 2**62, 2**62 + 0.0, 1e-300, float("nan"), "x", True, np.array([1, 7]), np.zeros(3), []):
            try:
                config_of(file, **{key: value})
            except FerrumError as problem:
                assert "\n" not in str(problem), key


@pytest.mark.clause("LOAD-131")
def test_what_a_key_means_is_a_matter_of_the_family(opened: Any) -> None:
    granite, cohere = opened("granite-wide"), opened("cohere-wide")
    assert config_of(granite, logit_scale=8.0).logit_scale == 1 / 8
    assert config_of(cohere, logit_scale=8.0).logit_scale == 8
    scales = dict.fromkeys(("attention__scale", "embedding_scale", "residual_scale", "logit_scale"), 0.0)
    for none in (scales, dict.fromkeys(scales)):
        found = config_of(granite, **none)
        assert (found.attention_scale, found.embedding_scale, found.residual_scale) == (None, 1, 1)
    with pytest.raises(Unsupported, match=r"granite\.rope\.scaling\.finetuned False"):
        config_of(granite, rope__scaling__finetuned=False)
    with pytest.raises(InvalidFormat, match=r"granite\.residual_scale must be a number above 0"):
        config_of(granite, residual_scale=-1.0)


@pytest.mark.clause("LOAD-131")
def test_facts_of_llama_cpp_stand_where_files_are_silent(opened: Any) -> None:
    gemma = config_of(opened("gemma2-wide"), attn_logit_softcapping=None, final_logit_softcapping=None)
    assert (gemma.attention_softcap, gemma.logit_softcap, gemma.embedding_scale) == (50, 30, 8)
    for name in ("gemma2-wide", "gemma3-wide"):
        assert config_of(opened(name), final_logit_softcapping=2.0).logit_softcap == 2
    assert config_of(opened("gemma2-wide"), attention__sliding_window=None).kinds[0].window == 4096
    for name, layers in (("gemma2-wide", 46), ("gemma3-wide", 62)):
        assert config_of(opened(name)).scale == 32**-0.5
        assert config_of(opened(name), block_count=layers).scale == 16**-0.5  # 64 wide, 4 heads
        assert config_of(opened(name), block_count=layers + 1).scale == 32**-0.5
    assert config_of(opened("gpt-neox-odd"), use_parallel_residual=None).parallel


# ---- layers
def windows(config: ModelConfig) -> str:
    """A letter a layer: local, global, or still, without rotation."""
    return "".join("l" if kind.window else "g" if kind.rope else "s" for kind in config.kinds)


@pytest.mark.clause("LOAD-132")
def test_the_last_layer_of_every_period_sees_all_positions(opened: Any) -> None:
    assert windows(config_of(opened("gemma2-wide"), block_count=5)) == "lglgl"
    assert windows(config_of(opened("gemma3-wide"), block_count=13)) == "lllllglllllgl"
    assert windows(config_of(opened("cohere2-wide"), block_count=5)) == "lllsl"
    assert windows(config_of(opened("smollm3-wide"), block_count=9)) == "gggsgggsg"
    sparse = config_of(opened("gpt-oss-wide"))
    assert windows(sparse) == "lg" * (sparse.layers // 2) and all(kind.sparse for kind in sparse.kinds)
    assert windows(config_of(opened("phi3-odd"), attention__sliding_window=7)) == "ll"
    olmo = opened("olmo3-wide")
    assert windows(config_of(olmo, attention__sliding_window_pattern=None)) == "lllg"
    assert windows(config_of(olmo, attention__sliding_window_pattern=2)) == "lglg"
    assert windows(config_of(olmo, attention__sliding_window_pattern=1)) == "gggg"
    assert windows(config_of(olmo, attention__sliding_window_pattern=0)) == "llll"
    assert windows(config_of(olmo, attention__sliding_window_pattern=np.array([0, 1, 1, 0], bool))) == "gllg"
    assert windows(config_of(olmo, attention__sliding_window=0)) == "gggg"
    for wrong in (np.array([0, 1], bool), np.array([0, 1, 2, 0])):
        with pytest.raises(InvalidFormat, match=r"sliding_window_pattern must be true or false for each of 4 layers"):
            config_of(olmo, attention__sliding_window_pattern=wrong)


@pytest.mark.clause("LOAD-132")
def test_layers_with_a_window_may_turn_otherwise(opened: Any) -> None:
    local, _, _, whole = (kind.rope for kind in config_of(opened("olmo3-wide"), rope__freq_base_swa=70.0).kinds)
    assert local == RopeConfig(70.0, 16)
    assert whole is not None and whole.scaling is RopeScaling.YARN
    gemma = opened("gemma3-wide")
    assert config_of(gemma, rope__freq_base_swa=None).kinds[0].rope == RopeConfig(10000.0, 32)
    assert config_of(gemma, attention__sliding_window=0).kinds[0].rope == config_of(gemma).kinds[5].rope
    for name, width in (("gemma2-wide", 32), ("gpt-oss-wide", 32), ("cohere2-wide", 16)):
        changed = config_of(opened(name), rope__freq_base_swa=70.0, rope__scaling__type="linear",
                            rope__scaling__factor=2.0)  # fmt: skip
        assert changed.kinds[0].rope == RopeConfig(70.0, width, RopeScaling.LINEAR, 2.0)
    with pytest.raises(InvalidFormat, match=r"gemma3\.rope\.freq_base_swa must be a number from"):
        config_of(gemma, rope__freq_base_swa=1e35)


@pytest.mark.clause("LOAD-29")
def test_more_layers_than_any_model_has_are_refused(opened: Any) -> None:
    with pytest.raises(InvalidFormat, match=r"gemma2\.block_count must be at most 4096"):
        config_of(opened("gemma2-wide"), block_count=2**40)


# ---- rotation
@pytest.mark.clause("LOAD-133")
def test_divisors_for_short_and_for_long_contexts_are_longrope(opened: Any) -> None:
    rope = config_of(opened("phi3-wide")).rope
    assert rope is not None and rope.scaling is RopeScaling.LONGROPE
    assert (len(rope.factors), len(rope.long_factors), rope.original_max_positions) == (8, 8, 16)
    assert rope.attention_factor == pytest.approx(1.2247449)
    assert config_of(opened("phi3-odd")).rope == RopeConfig(10000.0, 12)  # without divisors
    llama = opened("llama-wide")
    factors = {f"rope_factors_{kind}.weight": np.arange(1, 9) for kind in ("long", "short")}
    named = config_of(llama, factors, rope__scaling__type="longrope", rope__scaling__factor=2.0).rope
    assert named is not None and named.factors == tuple(range(2, 18, 2)) and named.attention_factor == 1
    with pytest.raises(ModelError, match=r"tensor rope_factors_short\.weight is missing"):
        config_of(llama, rope__scaling__type="longrope")
    with pytest.raises(ModelError, match=r"tensor rope_factors_long\.weight is missing"):
        config_of(llama, {"rope_factors_short.weight": np.ones(8)})
    with pytest.raises(Unsupported, match=r"together with rope_freqs\.weight"):
        config_of(llama, {**factors, "rope_freqs.weight": np.ones(8)})
    with pytest.raises(ModelError, match=r"rope_factors_long\.weight has shape \[5\], expected \[8\]"):
        config_of(llama, {**factors, "rope_factors_long.weight": np.ones(5)})
    with pytest.raises(InvalidFormat, match=r"rope_factors_long\.weight must hold a number from 0\.001"):
        config_of(llama, {**factors, "rope_factors_long.weight": np.zeros(8)})


@pytest.mark.clause("LOAD-133")
def test_what_cosine_and_sine_are_multiplied_with(opened: Any) -> None:
    yarn = opened("rope-yarn")
    usual = 0.1 * np.log(4) + 1

    def factor(file: GGUFFile, **changes: Any) -> Any:
        rope = config_of(file, **changes).rope
        assert rope is not None and rope.scaling is RopeScaling.YARN
        return rope.attention_factor

    assert factor(yarn) is None
    assert factor(yarn, rope__scaling__attn_factor=0.5) == pytest.approx(0.5 * usual)
    for neutral in (1.0, -1.0, float(np.float32(usual))):
        assert factor(yarn, rope__scaling__yarn_attn_factor=neutral) is None
    ministral = opened("ministral3-wide")
    assert factor(ministral) == pytest.approx(1)
    assert factor(ministral, rope__scaling__yarn_log_multiplier=0.5) == pytest.approx(usual / (0.05 * np.log(4) + 1))
    assert factor(ministral, rope__scaling__yarn_log_multiplier=0.0) is None


@pytest.mark.clause("LOAD-133")
def test_queries_that_grow_with_their_position(opened: Any) -> None:
    rope = config_of(opened("ministral3-wide")).rope
    assert rope is not None and rope.query_growth == pytest.approx(0.3)
    plain = config_of(opened("ministral3-wide"), rope__scaling__type="none").rope
    assert plain is not None and (plain.scaling, plain.original_max_positions) == (RopeScaling.NONE, 16)
    none = config_of(opened("ministral3-wide"), attention__temperature_scale=0.0).rope
    assert none is not None and none.query_growth == 0


@pytest.mark.clause("LOAD-134")
def test_part_of_a_head_turns_where_the_family_allows_it(opened: Any) -> None:
    for name, dims in (("phi-wide", 8), ("gpt-neox-odd", 12), ("stablelm-wide", 4), ("glm4-wide", 16)):
        rope = config_of(opened(name)).rope
        assert rope is not None and rope.rotary_dim == dims, name
    allowed = {"phi2", "phi3", "gptneox", "stablelm", "glm4", "chatglm", "gpt2"}  # which does not turn at all
    for family in GGUF_FAMILIES.keys() - allowed:
        with pytest.raises(Unsupported, match=rf"{family}\.rope\.dimension_count 2 is not supported; supported: "):
            config_of(opened(GOLDENS[family]), rope__dimension_count=2)
    for wrong in (7, 18):
        with pytest.raises(InvalidFormat, match=r"dimension_count must be even and at most 16"):
            config_of(opened("phi-wide"), rope__dimension_count=wrong)
    assert config_of(opened("gpt2-wide")).rope is None


# ---- experts
@pytest.mark.clause("LOAD-135")
def test_experts_are_as_many_and_as_wide_as_the_file_says(opened: Any) -> None:
    qwen = opened("qwen2-moe-wide")
    found = config_of(qwen).experts
    assert found is not None
    assert (found.count, found.chosen, found.intermediate_size, found.normalised) == (4, 2, 32, False)
    assert (found.shared_size, found.shared_weight) == (64, True)
    silent = config_of(qwen, expert_feed_forward_length=None, expert_shared_feed_forward_length=None).experts
    assert silent is not None and (silent.intermediate_size, silent.shared_size) == (96, 96)
    assert config_of(opened("granite-moe-odd"), expert_count=0, expert_used_count=None).experts is None
    normalised = {name: row.normalised for name, row in GGUF_FAMILIES.items() if row.normalised is not None}
    assert {name for name, says in normalised.items() if not says} == {"qwen2moe", "olmoe"}
    with pytest.raises(InvalidFormat, match=r"qwen2moe\.expert_used_count 5 is above 4 experts"):
        config_of(qwen, expert_used_count=5)
    with pytest.raises(InvalidFormat, match=r"qwen2moe\.expert_used_count is missing"):
        config_of(qwen, expert_used_count=None)
    with pytest.raises(Unsupported, match="expert_gating_func 3 is not supported"):
        config_of(qwen, expert_gating_func=3)
    assert config_of(opened("gpt-oss-wide"), expert_gating_func=3) == config_of(opened("gpt-oss-wide"))
    with pytest.raises(InvalidFormat, match=r"llama\.expert_count must be a whole number"):
        config_of(opened("mixtral-wide"), expert_count=np.array([0, 8]))


# ---- other layouts of the same model
def changed_file(name: str, path: Path, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> Path:
    """The GGUF file of a golden with its tensors changed."""
    golden = FAMILIES[name]
    assert golden.recipe is not None
    weights = golden.weights()
    arrays = {tensor: from_recipe(recipe, weights) for tensor, recipe in golden.recipe["tensors"].items()}
    metadata = {key: Value(*value) for key, value in golden.recipe["metadata"].items()}
    path.write_bytes(gguf_bytes(metadata, {key: Stored.float32(array) for key, array in change(arrays).items()}))
    return path


def check(path: Path, name: str) -> None:
    golden = FAMILIES[name]
    assert error(LLM(str(path), backend="numpy", kv_memory="4MiB").logits(golden.tokens), golden.logits) < TOLERANCE


def one_tensor_for_each_expert(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = {}
    for name, array in arrays.items():
        if "_exps." in name:
            found |= {name.replace("_exps.", f".{number}."): each for number, each in enumerate(array)}
        else:
            found[name] = array
    return found


def queries_keys_and_values_in_one(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = {}
    for name, array in arrays.items():
        if "attn_q." in name:
            found[name.replace("attn_q.", "attn_qkv.")] = np.concatenate(
                [arrays[name.replace("attn_q.", f"attn_{part}.")] for part in "qkv"]
            )
        elif "attn_k." not in name and "attn_v." not in name:
            found[name] = array
    return found


@pytest.mark.clause("LOAD-136")
def test_an_old_file_has_a_tensor_for_each_expert(tmp_path: Path) -> None:
    check(changed_file("mixtral-odd", tmp_path / "old.gguf", one_tensor_for_each_expert), "mixtral-odd")


@pytest.mark.clause("LOAD-136")
@pytest.mark.parametrize("name", ["glm-wide", "phi-wide", "llama-odd"])
def test_queries_keys_and_values_may_be_in_one_tensor(tmp_path: Path, name: str) -> None:
    check(changed_file(name, tmp_path / "joined.gguf", queries_keys_and_values_in_one), name)


@pytest.mark.clause("LOAD-32", "LOAD-136")
def test_an_expert_that_is_missing_is_named(tmp_path: Path) -> None:
    def lacking(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = one_tensor_for_each_expert(arrays)
        return {name: array for name, array in found.items() if name != "blk.1.ffn_up.4.weight"}

    path = changed_file("mixtral-odd", tmp_path / "old.gguf", lacking)
    with pytest.raises(ModelError, match=r"tensor blk\.1\.ffn_up\.4\.weight is missing"):
        LLM(str(path))


def by_hand(name: str, path: Path, family: str, names: dict[str, str], **keys: Any) -> Path:
    """A GGUF file of a golden that llama.cpp's converter cannot write: tensors by the ends of their names."""
    golden, tensors = FAMILIES[name], {}
    for tensor, array in golden.weights().items():
        part = tensor.removeprefix("model.").removesuffix(".weight").removesuffix(".bias")
        layer, _, rest = part.removeprefix("layers.").partition(".") if part.startswith("layers.") else ("", "", part)
        stored = (f"blk.{layer}." if layer else "") + names[rest.partition(".norms.")[0]] + "." + tensor.rsplit(".")[-1]
        floats = array.astype(np.float32)
        tensors[stored] = np.vstack([tensors[stored], floats]) if stored in tensors else floats
    metadata = {"general.architecture": family, **{f"{family}.{key.replace('__', '.')}": v for key, v in keys.items()}}
    path.write_bytes(gguf_bytes(metadata, {key: Stored.float32(array) for key, array in tensors.items()}))
    return path


BY_HAND = {
    "lm_head": "output", "embed_tokens": "token_embd", "norm": "output_norm", "input_layernorm": "attn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "self_attn.q_layernorm": "attn_q_norm", "self_attn.k_layernorm": "attn_k_norm",
}  # fmt: skip


@pytest.mark.clause("LOAD-136")
@pytest.mark.parametrize(("name", "family"), [("stablelm-qk", "stablelm"), ("cohere-odd", "command-r")])
def test_norms_of_heads_are_taken_where_a_file_has_them(tmp_path: Path, name: str, family: str) -> None:
    told = FAMILIES[name].config
    rope = told["rope_parameters"]
    head_dim = told["hidden_size"] // told["num_attention_heads"]
    scale = {"logit_scale": told["logit_scale"]} if "logit_scale" in told else {}
    path = by_hand(
        name,
        tmp_path / "norms.gguf",
        family,
        BY_HAND,
        context_length=told["max_position_embeddings"],
        embedding_length=told["hidden_size"],
        feed_forward_length=told["intermediate_size"],
        block_count=told["num_hidden_layers"],
        attention__head_count=told["num_attention_heads"],
        attention__head_count_kv=told["num_key_value_heads"],
        attention__layer_norm_epsilon=told["layer_norm_eps"],
        rope__freq_base=rope["rope_theta"],
        rope__dimension_count=int(head_dim * rope.get("partial_rotary_factor", 1)),
        **scale,
    )
    check(path, name)


@pytest.mark.clause("LOAD-33", "LOAD-136")
def test_norms_of_heads_in_a_family_without_them_are_unknown(tmp_path: Path) -> None:
    path = changed_file("llama-odd", tmp_path / "n.gguf", lambda old: {**old, "blk.0.attn_q_norm.weight": np.ones(12)})
    with pytest.raises(Unsupported, match=r"blk\.0\.attn_q_norm\.weight has no place in architecture llama"):
        LLM(str(path))
