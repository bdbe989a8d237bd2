"""SAMPLE-31 to SAMPLE-33: parameters that do not fit a model are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.errors import InvalidParameter
from ferrum.sample.limits import MOST_LOGPROBS, check_against_model
from ferrum.sampling_params import SamplingParams

VOCABULARY, CONTEXT, PROMPT = 1000, 8192, 100


def check(prompt_tokens: int = PROMPT, **fields: Any) -> None:
    check_against_model(
        SamplingParams(**fields), vocab_size=VOCABULARY, most_tokens=CONTEXT, prompt_tokens=prompt_tokens
    )


@pytest.mark.clause("SAMPLE-31")
@pytest.mark.parametrize("name", ["logit_bias", "stop_token_ids"])
@pytest.mark.parametrize("token", [VOCABULARY, VOCABULARY + 1, 49152, 2**31, 2**62])
def test_a_token_beyond_the_vocabulary_is_refused(name: str, token: int) -> None:
    def named(*tokens: int) -> Any:
        return dict.fromkeys(tokens, 1.0) if name == "logit_bias" else tokens

    check(**{name: named(0, VOCABULARY - 1)})
    with pytest.raises(InvalidParameter, match=f"^{name} names token {token}, but .* from 0 to 999$"):
        check(**{name: named(3, token, 4)})


@pytest.mark.clause("SAMPLE-33")
@pytest.mark.parametrize(
    ("fields", "blamed"),
    [
        ({"logprobs": -1, "max_tokens": None}, "logprobs"),
        ({"logprobs": 10**9, "max_tokens": 10**9}, "logprobs"),
        ({"logprobs": 999, "max_tokens": 2000}, "logprobs"),
        ({"logprobs": 9, "max_tokens": 1000, "n": 106}, "logprobs"),
        ({"logprobs": 0, "max_tokens": None, "n": 130}, "logprobs"),
        ({"prompt_logprobs": -1, "prompt_tokens": 1049}, "prompt_logprobs"),
        ({"prompt_logprobs": 2**40, "prompt_tokens": 8000}, "prompt_logprobs"),
        ({"prompt_logprobs": -1, "logprobs": 699, "max_tokens": 1000, "prompt_tokens": 701}, "prompt_logprobs"),
    ],
)
def test_more_log_probabilities_than_memory_is_meant_for(fields: dict[str, Any], blamed: str) -> None:
    with pytest.raises(InvalidParameter, match=rf"^{blamed} asks for .* at most 1048576 are told") as refusal:
        check(**fields)
    assert refusal.value.field == blamed


@pytest.mark.clause("SAMPLE-33")
@given(
    logprobs=st.none() | st.integers(-1, 2000),
    prompt_logprobs=st.none() | st.integers(-1, 2000),
    max_tokens=st.integers(1, 9000),
    n=st.integers(1, 20),
    prompt_tokens=st.integers(1, CONTEXT - 1),
)
def test_what_an_answer_can_hold_decides(
    logprobs: int | None, prompt_logprobs: int | None, max_tokens: int, n: int, prompt_tokens: int
) -> None:
    def told(count: int | None) -> int:
        return 0 if count is None else len({*range(VOCABULARY if count == -1 else min(count, VOCABULARY)), 999})

    most = n * min(max_tokens, CONTEXT - prompt_tokens) * told(logprobs) + prompt_tokens * told(prompt_logprobs)
    fields: dict[str, Any] = {"logprobs": logprobs, "prompt_logprobs": prompt_logprobs}
    try:
        check(prompt_tokens, max_tokens=max_tokens, n=n, **fields)
    except InvalidParameter:
        assert most > MOST_LOGPROBS
    else:
        assert most <= MOST_LOGPROBS
