"""TEXT-09 and TEXT-17 on a published model: SmolLM2's tokenizer and chat template, out of its GGUF."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.load.gguf import GGUFFile
from ferrum.text.chat import ChatTemplate
from ferrum.text.gguf_tokenizer import tokenizer_from_gguf
from ferrum.text.stream import IncrementalDetokenizer
from ferrum.text.tokenizer import Tokenizer

GOLDENS: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[1] / "goldens" / "smollm2_tokenizer.json").read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def metadata(smollm2_path: Path) -> dict[str, Any]:
    return GGUFFile(smollm2_path).metadata


@pytest.fixture(scope="module")
def tokenizer(metadata: dict[str, Any]) -> Tokenizer:
    return tokenizer_from_gguf(metadata)


@pytest.mark.clause("TEXT-09")
@pytest.mark.parametrize("case", GOLDENS["texts"], ids=range(len(GOLDENS["texts"])))
def test_encodes_and_decodes_as_published(tokenizer: Tokenizer, case: dict[str, Any]) -> None:
    assert tokenizer.encode(case["text"], add_special_tokens=True) == case["ids"]
    assert tokenizer.decode(case["ids"]) == case["decoded"]


@pytest.mark.clause("TEXT-09")
@pytest.mark.clause("TEXT-17")
@pytest.mark.parametrize("case", GOLDENS["chats"], ids=lambda case: case["messages"][-1]["content"][:20])
def test_a_chat_becomes_the_published_ids(metadata: dict[str, Any], tokenizer: Tokenizer, case: dict[str, Any]) -> None:
    source = metadata["tokenizer.chat_template"]
    template = ChatTemplate(source, bos_token=tokenizer.bos_token, eos_token=tokenizer.eos_token)
    prompt = template.render(case["messages"])
    assert prompt == case["prompt"]
    assert tokenizer.encode(prompt, add_special_tokens=False) == case["ids"]


@pytest.mark.clause("TEXT-12")
def test_special_tokens(tokenizer: Tokenizer) -> None:
    assert (tokenizer.vocab_size, tokenizer.special_ids) == (49152, frozenset(range(17)))
    assert (tokenizer.bos_token, tokenizer.bos_token_id) == ("<|im_start|>", 1)
    assert (tokenizer.eos_token, tokenizer.eos_token_ids) == ("<|im_end|>", (2, 0, 4))  # and by their texts


@pytest.mark.clause("TEXT-13")
@given(ids=st.lists(st.integers(0, 49151), max_size=20), skip=st.booleans())
def test_a_stream_of_real_tokens_adds_up(tokenizer: Tokenizer, ids: list[int], skip: bool) -> None:
    stream = IncrementalDetokenizer(tokenizer, skip)
    assert "".join([*map(stream.push, ids), stream.finish()]) == tokenizer.decode(ids, skip_special_tokens=skip)


@pytest.mark.clause("TEXT-09")
def test_building_is_quick(metadata: dict[str, Any]) -> None:
    # About 0.1 s on a quiet machine; the bound only catches work that grows with the square of the vocabulary.
    started = time.perf_counter()
    tokenizer_from_gguf(metadata)
    assert time.perf_counter() - started < 3
