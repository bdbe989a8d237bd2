"""TRACE-01, TRACE-02, TRACE-05 to TRACE-13: recordings of a small model on every backend."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum import LLM, SamplingParams
from ferrum.backends.numpy_backend import NumbaOps, NumpyOps
from ferrum.backends.registry import load_backend
from ferrum.config import EngineConfig, ModelConfig
from ferrum.errors import InvalidParameter, Unsupported
from ferrum.model.params import Branch, DecoderParams, Layer
from ferrum.sample.state import SamplingState
from ferrum.sampling_params import StructuredOutputs
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.parts import Norm
from ferrum.testing.strict import StrictOps
from ferrum.text.byte_tokenizer import ByteTokenizer
from ferrum.trace.distribution import explain, most_likely
from ferrum.trace.recording import Detail, Recording
from tests.house.source import imports, modules, room_of
from tests.tiny import Floats, TinyModel, tiny_config, tiny_params
from tests.trace.checks import check_whole, events
from tests.trace.dense import dense_weights

PROMPTS = ["The cat sat on the mat", "The cat sat on a hat", "No"]
SAMPLED = SamplingParams(seed=3, temperature=0.9, top_k=50, top_p=0.9, max_tokens=10, ignore_eos=True)
GREEDY = SamplingParams(seed=0, temperature=0, max_tokens=10, ignore_eos=True)
EVERYTHING = SamplingParams(
    seed=5, temperature=0.7, top_k=60, top_p=0.95, min_p=0.001, typical_p=0.95, repetition_penalty=1.1,
    presence_penalty=0.2, frequency_penalty=0.1, logit_bias={65: 2.0}, min_tokens=4, max_tokens=8,
)  # fmt: skip


WIDE = tiny_config(hidden_size=128, intermediate_size=256, head_dim=32)
"""Wide enough for kernels and replays."""


def backend(name: str) -> TensorOps:
    return StrictOps() if name == "strict" else load_backend(name, **({"threads": 2} if name == "numba" else {}))


def tiny(ops: TensorOps, params: DecoderParams | None = None, config: ModelConfig | None = None, **engine: Any) -> LLM:
    """A model of 2 layers, with 60 positions of memory in blocks of 4 unless told otherwise."""
    config = tiny_config() if config is None else config
    model = TinyModel(config, tiny_params(config) if params is None else params, ByteTokenizer())
    settings = {"kv_memory": 15 * 4 * 2 * 2 * 2 * 8 * 4, "block_size": 4, "max_model_len": 48, **engine}
    return LLM.from_loaded(model, ops, EngineConfig(**settings))


def traced(llm: LLM, params: Any, detail: Detail | None = None, prompts: Any = PROMPTS) -> dict[str, Any]:
    recording = Recording(llm, detail)
    with recording:
        llm.generate(prompts, params)
    return json.loads(json.dumps(recording.trace(), allow_nan=False))


@pytest.mark.clause("TRACE-01", "TRACE-02", "TRACE-10")
@pytest.mark.parametrize("name", ["numpy", "numba", "strict"])
@pytest.mark.parametrize("params", [GREEDY, SAMPLED, EVERYTHING], ids=["greedy", "sampled", "everything"])
@pytest.mark.parametrize("engine", [{}, {"kv_memory": 3 << 12, "host_kv_memory": 1 << 16}, {"speculate": "ngram:3"}])
def test_answers_are_the_same_with_and_without(name: str, params: SamplingParams, engine: dict[str, Any]) -> None:
    plain = [each.choices for each in tiny(backend(name), **engine).generate(PROMPTS, params)]
    llm = tiny(backend(name), **engine)
    recording = Recording(llm)
    with recording:
        recorded = [each.choices for each in llm.generate(PROMPTS, params)]
    assert recorded == plain
    trace = recording.trace()
    check_whole(trace)
    assert recording.steps == llm.stats().steps
    outputs = [sequence["tokens"][sequence["prompt_length"] :] for sequence in trace["sequences"]]
    assert outputs == [list(choices[0].token_ids) for choices in plain]
    assert [sequence["finish_reason"] for sequence in trace["sequences"]] == [
        choices[0].finish_reason.value for choices in plain
    ]
    assert len(events(trace, "sampled")) == sum(map(len, outputs))


@pytest.mark.clause("TRACE-01", "TRACE-12")
def test_afterwards_the_engine_is_as_it_was() -> None:
    llm = tiny(backend("numba"), config=WIDE, kv_memory=1 << 20)
    before = llm.engine.executor, llm.engine.observer, llm.runner.ops.launcher
    llm.generate(PROMPTS, GREEDY)
    replayed = llm.runner.decode_steps.replayed
    assert replayed
    traced(llm, GREEDY)
    assert (llm.engine.executor, llm.engine.observer, llm.runner.ops.launcher) == before
    assert llm.runner.decode_steps.replayed == replayed, "a recorded step was replayed"
    llm.generate(PROMPTS, GREEDY)
    assert llm.runner.decode_steps.replayed > replayed
    assert llm.metrics.finished.total() == 9  # the engine's own observer is told all the time


@pytest.mark.clause("TRACE-12")
def test_what_happens_after_the_recording_is_not_in_the_trace() -> None:
    llm = tiny(backend("numpy"))
    with (recording := Recording(llm)):
        llm.generate(PROMPTS, GREEDY)
    trace = recording.trace()
    llm.engine.submit([1, 2, 3], GREEDY)
    llm.engine.scheduler.reset()
    assert recording.trace() == trace


@pytest.mark.clause("TRACE-12")
def test_without_operations_and_attention_the_engine_keeps_its_backend() -> None:
    llm = tiny(backend("numba"), config=WIDE, kv_memory=1 << 20)
    executor = llm.engine.executor
    recording = Recording(llm, Detail(operations=False, attention=False, distributions=False))
    with recording:
        assert llm.engine.executor is executor
        llm.generate(PROMPTS, GREEDY)
    trace = recording.trace()
    check_whole(trace)
    assert llm.runner.decode_steps.replayed
    assert not any("launches" in step for step in trace["steps"])
    choices = [choice for step in trace["steps"] for choice in step["choices"]]
    assert choices and all(set(choice) == {"sequence", "position", "token"} for choice in choices)


@pytest.mark.clause("TRACE-05")
@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_operations_are_told_in_order_with_their_layers(name: str) -> None:
    trace = traced(tiny(backend(name)), GREEDY)
    layer = ["norm_linears", "rope_attention", "linear_add", "norm_gated", "linear_add"]
    expected = [("embedded", None), *((each, number) for number in range(2) for each in layer), ("logits", None)]
    for step in trace["steps"]:
        launches = [launch for launch in step["launches"] if launch[0] not in ("argmax", "choose", "ranked")]
        assert [(launch[0], launch[1]) for launch in launches] == expected
        assert sum(launch[2] for launch in step["launches"]) <= 1e6 * step["seconds"] + 1
        for _, _, microseconds, kernels in step["launches"]:
            assert microseconds >= 0
            assert sum(time for _, time in kernels) <= microseconds + 0.1 * (len(kernels) + 1)


@pytest.mark.clause("TRACE-05")
def test_kernels_are_those_that_were_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = tiny(backend("numba"), config=WIDE, kv_memory=1 << 20)
    ops = llm.runner.ops
    assert isinstance(ops, NumbaOps)
    launched: list[str] = []
    launch = type(ops.launcher).launch

    def noted(self: Any, kernel: str, *words: int, **sizes: int) -> None:
        launched.append(kernel)
        launch(self, kernel, *words, **sizes)

    llm.generate(PROMPTS, GREEDY)  # compiles
    monkeypatch.setattr(type(ops.launcher), "launch", noted)
    trace = traced(llm, GREEDY, Detail(attention=False))
    told = [kernel for step in trace["steps"] for launch in step["launches"] for kernel, _ in launch[3]]
    assert told and set(told) <= set(launched)
    assert told == [kernel for kernel in launched if kernel in set(told)]


@pytest.mark.clause("TRACE-05")
def test_kernels_of_the_recording_itself_are_not_told() -> None:
    norms = {"query_norm": Norm(1 + normal(32) / 4, 1e-5), "key_norm": Norm(1 - normal(32) / 4, 1e-5)}
    told = []
    for detail in (Detail(), Detail(attention=False)):
        trace = traced(tiny(backend("numba"), special(WIDE, **norms), WIDE, kv_memory=1 << 20), GREEDY, detail)
        operations = [launch for step in trace["steps"] for launch in step["launches"]]
        told.append([[kernel for kernel, _ in launch[3]] for launch in operations])
    assert told[0] == told[1]


def special(config: ModelConfig, **fields: Any) -> DecoderParams:
    """Parameters whose attention has other fields."""
    params = tiny_params(config)

    def changed(layer: Layer) -> Layer:
        ((attend,), feed) = layer.stages
        assert isinstance(attend, Branch)
        return replace(layer, stages=((replace(attend, body=replace(attend.body, **fields)),), feed))

    return replace(params, layers=tuple(map(changed, params.layers)))


def normal(*shape: int) -> Floats:
    return np.random.default_rng(8).standard_normal(shape).astype(np.float32)  # type: ignore[return-value]


ENGINES: dict[str, dict[str, Any]] = {
    "plain": {}, "speculation": {"speculate": "ngram:4"}, "chunks": {"max_num_batched_tokens": 5},
}  # fmt: skip
FIELDS: dict[str, dict[str, Any]] = {
    "plain": {}, "window": {"window": 5}, "softcap": {"softcap": 1.5}, "sinks": {"sinks": normal(4)},
    "norms": {"query_norm": Norm(1 + normal(8) / 4, 1e-5), "key_norm": Norm(1 - normal(8) / 4, 1e-5)},
}  # fmt: skip
LAYERS = [
    *(
        pytest.param(engine, fields, id=f"{way}-{kind}")
        for way, engine in ENGINES.items()
        for kind, fields in FIELDS.items()
    ),
    pytest.param(
        {"kv_dtype": "q8_0"}, {}, id="q8"
    ),  # these keys are read back as any others: one type of layer will do
]


@pytest.mark.clause("TRACE-06")
@pytest.mark.parametrize("name", ["numpy", "numba", "strict"])
@pytest.mark.parametrize(("engine", "fields"), LAYERS)
def test_attention_is_that_of_the_textbook(name: str, engine: dict[str, Any], fields: dict[str, Any]) -> None:
    config = tiny_config(head_dim=32) if "kv_dtype" in engine else tiny_config()
    params = special(config, **fields)
    prompts = ["abcabcabcabc", "abcab"]
    trace = traced(tiny(backend(name), params, config, **{"kv_memory": 1 << 18, **engine}), GREEDY, prompts=prompts)
    check_whole(trace)
    rounding = 0.04 if "kv_dtype" in engine else 1e-4
    choices = [choice for step in trace["steps"] for choice in step["choices"]]
    assert len(choices) == 20
    for choice in choices:
        tokens = trace["sequences"][choice["sequence"]]["tokens"][: choice["position"]]
        found = choice["attention"]
        assert found["layers"] == [0, 1]
        weights = np.frombuffer(b64decode(found["weights"]), np.uint8).reshape(2, found["heads"], found["context"])
        expected = np.stack(dense_weights(config, params, tokens))
        assert np.abs(weights / 255 - expected).max() <= 0.5 / 255 + rounding
        if "sinks" not in fields:
            assert np.allclose(expected.sum(-1), 1)


@pytest.mark.clause("TRACE-06")
@pytest.mark.parametrize("sinks", [None, normal(4)])
def test_weights_add_up_to_one(monkeypatch: pytest.MonkeyPatch, sinks: Any) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(np, "rint", lambda x: seen.append(x / 255) or np.round(x))
    config = tiny_config()
    params = special(config, sinks=sinks)
    trace = traced(tiny(backend("numpy"), params), GREEDY)
    assert trace["model"]["sinks"] == [sinks is not None] * 2
    sums = np.concatenate([weights.sum(-1) for weights in seen])
    assert len(seen) == 2 * 30
    assert np.allclose(sums, 1, atol=1e-5) if sinks is None else ((sums > 0) & (sums < 1)).all()


@pytest.mark.clause("TRACE-07")
def test_attention_ends_where_its_memory_does() -> None:
    room = 2 * 4 * (22 + 23 + 24)
    detail = Detail(attention_bytes=room)
    recording = Recording(llm := tiny(backend("numpy")), detail)
    with recording:
        llm.generate(PROMPTS[0], GREEDY)
    trace = recording.trace()
    choices = [choice for step in trace["steps"] for choice in step["choices"]]
    assert ["attention" in choice for choice in choices] == [True] * 3 + [False] * 7
    (told,) = trace["left_out"]
    assert told == f"the attention of the last 7 sampled tokens: attention takes at most {room} bytes"


@pytest.mark.clause("TRACE-07")
def test_attention_that_has_ended_does_not_come_back() -> None:
    trace = traced(tiny(backend("numpy")), GREEDY, Detail(attention_bytes=2 * 4 * 5), [PROMPTS[0], "No"])
    choices = [choice for step in trace["steps"] for choice in step["choices"]]
    assert [choice["position"] for choice in choices[:2]] == [22, 2], "the second would have room"
    assert not any("attention" in choice for choice in choices)


@pytest.mark.clause("TRACE-07")
def test_only_the_layers_that_are_asked_for_are_kept() -> None:
    llm = tiny(backend("numpy"))
    trace = traced(llm, GREEDY, Detail(attention_layers=[1]))
    check_whole(trace)
    both = traced(tiny(backend("numpy")), GREEDY)
    for one, two in zip(trace["steps"], both["steps"], strict=True):
        for choice, other in zip(one["choices"], two["choices"], strict=True):
            assert choice["attention"]["layers"] == [1]
            weights = b64decode(other["attention"]["weights"])
            assert b64decode(choice["attention"]["weights"]) == weights[len(weights) // 2 :]
    assert "attention" not in traced(tiny(backend("numpy")), GREEDY, Detail(attention=False))["steps"][0]["choices"][0]


@pytest.mark.clause("TRACE-08", "TRACE-09")
def test_stages_are_what_the_parameters_ask_for() -> None:
    trace = traced(tiny(backend("numba")), EVERYTHING)
    check_whole(trace)
    order = ["logits", "repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias", "min_tokens",
             "temperature", "top_k", "top_p", "min_p", "typical_p"]  # fmt: skip
    seen = set()
    for step in trace["steps"]:
        for choice in step["choices"]:
            names = [stage["name"] for stage in choice["stages"]]
            assert names == sorted(names, key=order.index)
            seen.update(names)
            left = {stage["name"]: stage["left"] for stage in choice["stages"]}
            assert left["logits"] == 257 and left["top_k"] == 60
            if "min_tokens" in left:
                assert left["min_tokens"] == 256
    assert {"logit_bias", "repetition_penalty", "temperature", "top_k", "top_p"} <= seen


@pytest.mark.clause("TRACE-09")
@given(
    seed=st.integers(0, 1 << 40),
    logits=st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=40),
    top_k=st.integers(0, 40),
    top_p=st.floats(0.05, 1),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
)
def test_the_draw_is_in_its_interval(
    seed: int, logits: list[float], top_k: int, top_p: float, temperature: float
) -> None:
    state = SamplingState(SamplingParams(top_k=top_k, top_p=top_p, temperature=temperature), seed, [1, 2])
    told = explain(np.array(logits, np.float32), state)
    first = told["stages"][0]
    weights = np.exp(np.array(logits, np.float64) - max(logits))
    order = sorted(range(len(logits)), key=lambda token: (-np.float32(logits[token]), token))[:12]
    assert [token for token, _, _ in first["top"]] == order
    for token, logit, share in first["top"]:
        assert logit == pytest.approx(logits[token], rel=1e-5, abs=1e-6)
        assert share == pytest.approx(weights[token] / weights.sum(), rel=1e-5)
    if temperature:
        low, high = told["interval"]
        assert low <= told["unit"] * (1 + 1e-5) and told["unit"] <= high * (1 + 1e-5)
        last = {token: share for token, _, share in told["stages"][-1]["top"]}
        if told["definition"] in last:
            assert high - low == pytest.approx(last[told["definition"]], abs=2e-5)
    else:
        assert told["definition"] == order[0] and told["unit"] is told["interval"] is None


@pytest.mark.clause("TRACE-08")
def test_rows_without_a_choice_have_none() -> None:
    state = SamplingState(SamplingParams(), 1, [1])
    assert explain(np.array([0.0, np.nan, 1.0]), state)["definition"] is None
    assert explain(np.array([0.0, np.inf, 1.0]), state)["definition"] is None

    class Closed:
        """A grammar that allows nothing."""

        is_complete = accepts = False

        def allowed(self) -> Any:
            return np.zeros(3, np.bool_)

        def accept(self, token: int) -> None:
            """Nothing is kept."""

    told = explain(np.array([0.0, 2.0, 1.0]), SamplingState(SamplingParams(), 1, [1], grammar=Closed()))
    assert told["definition"] is None
    assert [(stage["name"], stage["left"]) for stage in told["stages"]] == [("logits", 3), ("grammar", 0)]


@pytest.mark.clause("TRACE-08")
def test_a_grammar_is_a_stage() -> None:
    params = replace(SAMPLED, ignore_eos=False, structured_outputs=StructuredOutputs(regex="[ab]{3}"))
    trace = traced(tiny(backend("numpy")), params)
    check_whole(trace)
    first = trace["steps"][0]["choices"][0]["stages"]
    assert [(stage["name"], stage["left"]) for stage in first][:2] == [("logits", 257), ("grammar", 2)]
    assert trace["requests"][0]["params"]["structured_outputs"]["regex"] == "[ab]{3}"


@given(values=st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0]), min_size=1, max_size=30), data=st.data())
def test_the_most_likely_are_in_order(values: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(values)))
    expected = sorted(range(len(values)), key=lambda token: (-values[token], token))[:count]
    assert most_likely(np.array(values), count).tolist() == expected


@pytest.mark.clause("TRACE-10")
def test_a_failed_prompt_has_no_token_and_the_others_have_theirs() -> None:
    class Broken(NumpyOps):
        """The logits of the second prompt are NaN."""

        def logits(self, x: Any, head: Any) -> Any:
            found = super().logits(x, head)
            if len(found) > 1:
                found[1] = np.nan
            return found

    llm = tiny(Broken())
    recording = Recording(llm)
    with recording:
        first, second = llm.generate(["abc", "abd"], GREEDY)
    trace = json.loads(json.dumps(recording.trace(), allow_nan=False))
    check_whole(trace)
    assert [each["finish_reason"] for each in trace["sequences"]] == ["length", "error"]
    assert first.error is None and second.error is not None
    choices = trace["steps"][0]["choices"]
    assert [choice["token"] is None for choice in choices] == [False, True] and choices[1]["stages"] == []


@pytest.mark.clause("TRACE-13")
def test_encoders_and_unknown_layers_are_refused() -> None:
    llm = tiny(backend("numpy"))
    with pytest.raises(InvalidParameter, match="names layer 2; the model has layers 0 to 1"):
        Recording(llm, Detail(attention_layers=[0, 2]))
    llm._loaded = replace(llm._loaded, config=replace(llm.config, encoder=True))
    with pytest.raises(Unsupported, match="tiny is an encoder"):
        Recording(llm)


@pytest.mark.clause("TRACE-10")
def test_half_characters_are_shown_as_bytes() -> None:
    trace = traced(tiny(backend("numpy")), GREEDY, prompts="a🙂\n")
    assert [trace["texts"][str(token)] for token in b"a\xf0\x9f\x99\x82\n"] == [
        "a", "\\xf0", "\\x9f", "\\x99", "\\x82", "\n",
    ]  # fmt: skip
    assert trace["sequences"][0]["text"].startswith("a🙂\n")


@pytest.mark.clause("TRACE-12")
def test_only_rooms_outside_of_the_engine_import_the_recording() -> None:
    rooms = {module.room for module in modules() for _, name in imports(module) if room_of(name) == "trace"}
    assert rooms <= {"trace", "server", "cli"}
