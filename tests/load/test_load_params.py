"""The parameter tree: the same model from both formats; every tensor is checked and used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from ferrum.errors import InvalidParameter, ModelError, ModelWarning, Unsupported
from ferrum.load import params as params_module
from ferrum.load.conversion import BLOCK_TYPES, quantize, to_float32, type_name
from ferrum.load.layout import half_split_order
from ferrum.load.model import load_model
from ferrum.model.params import DecoderParams, Layer
from ferrum.tensor.weights import Linear, Weight
from tests.core.test_mapping import linux, resident
from tests.load.gguf_writer import Stored, gguf_bytes
from tests.load.tiny_models import (
    HEAD_DIM,
    HEADS,
    HIDDEN,
    METADATA,
    gguf_tensors,
    interleave,
    tensors,
    write_folder,
    write_gguf,
)
from tests.tiny import tiny_config

PROJECTIONS = {"query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj",
               "output": "self_attn.o_proj", "gate": "mlp.gate_proj", "up": "mlp.up_proj",
               "down": "mlp.down_proj"}  # fmt: skip


def arrays_of(params: DecoderParams) -> dict[str, np.ndarray]:
    """The tree under Hugging Face names, as float32."""
    table, head = params.embedding.table, params.head.linear.weight
    found = {"model.embed_tokens.weight": table, "model.norm.weight": params.head.norm.weight}
    if head is not table:
        found["lm_head.weight"] = head
    for number, layer in enumerate(params.layers):
        prefix = f"model.layers.{number}."
        found[f"{prefix}input_layernorm.weight"], found[f"{prefix}post_attention_layernorm.weight"] = norms_of(layer)
        linears = dict(layer.linears())
        for field, name in PROJECTIONS.items():
            linear: Linear = linears[field]
            found[f"{prefix}{name}.weight"] = linear.weight
            if linear.bias is not None:
                found[f"{prefix}{name}.bias"] = linear.bias
    return {name: to_float32(item) if isinstance(item, Weight) else item for name, item in found.items()}


def norms_of(layer: Layer) -> list[np.ndarray]:
    """The weights of its two norms."""
    return [branch.before.weight for stage in layer.stages for branch in stage if branch.before is not None]


def check(params: DecoderParams, expected: dict[str, np.ndarray]) -> None:
    found = arrays_of(params)
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array, name)


@pytest.mark.clause("LOAD-30")
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_both_formats_hold_the_same_parameters(tmp_path: Path, tied: bool, bias: bool) -> None:
    arrays = tensors(tied=tied, bias=bias)
    folder = write_folder(tmp_path / "folder", arrays, tie_word_embeddings=tied, attention_bias=bias)
    for place in (folder, write_gguf(tmp_path / "model.gguf", arrays)):
        params = load_model(place).params
        check(params, arrays)
        assert (params.head.linear.weight is params.embedding.table) is tied


@pytest.mark.clause("LOAD-30")
@pytest.mark.parametrize("kind", BLOCK_TYPES)
def test_rows_are_put_in_order_while_they_stay_quantised(tmp_path: Path, kind: str) -> None:
    arrays = tensors()
    stored = {name: Stored.float32(array) for name, array in gguf_tensors(arrays).items()}
    for field in ("attn_q", "attn_k", "attn_v"):
        array = gguf_tensors(arrays)[f"blk.0.{field}.weight"]
        stored[f"blk.0.{field}.weight"] = Stored(kind.upper(), array.shape, quantize(array, kind, "").data.tobytes())
    (tmp_path / "model.gguf").write_bytes(gguf_bytes(METADATA, stored))
    layer = load_model(tmp_path / "model.gguf").params.layers[0]
    for field in ("query", "key", "value"):
        weight = dict(layer.linears())[field].weight
        array = arrays[f"model.layers.0.{PROJECTIONS[field]}.weight"]
        np.testing.assert_array_equal(weight.data, quantize(array, kind, "").data)


@pytest.mark.clause("LOAD-30")
@given(heads=st.integers(1, 6), half=st.integers(1, 8))
def test_the_order_undoes_interleaving(heads: int, half: int) -> None:
    rows, config = np.arange(heads * 2 * half), tiny_config(head_dim=2 * half)
    np.testing.assert_array_equal(interleave(rows, heads)[half_split_order(len(rows), config)], rows)


@pytest.mark.clause("LOAD-30")
def test_interleaved_rows_are_neighbouring_pairs() -> None:
    assert half_split_order(8, tiny_config(head_dim=4)).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.clause("LOAD-31")
@pytest.mark.parametrize("name", [name for name in tensors(bias=True) if ".layers.1." not in name])
def test_a_wrong_shape_is_an_error_that_names_tensor_and_shapes(tmp_path: Path, name: str) -> None:
    arrays = tensors(bias=True)
    right = list(arrays[name].shape)
    arrays[name] = np.concatenate((arrays[name], arrays[name][:1]))
    wrong = list(arrays[name].shape)
    with pytest.raises(ModelError) as caught:
        load_model(write_folder(tmp_path, arrays, attention_bias=True))
    says = f"tensor {name} has shape {wrong}, but the configuration asks for {right}"
    assert str(caught.value) == f"{tmp_path}: {says}"


@pytest.mark.clause("LOAD-31")
def test_a_vector_in_place_of_a_matrix_is_an_error(tmp_path: Path) -> None:
    arrays = tensors()
    arrays["model.layers.0.mlp.up_proj.weight"] = arrays["model.norm.weight"]
    with pytest.raises(
        ModelError, match=r"up_proj\.weight has shape \[64\], but the configuration asks for \[96, 64\]"
    ):
        load_model(write_folder(tmp_path, arrays))


@pytest.mark.clause("LOAD-32")
@pytest.mark.parametrize("name", [name for name in tensors() if ".layers.0." not in name])
def test_a_missing_tensor_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    arrays = tensors()
    del arrays[name]
    with pytest.raises(ModelError, match=f"tensor {name} is missing"):
        load_model(write_folder(tmp_path, arrays))


@pytest.mark.clause("LOAD-32")
def test_a_missing_tensor_of_gguf_is_an_error_that_names_it(tmp_path: Path) -> None:
    arrays = tensors()
    del arrays["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(ModelError, match=r"tensor blk\.1\.ffn_up\.weight is missing"):
        load_model(write_gguf(tmp_path / "model.gguf", arrays))


@pytest.mark.clause("LOAD-33")
def test_an_unknown_tensor_is_refused(tmp_path: Path) -> None:
    extra = {
        "model.layers.0.self_attn.q_norm.weight": np.ones(16, np.float32),
        "model.layers.2.x": np.ones(1, np.float32),
    }
    with pytest.raises(Unsupported, match=r"q_norm\.weight and 1 more has no place in architecture llama"):
        load_model(write_folder(tmp_path, {**tensors(), **extra}))
    with pytest.raises(Unsupported, match=r"k_proj\.bias and 7 more has no place"):
        load_model(write_folder(tmp_path, tensors(bias=True)))


@pytest.mark.clause("LOAD-33")
def test_tensors_that_carry_nothing_are_passed_over(tmp_path: Path) -> None:
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32)}
    check(load_model(write_folder(tmp_path, {**tensors(), **extra})).params, tensors())


@pytest.mark.clause("LOAD-34")
def test_a_tied_head_may_be_stored_again_or_be_another(tmp_path: Path) -> None:
    arrays = tensors()
    with pytest.warns(
        ModelWarning, match=r"ties lm_head\.weight to model\.embed_tokens\.weight, but they differ; both"
    ):
        check(load_model(write_folder(tmp_path, arrays, tie_word_embeddings=True)).params, arrays)
    arrays["lm_head.weight"] = arrays["model.embed_tokens.weight"]
    params = load_model(write_folder(tmp_path, arrays, tie_word_embeddings=True)).params
    assert params.head.linear.weight is params.embedding.table


@pytest.mark.clause("LOAD-34")
@pytest.mark.parametrize("row", [0, 15, 16, 39])
def test_a_tied_head_is_compared_to_its_last_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: int) -> None:
    monkeypatch.setattr(params_module, "COMPARED_ROWS", 16)
    arrays = tensors(tied=True)
    arrays["lm_head.weight"] = arrays["model.embed_tokens.weight"].copy()
    load_model(write_folder(tmp_path, arrays, tie_word_embeddings=True))
    arrays["lm_head.weight"][row, -1] += 1
    with pytest.warns(ModelWarning, match="but they differ"):
        params = load_model(write_folder(tmp_path, arrays, tie_word_embeddings=True)).params
    np.testing.assert_array_equal(params.head.linear.weight.data, arrays["lm_head.weight"])
    arrays["lm_head.weight"] = arrays["model.embed_tokens.weight"][:row].copy()
    with pytest.raises(ModelError, match=r"tensor lm_head\.weight has shape"):
        load_model(write_folder(tmp_path, arrays, tie_word_embeddings=True))


@pytest.mark.clause("LOAD-34")
@pytest.mark.parametrize("dtype", ["auto", "q8_0"])
def test_a_tied_table_may_be_stored_under_the_heads_name(tmp_path: Path, dtype: str) -> None:
    """Who saves shared tensors once keeps either of the two names."""
    arrays = tensors(tied=True)
    expected = load_model(write_folder(tmp_path / "usual", arrays, tie_word_embeddings=True), dtype).params
    arrays["lm_head.weight"] = arrays.pop("model.embed_tokens.weight")
    params = load_model(write_folder(tmp_path / "other", arrays, tie_word_embeddings=True), dtype).params
    assert params.head.linear.weight is params.embedding.table
    np.testing.assert_array_equal(params.embedding.table.data, expected.embedding.table.data)
    with pytest.raises(ModelError, match=r"tensor model\.embed_tokens\.weight is missing"):
        load_model(write_folder(tmp_path / "apart", arrays))


@pytest.mark.clause("LOAD-86")
@pytest.mark.parametrize("tied", [True, False])
def test_names_may_lack_their_prefix_where_the_part_without_a_head_was_saved(tmp_path: Path, tied: bool) -> None:
    arrays = tensors(tied=tied)
    bare = {name.removeprefix("model."): array for name, array in arrays.items()}
    keys = {"architectures": ["LlamaModel"], "tie_word_embeddings": tied}
    check(load_model(write_folder(tmp_path / "bare", bare, **keys)).params, arrays)
    mixed = {**bare, "model.norm.weight": bare.pop("norm.weight")}
    with pytest.raises(ModelError, match=r"tensor model\.embed_tokens\.weight is missing"):
        load_model(write_folder(tmp_path / "mixed", mixed, **keys))


@pytest.mark.clause("LOAD-86")
@pytest.mark.parametrize("prefix", ["model.", ""])
def test_a_model_without_a_head_that_is_not_tied_is_refused_clearly(tmp_path: Path, prefix: str) -> None:
    arrays = {name.replace("model.", prefix): array for name, array in tensors(tied=True).items()}
    with pytest.raises(ModelError, match=r"tensor lm_head\.weight is missing, .* does not tie it .*; without a head"):
        load_model(write_folder(tmp_path, arrays))


@pytest.mark.clause("LOAD-34")
@pytest.mark.parametrize("dtype", ["auto", "bfloat16", "q8_0"])
def test_a_tied_head_is_the_embedding_itself_in_every_type(tmp_path: Path, dtype: str) -> None:
    params = load_model(write_gguf(tmp_path / "model.gguf", tensors(tied=True)), dtype).params
    assert params.head.linear.weight is params.embedding.table


SHAPES: dict[str, list[tuple[int, ...]]] = {
    "rotary_emb.inv_freq": [(8,)], "rotary_emb.cos_cached": [(1, 1, 64, 16), (64, 16)],
    "rotary_emb.sin_cached": [(64, 16)],
    "masked_bias": [(), (1,)], "bias": [(1, 1, 64, 64), (64, 64)],
}  # fmt: skip


@pytest.mark.clause("LOAD-33")
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("level", ["model.layers.0.self_attn.", "model.layers.1.attn."])
def test_derived_buffers_of_layers_are_left_where_they_are(tmp_path: Path, name: str, level: str) -> None:
    arrays = tensors()
    for shape in SHAPES[name]:
        check(load_model(write_folder(tmp_path, {**arrays, level + name: np.ones(shape, np.float32)})).params, arrays)


@pytest.mark.clause("LOAD-33")
@pytest.mark.parametrize("name", ["rotary_emb.inv_freq", "rotary_emb.cos_cached", "inv_freq", "position_ids",
                                  "causal_mask",
                                  "embeddings.position_ids", "rope.freqs"])  # fmt: skip
@pytest.mark.parametrize("level", ["", "model."])
def test_derived_buffers_of_a_model_are_left_where_they_are(tmp_path: Path, name: str, level: str) -> None:
    stored = np.ones((4, 4), np.uint8 if "mask" in name else np.int64)  # of types that nothing else may have
    check(load_model(write_folder(tmp_path, {**tensors(), level + name: stored})).params, tensors())


@pytest.mark.clause("LOAD-33")
@pytest.mark.parametrize(
    ("name", "shape"),
    [("self_attn.bias", (64,)), ("self_attn.q_norm.weight", (16,)), ("self_attn.rotary_emb.scale", (8,)),
     ("self_attn.my_masked_bias", (1,)), ("mlp.bias", (4, 4)), ("self_attn.rotary_emb.inv_freq.weight", (8,))],
)  # fmt: skip
def test_what_only_looks_like_a_buffer_is_refused(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    arrays = {**tensors(), f"model.layers.0.{name}": np.ones(shape, np.float32)}
    with pytest.raises(Unsupported, match=rf"tensor model\.layers\.0\.{name} has no place in architecture llama"):
        load_model(write_folder(tmp_path, arrays))


@pytest.mark.clause("LOAD-35")
def test_a_bias_that_the_configuration_promises_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tensor model\.layers\.0\.self_attn\.q_proj\.bias is missing"):
        load_model(write_folder(tmp_path, tensors(), attention_bias=True))
    with pytest.raises(ModelError, match=r"tensor model\.layers\.0\.mlp\.gate_proj\.bias is missing"):
        load_model(write_folder(tmp_path, tensors(), mlp_bias=True))


@pytest.mark.clause("LOAD-36")
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", *BLOCK_TYPES])
def test_dtype_converts_every_matrix_and_no_vector(tmp_path: Path, dtype: str) -> None:
    arrays = tensors(bias=True)
    params = load_model(write_gguf(tmp_path / "model.gguf", arrays), dtype).params
    assert {type_name(weight) for weight in params.weights()} == {dtype}
    layer = params.layers[1]
    for vector in (params.head.norm.weight, *norms_of(layer), dict(layer.linears())["query"].bias):
        assert vector is not None and vector.dtype == np.float32
    np.testing.assert_array_equal(dict(layer.linears())["query"].bias, arrays["model.layers.1.self_attn.q_proj.bias"])


@pytest.mark.clause("LOAD-36")
def test_vectors_stored_in_half_precision_become_float32(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {name: array.astype(ml_dtypes.bfloat16) for name, array in tensors().items()}
    write_folder(tmp_path)
    save_file(arrays, tmp_path / "model.safetensors")
    params = load_model(tmp_path).params
    assert params.head.norm.weight.dtype == np.float32
    assert {type_name(weight) for weight in params.weights()} == {"bfloat16"}


@pytest.mark.clause("LOAD-36")
def test_an_unknown_dtype_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="dtype must be one of"):
        load_model(tmp_path / "absent.gguf", "int3")


@pytest.mark.clause("LOAD-37")
def test_the_real_model_loads_as_it_is_stored(smollm2_path: Path) -> None:
    params = load_model(smollm2_path).params
    assert params.head.linear.weight is params.embedding.table
    assert (len(params.layers), params.embedding.table.shape) == (30, (49152, 576))
    assert [type_name(weight) for weight in params.weights()] == ["q8_0"] + ["q4_1"] * 210
    views = [weight.data for weight in params.weights() if not weight.data.flags.owndata]
    assert len(views) == 211 - 60  # all but q and k, whose rows were put in order
    assert HEADS * HEAD_DIM == 64


@pytest.mark.clause("FILES-07")
@linux
def test_pages_of_what_was_converted_or_reordered_are_given_back(tmp_path: Path) -> None:
    table = np.ones((8192, HIDDEN), np.float32)
    arrays = {**tensors(), "model.embed_tokens.weight": table, "lm_head.weight": table}
    folder = write_folder(tmp_path, arrays, vocab_size=len(table))
    file = folder / "model.safetensors"
    stored, converted = load_model(folder, "auto"), load_model(folder, "float16")
    assert np.array_equal(stored.params.embedding.table.data, table)
    assert resident(file) < 0.7 * 2 * table.nbytes, "the table as it is stored, and nothing of the converted ones"
    assert np.array_equal(converted.params.embedding.table.data, table.astype(np.float16))
