"""What the page sends, the key it asks for, and the file it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from ferrum.cli.conversation import load
from ferrum.sampling_params import SamplingParams
from tests.browser import Browser
from tests.server.page.steps import BOX, CAPITAL, DEFAULT, IDLE, TURNS, ask, begin, scripted, sent, set_to, visit

pytestmark = pytest.mark.browser

NUMBERS = {
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.05,
    "max_tokens": 8,
    "seed": 7,
    "repetition_penalty": 1.1,
}
KEY_IS_ASKED = "return document.querySelector('#key-dialog[open]') && document.getElementById('key').value === ''"


@pytest.mark.clause("PAGE-11")
def test_a_request_holds_the_settings_that_were_made(page: Browser) -> None:
    plain = sent(page, lambda: ask(page, "capital"))
    assert set(plain) == {"model", "messages", "stream", "stream_options", "logprobs", "top_logprobs"}
    assert plain["messages"] == [{"role": "user", "content": "capital"}] and plain["top_logprobs"] == 5
    for name, value in NUMBERS.items():
        set_to(page, name, str(value))
    set_to(page, "system", "Be brief.")
    set_to(page, "schema", '{"type": "object"}')
    page.click("#open-settings")
    page.click("[name=probabilities]")
    page.press("Escape")
    body = sent(page, lambda: ask(page, "and now"))
    assert {name: body[name] for name in NUMBERS} == NUMBERS
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert "logprobs" not in body


@pytest.mark.clause("PAGE-11")
@pytest.mark.parametrize(
    ("name", "value"), [("temperature", "-1"), ("top_p", "2"), ("schema", "{"), ("tools", "{}"), ("seed", "1.5")]
)
def test_a_wrong_setting_is_told_before_anything_is_sent(page: Browser, name: str, value: str) -> None:
    set_to(page, name, value)
    begin(page, "hello")
    assert page.run("return document.querySelector('dialog[open] :invalid:not(form)').name") == name
    assert page.run(TURNS) == [] and page.run(BOX) == "hello"


@pytest.mark.clause("PAGE-12")
def test_a_key_is_asked_for_and_kept_for_the_tab(window: Browser, tmp_path: Path) -> None:
    with scripted(tmp_path, "--api-key", "secret-1") as server:
        visit(window, server.url)
        window.type("#key", "wrong")
        window.press("Enter")
        window.until(KEY_IS_ASKED)
        window.press("Escape")
        window.until("return !document.querySelector('dialog[open]')")
        begin(window, "What is the capital?")
        window.until(KEY_IS_ASKED)
        window.type("#key", "secret-1")
        window.press("Enter")
        window.until(IDLE)
        assert window.run(TURNS) == [["What is the capital?", CAPITAL, "stop"]]
        window.reload()
        window.until("return document.getElementById('model').options.length > 0")
        window.until("return !document.getElementById('engine').hidden")
        assert "secret-1" not in window.run("return JSON.stringify(localStorage)")


@pytest.mark.clause("PAGE-13")
def test_the_command_line_goes_on_with_an_export(page: Browser, tmp_path: Path) -> None:
    ask(page, "What is the capital?")
    ask(page, "Tell me é\U0001f600")
    set_to(page, "system", "Be brief.")
    set_to(page, "temperature", "0.5")
    page.run("URL.createObjectURL = (blob) => { blob.text().then((text) => { window.exported = text; }); return '#'; }")
    page.click("#export")
    file = tmp_path / "conversation.json"
    file.write_text(page.until("return window.exported"), encoding="utf-8")
    read = load(file, SamplingParams())
    assert read.system == "Be brief." and read.params.temperature == 0.5
    said = [(turn.question, turn.answer) for turn in read.turns]
    assert said == [("What is the capital?", CAPITAL), ("Tell me é\U0001f600", DEFAULT)]
