"""SAMPLE-28 to SAMPLE-30 and ENGINE-45: answers inside a grammar."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferrum import LLM, SamplingParams
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.engine.setup import build_grammars
from ferrum.errors import InvalidParameter, ModelError, Unsupported
from ferrum.sample.grammars import grammar
from ferrum.sampling_params import StructuredOutputs
from ferrum.text.byte_tokenizer import EOS, ByteTokenizer
from ferrum.types import FinishReason
from tests.tiny import TinyModel, tiny_config, tiny_params

BACKENDS = ("numpy", "numba")


@cache
def tiny_llm() -> LLM:
    """A random model of bytes, whose answers do not match a grammar by chance."""
    config = tiny_config()
    return LLM.from_loaded(TinyModel(config, tiny_params(config), ByteTokenizer()), NumpyOps())


words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=5)
REGEXES = ["[ab]{1,5}", "(yes|no)( (yes|no)){0,3}", "-?[0-9]{1,3}([.][0-9]{1,2})?", "x?", "[a-zé]{2,4}"]


@pytest.mark.clause("SAMPLE-28")
@given(pattern=st.sampled_from(REGEXES), seed=st.integers(0, 10**6), temperature=st.sampled_from([0.0, 1.0, 5.0]))
def test_a_regular_expression_is_matched(pattern: str, seed: int, temperature: float) -> None:
    params = SamplingParams(
        temperature=temperature, seed=seed, max_tokens=40, structured_outputs=StructuredOutputs(regex=pattern)
    )
    (answer,) = tiny_llm().generate([[65, 66]], params)
    assert answer.finish_reason is FinishReason.STOP
    assert re.fullmatch(pattern, answer.text)


@pytest.mark.clause("SAMPLE-28")
@given(
    choices=st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=5), min_size=1, max_size=4
    ),
    seed=st.integers(0, 10**6),
)
def test_one_of_the_choices_is_said(choices: list[str], seed: int) -> None:
    structure = StructuredOutputs(choice=tuple(choices))
    (answer,) = tiny_llm().generate([[65]], SamplingParams(seed=seed, max_tokens=40, structured_outputs=structure))
    assert answer.text in choices and answer.finish_reason is FinishReason.STOP


@pytest.mark.clause("SAMPLE-28")
@pytest.mark.parametrize(
    "text",
    [
        'start: "(" start ")" | "x"',
        'root ::= "(" root ")" | "x"',
    ],
    ids=["lark", "gbnf"],
)
def test_a_grammar_is_followed(text: str) -> None:
    structure = StructuredOutputs(grammar=text)
    answers = tiny_llm().generate([[65]] * 20, [
        SamplingParams(seed=seed, max_tokens=50, structured_outputs=structure) for seed in range(20)
    ])  # fmt: skip
    for answer in answers:
        depth = answer.text.count("(")
        if answer.finish_reason is FinishReason.STOP:
            assert answer.text == "(" * depth + "x" + ")" * depth
    assert sum(answer.finish_reason is FinishReason.STOP for answer in answers) > 10


@pytest.mark.clause("SAMPLE-28")
def test_what_ends_a_text_is_possible_only_where_it_is_complete() -> None:
    """The most likely token of the model is always EOS, and min_tokens forbids it: both do not break the grammar."""
    structure = StructuredOutputs(regex="a{3}b?")
    eager = SamplingParams(temperature=0, logit_bias={EOS: 100.0}, max_tokens=20, structured_outputs=structure)
    (answer,) = tiny_llm().generate([[65]], eager)
    assert answer.text == "aaa" and answer.token_ids == (97, 97, 97, EOS)
    late = SamplingParams(temperature=0, min_tokens=9, max_tokens=20, structured_outputs=structure)
    (answer,) = tiny_llm().generate([[65]], late)
    assert answer.text == "aaab" and answer.finish_reason is FinishReason.STOP


@pytest.mark.clause("SAMPLE-28", "SAMPLE-10")
def test_each_of_a_batch_has_its_own() -> None:
    patterns = [None, "a+b", "[0-9]{4}", None]
    params = [
        SamplingParams(
            seed=1,
            max_tokens=12,
            ignore_eos=pattern is None,
            structured_outputs=None if pattern is None else StructuredOutputs(regex=pattern),
        )
        for pattern in patterns
    ]
    together = tiny_llm().generate([[65], [66], [67], [68]], params)
    alone = [tiny_llm().generate([[65 + i]], own)[0] for i, own in enumerate(params)]
    assert [answer.text for answer in together] == [answer.text for answer in alone]


@pytest.mark.clause("SAMPLE-29")
@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"regex": "("}, "regex: .*unclosed"),
        ({"json": {"type": "nonsense"}}, "json: .*nonsense"),
        ({"grammar": "start: missing"}, "grammar: .*missing"),
        ({"grammar": "root ::= ("}, "grammar: "),
    ],
)
def test_a_structure_without_sense_is_refused_before_anything_is_said(fields: dict, complaint: str) -> None:  # type: ignore[type-arg]
    llm = tiny_llm()
    params = SamplingParams(structured_outputs=StructuredOutputs(**fields))
    with pytest.raises(InvalidParameter, match=complaint) as refusal:
        llm.generate([[65], [66]], [SamplingParams(), params])
    assert "\n" not in str(refusal.value)
    assert not llm.engine.has_work


@pytest.mark.clause("SAMPLE-30")
def test_the_library_is_loaded_when_it_is_needed() -> None:
    program = "import sys, ferrum.engine.llm; print('llguidance' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


@pytest.mark.clause("SAMPLE-30")
def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    maker = grammar.GrammarMaker(grammar.Vocabulary(lambda: [b"a"], (), (0,), lambda text: []), 1)
    with pytest.raises(Unsupported, match=r"ferrum-ref\[structured\]"):
        maker(StructuredOutputs(regex="a"))


@pytest.mark.clause("SAMPLE-30")
def test_a_model_that_cannot_end_has_no_structured_outputs() -> None:
    maker = grammar.GrammarMaker(grammar.Vocabulary(lambda: [b"a"], (), (), lambda text: []), 1)
    with pytest.raises(Unsupported, match="ends a text"):
        maker(StructuredOutputs(regex="a"))


@pytest.mark.clause("ENGINE-45")
def test_a_grammar_that_fails_ends_its_own_request_only(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = tiny_llm()
    params = SamplingParams(max_tokens=8, seed=1, ignore_eos=True)
    sound = llm.engine.submit([65], params)
    broken = llm.engine.submit([66], SamplingParams(structured_outputs=StructuredOutputs(regex="a{8}")))
    own = broken.generations[0].state.grammar
    assert isinstance(own, grammar.MatcherGrammar)
    llm.engine.step()
    own.accept(97)
    with pytest.raises(ModelError, match=r"^the grammar cannot go on: [^<\n]*$"):
        own.accept(98)  # behind the engine's back: from now on this grammar is broken
    while llm.engine.has_work:
        llm.engine.step()
    assert isinstance(broken.error, ModelError)
    assert broken.completion().finish_reason is FinishReason.ERROR
    assert sound.completion().token_ids == llm.generate([[65]], params)[0].token_ids


@pytest.mark.clause("ENGINE-45")
def test_a_text_that_is_complete_ends_at_once() -> None:
    structure = StructuredOutputs(regex="ab")
    (answer,) = tiny_llm().generate([[65]], SamplingParams(max_tokens=9, ignore_eos=True, structured_outputs=structure))
    assert (answer.text, answer.token_ids, answer.finish_reason) == ("ab", (97, 98), FinishReason.STOP)


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "kind": {"enum": ["cat", "dog", None]},
        "scores": {"type": "array", "items": {"type": "integer", "minimum": -1, "maximum": 9}, "maxItems": 2},
    },
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
}


@pytest.mark.clause("SAMPLE-28")
def test_white_space_between_the_parts_of_json_ends() -> None:
    """The most likely token of the model is always a space: the answer must still end."""
    spaces = SamplingParams(temperature=0, logit_bias={32: 100.0}, max_tokens=200,
                            structured_outputs=StructuredOutputs(json={"enum": [[1]]}))  # fmt: skip
    (answer,) = tiny_llm().generate([[65]], spaces)
    assert json.loads(answer.text) == [1] and answer.text.count(" ") > 16


@pytest.mark.clause("SAMPLE-28")
def test_json_of_the_real_model_always_validates(smollm2_path: Path) -> None:
    """The number of answers, at temperature 1, is that of the examples of a property, a hundred at most."""
    count = min(settings.default.max_examples, 100)
    llm = LLM(smollm2_path, threads=2)
    structure = StructuredOutputs(json=SCHEMA)
    messages = [{"role": "user", "content": "Tell me about a pet, as JSON."}]
    params = [SamplingParams(seed=seed, max_tokens=400, structured_outputs=structure) for seed in range(count)]
    answers = llm.chat([messages] * count, params)
    assert len({answer.text for answer in answers}) > 0.9 * count
    for answer in answers:
        assert answer.finish_reason is FinishReason.STOP
        jsonschema.validate(json.loads(answer.text), SCHEMA)


@pytest.mark.clause("SAMPLE-28")
@pytest.mark.parametrize(
    "stops", [{"stop_token_ids": [ord(char)]} for char in '\n "amn}'] + [{"stop_token_ids": range(256)}]
)
@pytest.mark.parametrize("seed", range(3))
def test_a_stop_token_never_ends_a_text_in_its_middle(stops: dict[str, Any], seed: int) -> None:
    """If the grammar allows only a stop token to continue, the request ends with an error. It does not end with an
    incomplete text and finish reason "stop"."""
    structure = StructuredOutputs(
        json={
            "type": "object",
            "properties": {"name": {"enum": ["a\nb", "man", "x"]}},
            "required": ["name"],
            "additionalProperties": False,
        }
    )
    llm = tiny_llm()
    request = llm.engine.submit([65], SamplingParams(seed=seed, max_tokens=200, structured_outputs=structure, **stops))
    other = llm.engine.submit([66], SamplingParams(seed=seed, max_tokens=30, ignore_eos=True))
    while llm.engine.has_work:
        llm.engine.step()
    answer = request.completion()
    if answer.finish_reason is FinishReason.STOP:
        json.loads(answer.text)
    else:
        assert answer.finish_reason is FinishReason.ERROR
        assert isinstance(request.error, ModelError) and "no token is left" in str(request.error)
    assert len(other.completion().token_ids) == 30


@pytest.mark.clause("SAMPLE-28")
def test_a_stop_token_may_end_a_text_that_is_whole() -> None:
    """The grammar could continue with the stop token, and the text is complete without it."""
    params = SamplingParams(
        temperature=0, logit_bias={97: 100.0}, max_tokens=9, stop_token_ids=[97],
        structured_outputs=StructuredOutputs(regex="[ab]b?a*"),
    )  # fmt: skip
    (answer,) = tiny_llm().generate([[65]], params)
    assert answer.token_ids[0] == 98 and answer.finish_reason is FinishReason.STOP
    assert answer.token_ids[-1] == 97 and "a" not in answer.text


@pytest.mark.clause("SAMPLE-29")
@pytest.mark.parametrize("schema", [True, "true", {}, "{}"])
def test_the_schema_that_allows_everything(schema: Any) -> None:
    structure = StructuredOutputs(json=schema)
    (answer,) = tiny_llm().generate([[65]], SamplingParams(seed=4, max_tokens=400, structured_outputs=structure))
    assert answer.finish_reason is FinishReason.LENGTH or json.loads(answer.text) != ()


@pytest.mark.clause("SAMPLE-28")
def test_a_vocabulary_is_read_once_when_the_first_grammar_is_made() -> None:
    read: list[ByteTokenizer] = []

    def read_tokenizer() -> ByteTokenizer:
        read.append(ByteTokenizer())
        return read[-1]

    build = build_grammars(read_tokenizer, 257)
    assert not read
    for regex in ("a", "b"):
        assert build(StructuredOutputs(regex=regex)).allowed()[ord(regex)]
    assert len(read) == 1


@pytest.mark.clause("SAMPLE-28")
def test_an_end_may_lie_behind_the_tokens_that_have_text() -> None:
    tokenizer = ByteTokenizer()
    tokenizer.eos_token_ids = (EOS, 300)
    own = build_grammars(lambda: tokenizer, 310)(StructuredOutputs(regex="a*"))
    assert np.flatnonzero(own.allowed()).tolist() == [ord("a"), EOS, 300]
