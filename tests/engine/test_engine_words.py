"""End tokens and the first space of an answer, from the files of a model to the text that a caller gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ferrum import LLM, SamplingParams
from ferrum.sampling_params import StructuredOutputs
from ferrum.types import FinishReason
from tests.engine.talkers import talking_folder, talking_gguf
from tests.load.tokenizer_changes import added_token, folder, tokenizer_json
from tests.text.gguf_changes import CONTROL, NORMAL, gpt2, llama

GREEDY = SamplingParams(temperature=0, max_tokens=6)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>h{% endif %}"
)
VOCABULARY = tokenizer_json("bytes")["model"]["vocab"]
H, HELLO, END = VOCABULARY["h"], VOCABULARY["hello"], VOCABULARY["<|im_end|>"]
FOLLOWS = {H: HELLO, HELLO: END, END: H}
MESSAGES = [{"role": "user", "content": "l"}]


def answer(place: Path) -> tuple[str, str]:
    llm = LLM(place, backend="numpy")
    (completion,) = llm.chat(MESSAGES, GREEDY)
    streamed = "".join(chunk.text for chunk in llm.stream_chat(MESSAGES, GREEDY))
    assert streamed == completion.text
    return completion.text, str(completion.finish_reason)


@pytest.mark.clause("LOAD-26")
@pytest.mark.parametrize(
    ("settings", "others", "config"),
    [
        ({"eos_token": "<|im_end|>"}, {}, {"eos_token_id": 0}),
        ({"eos_token": {"content": "<|im_end|>"}}, {"generation_config": {"eos_token_id": 0}}, {"eos_token_id": None}),
        ({}, {"special_tokens_map": {"eos_token": "<|im_end|>"}}, {"eos_token_id": [0, 2]}),
        ({}, {"generation_config": {"eos_token_id": [0, END]}}, {"eos_token_id": 0}),
        ({"eos_token": "</s>"}, {}, {"eos_token_id": END}),
        ({"eos_token": None}, {}, {"eos_token_id": [END, 900]}),
    ],
)
def test_whatever_file_names_the_end_of_a_turn_it_ends_there(
    tmp_path: Path, settings: dict[str, Any], others: dict[str, Any], config: dict[str, Any]
) -> None:
    files = folder(
        "bytes", {"chat_template": CHATML, "tokenizer_class": "PreTrainedTokenizerFast", **settings}, **others
    )
    place = talking_folder(tmp_path / "model", files, FOLLOWS, len(VOCABULARY), **config)
    assert answer(place) == ("hello", str(FinishReason.STOP))


@pytest.mark.clause("LOAD-26")
def test_a_directory_ends_where_its_files_say_so_and_not_by_texts(tmp_path: Path) -> None:
    files = folder(
        "bytes", {"chat_template": CHATML, "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
    )
    place = talking_folder(tmp_path / "model", files, FOLLOWS, len(VOCABULARY), eos_token_id=0)
    assert answer(place)[1] == str(FinishReason.LENGTH)


@pytest.mark.clause("LOAD-26")
@pytest.mark.clause("TEXT-50")
def test_an_end_that_stands_outside_of_tokenizer_json_ends(tmp_path: Path) -> None:
    size = len(VOCABULARY)
    settings = {"added_tokens_decoder": {str(size): added_token("<|eot_id|>")}, "eos_token": "<|eot_id|>"}
    files = folder("bytes", {"chat_template": CHATML, "tokenizer_class": "PreTrainedTokenizerFast", **settings})
    place = talking_folder(tmp_path / "model", files, {H: HELLO, HELLO: size, size: H}, size + 1, eos_token_id=0)
    assert answer(place) == ("hello", str(FinishReason.STOP))


@pytest.mark.clause("TEXT-53")
@pytest.mark.parametrize("end", ["<|eot_id|>", "<|end|>", "<end_of_turn>", "<|eom_id|>", "<end_of_utterance>"])
@pytest.mark.parametrize("number", [CONTROL, NORMAL])
def test_a_gguf_model_ends_its_turn_whatever_end_the_metadata_names(tmp_path: Path, end: str, number: int) -> None:
    pairs = gpt2({end: number}, eos_token_id=0)
    tokens = dict(pairs)["tokenizer.ggml.tokens"]
    h, hello, last = tokens.index("h"), tokens.index("hello"), tokens.index(end)
    template = CHATML.replace("<|im_end|>", end)
    named = [*pairs, ("tokenizer.chat_template", template)]
    place = talking_gguf(tmp_path / "model.gguf", named, {h: hello, hello: last, last: h})
    assert answer(place) == ("hello", str(FinishReason.STOP))


@pytest.mark.clause("TEXT-52")
@pytest.mark.parametrize("kind", ["tokenizer.json", "gguf"])
@pytest.mark.parametrize(
    ("prompt", "skips", "shown"),
    [
        ("hello", True, " hello"),
        ("<s>hello", True, " hello"),
        ("<s>", True, "hello"),  # nothing that is shown stands before it
        ("<s>", False, " hello"),
        ([1], True, "hello"),
    ],
)
def test_the_first_word_of_a_continuation_keeps_its_space(
    tmp_path: Path, kind: str, prompt: str | list[int], skips: bool, shown: str
) -> None:
    if kind == "gguf":
        pairs = llama(add_bos_token=False)
        tokens = dict(pairs)["tokenizer.ggml.tokens"]
        word = tokens.index("▁hello")
        follows = {word: word, 1: word, tokens.index("o"): word}
        place = talking_gguf(tmp_path / "model.gguf", pairs, follows)
    else:
        vocabulary = tokenizer_json("pieces")["model"]["vocab"]
        word = vocabulary["▁hello"]
        place = talking_folder(tmp_path / "model", folder("pieces", {}), {word: word, 1: word}, len(vocabulary))
    llm = LLM(place, backend="numpy")
    params = SamplingParams(temperature=0, max_tokens=2, skip_special_tokens=skips)
    (completion,) = llm.generate(prompt, params)
    assert completion.text == shown + " hello"
    assert "".join(chunk.text for chunk in llm.stream(prompt, params)) == completion.text
    ids = [*completion.prompt_token_ids, *completion.token_ids]
    together, before = (
        llm.tokenizer.decode(part, skip_special_tokens=skips) for part in (ids, completion.prompt_token_ids)
    )
    assert together == before + completion.text


@pytest.mark.clause("TEXT-51")
def test_a_structure_ends_with_an_end_that_has_no_text(tmp_path: Path) -> None:
    """The end token may be a row of the model's head for which the tokenizer has no token."""
    pytest.importorskip("llguidance")
    size = len(VOCABULARY)
    files = folder("bytes", {"tokenizer_class": "PreTrainedTokenizerFast"})
    follows = {H: HELLO, HELLO: size + 3}
    place = talking_folder(tmp_path / "model", files, follows, size + 8, eos_token_id=size + 3)
    params = SamplingParams(temperature=0, max_tokens=6, structured_outputs=StructuredOutputs(regex="(hello)+"))
    (completion,) = LLM(place, backend="numpy").generate("h", params)
    assert (completion.text, completion.token_ids) == ("hello", (HELLO, size + 3))


@pytest.mark.clause("LOAD-26")
def test_the_tokenizers_own_end_does_not_come_before_min_tokens(tmp_path: Path) -> None:
    files = folder("bytes", {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"})
    place = talking_folder(tmp_path / "model", files, FOLLOWS, len(VOCABULARY), eos_token_id=0)
    params = SamplingParams(temperature=0, max_tokens=6, min_tokens=4)
    (completion,) = LLM(place, backend="numpy").generate("h", params)
    assert END not in completion.token_ids[:4] and 0 not in completion.token_ids[:4]
