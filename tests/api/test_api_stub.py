"""API-60 to API-62: a model that follows a script."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.api.service import Service
from ferrum.api.stub import read_script, stub
from ferrum.errors import FerrumError, InvalidParameter, NotFound
from tests.api.asking import asked, chat, whole

SCRIPT = {
    "answers": [{"when": "weather", "say": "Sunny."}, {"when": r"^\W*<\|tool\|>", "say": "Thanks."}],
    "default": "Hm?",
}


@pytest.mark.clause("API-60")
@given(seed=st.integers(0, 99), n=st.integers(1, 4), temperature=st.sampled_from([0.0, 1.0, 2.0]))
def test_it_says_what_the_script_has_for_the_last_message(seed: int, n: int, temperature: float) -> None:
    def say(*messages: tuple[str, str]) -> set[str]:
        body = {"messages": [{"role": role, "content": text} for role, text in messages]}
        body |= {"seed": seed, "n": n, "temperature": temperature}
        answer = asked(lambda service: whole(service, "chat", body), lambda: Service(stub(read_script(SCRIPT))))
        return {choice["message"]["content"] for choice in answer["choices"]}

    assert say(("user", "The weather?")) == {"Sunny."}
    assert say(("user", "The weather?"), ("assistant", "Sunny."), ("user", "And?")) == {"Hm?"}
    assert say(("user", "The weather?"), ("assistant", "Wait."), ("tool", "21 degrees")) == {"Thanks."}


@pytest.mark.clause("API-60")
def test_its_answer_goes_on_where_its_end_is_ignored() -> None:
    answer = asked(lambda service: whole(service, "chat", chat("Hm.", ignore_eos=True, max_tokens=8)))
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"].startswith("Hm.")


@pytest.mark.clause("API-61")
def test_a_grammar_is_stronger_and_the_text_ends_soon() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "array"}}, "required": ["a", "b"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = asked(lambda service: whole(service, "chat", chat("Never mind.", response_format=form, max_tokens=100)))
    assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.clause("API-62")
@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"answers": [{"when": "("}]}', '{"answers": [{"say": "x"}]}', '{"anwsers": []}', '{"answers": 3}'],
)
def test_a_script_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "script.json"
    file.write_text(text)
    with pytest.raises(InvalidParameter, match="script"):
        read_script(file)
    with pytest.raises(NotFound):
        read_script(tmp_path / "nothing")
    with pytest.raises(FerrumError):
        read_script(tmp_path)
