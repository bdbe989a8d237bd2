"""BENCH-01 to BENCH-06: the requests of a load test, and their times."""

from __future__ import annotations

import json
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.errors import InvalidFormat, NotFound
from ferrum.load_test.arrivals import poisson
from ferrum.load_test.question import Question
from ferrum.load_test.workload import RandomWords, read_prompts

SEED = st.integers(0, 2**32)


@pytest.mark.clause("BENCH-01")
@given(seed=SEED, number=st.integers(-5, 1000), shared=st.integers(0, 30), own=st.integers(0, 30))
def test_random_prompts_have_their_length_and_can_be_repeated(seed: int, number: int, shared: int, own: int) -> None:
    prompt = RandomWords(shared + own, shared, seed).prompt(number)
    assert len(prompt.split()) == shared + own
    assert prompt == RandomWords(shared + own, shared, seed).prompt(number)


@pytest.mark.clause("BENCH-02")
@given(seed=SEED, shared=st.integers(0, 20))
def test_prompts_share_what_was_asked_for_and_no_more(seed: int, shared: int) -> None:
    words = RandomWords(shared + 16, shared, seed)
    prompts = [words.prompt(number).split() for number in (-1, *range(20))]
    assert len({" ".join(prompt[:shared]) for prompt in prompts}) == 1
    assert len({" ".join(prompt[shared:]) for prompt in prompts}) == len(prompts)
    assert words.prompt(0) != RandomWords(shared + 16, shared, seed + 1).prompt(0)


@pytest.mark.clause("BENCH-03")
def test_a_file_gives_its_lines_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("one\r\n\n{two}\n  \n", "utf-8")
    workload = read_prompts(path, messages=False)
    assert [workload.prompt(number) for number in range(4)] == ["one", "{two}", "one", "{two}"]


@pytest.mark.clause("BENCH-03")
def test_a_jsonl_file_gives_messages_and_prompts(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    messages = [{"role": "user", "content": "Hi\u2028"}]
    lines = [json.dumps({"messages": messages}, ensure_ascii=False), '{"prompt": "Hello"}']
    path.write_text("\n".join(lines), "utf-8")
    workload = read_prompts(path, messages=True)
    assert [workload.prompt(0), workload.prompt(1)] == [messages, "Hello"]


@pytest.mark.clause("BENCH-04")
@pytest.mark.parametrize("line", ["{", "[1]", "{}", '{"messages": []}', '{"messages": ["Hi"]}', '{"prompt": 1}'])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(f'{{"prompt": "fine"}}\n\n{line}\n', "utf-8")
    with pytest.raises(InvalidFormat, match="line 3"):
        read_prompts(path, messages=True)


@pytest.mark.clause("BENCH-04")
def test_messages_for_an_endpoint_of_texts_and_files_without_prompts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "Hi"}]}', "utf-8")
    with pytest.raises(InvalidFormat, match=r"line 1.*chat"):
        read_prompts(path, messages=False)
    path.write_text("\n")
    with pytest.raises(InvalidFormat, match="no prompts"):
        read_prompts(path, messages=True)
    with pytest.raises(NotFound):
        read_prompts(tmp_path / "none", messages=True)


@pytest.mark.clause("BENCH-05")
@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ({"usage": False}, {}),
        ({}, {"stream_options": {"include_usage": True}}),
        ({"usage": False, "temperature": 0.0, "ignore_eos": True}, {"temperature": 0.0, "ignore_eos": True}),
    ],
)
def test_only_what_was_asked_for_is_sent(fields: dict[str, Any], more: dict[str, Any]) -> None:
    messages = [{"role": "system", "content": "x"}]
    usual = {"model": "m", "max_tokens": 3, "stream": True, **more}
    chat, texts = (Question(endpoint, "m", 3, **fields) for endpoint in ("chat", "completions"))
    assert chat.body("Hi") == {**usual, "messages": [{"role": "user", "content": "Hi"}]}
    assert chat.body(messages) == {**usual, "messages": messages}
    assert texts.body("Hi") == {**usual, "prompt": "Hi"}
    assert (chat.path, texts.path) == ("/chat/completions", "/completions")


@pytest.mark.clause("BENCH-06")
@pytest.mark.parametrize("rate", [0.25, 40.0])
def test_arrivals_are_a_poisson_process(rate: float) -> None:
    times = list(islice(poisson(rate, seed=5), 4000))
    gaps = np.array([times[0], *(later - earlier for earlier, later in pairwise(times))])
    expected = 1 - np.exp(-rate * np.sort(gaps))
    distance = np.abs(expected - (np.arange(4000) + 0.5) / 4000).max() + 0.5 / 4000
    assert distance < 1.63 / np.sqrt(4000)  # Kolmogorov and Smirnov, at one in a hundred
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.05  # independent of one another
    assert times == list(islice(poisson(rate, seed=5), 4000)) != list(islice(poisson(rate, seed=6), 4000))
