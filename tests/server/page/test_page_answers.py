"""Questions and answers on the page: asked, streamed, stopped, reloaded, failed, asked again."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from tests.browser import Browser
from tests.server.page.steps import (
    BEGUN,
    BOX,
    CAPITAL,
    DEFAULT,
    HOSTILE,
    IDLE,
    LAST_ANSWER,
    LAST_QUESTION,
    READY,
    RETRY,
    STORY,
    TURNS,
    ask,
    begin,
    rests,
    running,
    scripted,
    sent,
    set_to,
    visit,
)
from tests.server.suites.serving import Server

pytestmark = pytest.mark.browser

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


@pytest.mark.clause("PAGE-01", "PAGE-03")
def test_a_question_is_answered_under_a_policy_that_lets_nothing_else_run(page: Browser, server: Server) -> None:
    ask(page, "What is the capital?")
    assert page.run(TURNS) == [["What is the capital?", CAPITAL, "stop"]]
    assert page.text(".text pre") == "if a < b:\n    print(1)"
    assert [page.count(f".text {tag}") for tag in ("strong", "ul", "li", "pre")] == [1, 1, 2, 1]
    assert page.complaints() == []
    with urllib.request.urlopen(f"{server.url}/") as answer:
        rules = answer.headers["content-security-policy"]
    assert "default-src 'none'" in rules and "unsafe" not in rules
    page.run("document.body.append(make('script', { textContent: 'window.ran = true' }))")
    assert page.run("return window.ran") is None and page.complaints() != []


@pytest.mark.clause("PAGE-02")
def test_a_hostile_answer_is_text(page: Browser) -> None:
    ask(page, "Say something hostile.")
    assert page.text(".answer .text") == HOSTILE.replace("**", "")
    assert page.count(".text :not(p, strong)") == 0
    assert page.run("return document.title") == "ferrum"


@pytest.mark.clause("PAGE-04")
@pytest.mark.parametrize("way", ["Escape", "Stop"])
def test_an_answer_is_stopped_and_the_server_computes_no_more_of_it(page: Browser, server: Server, way: str) -> None:
    begin(page, "Tell a story.")
    page.until(BEGUN)
    assert running(server) == 1
    if way == "Stop":
        page.click("#send")
    else:
        page.press(way)
    page.until(IDLE)
    _, text, finish = page.run(TURNS)[0]
    assert STORY.startswith(text) and len(text) < len(STORY) and finish == "stopped"
    assert "Stopped." in page.text(".note")
    assert rests(server)
    ask(page, "What is the capital?")  # and the next one is answered
    assert page.run(TURNS)[1][1] == CAPITAL


@pytest.mark.clause("PAGE-05")
def test_a_reload_keeps_all_and_half_an_answer_too(page: Browser, server: Server) -> None:
    ask(page, "What is the capital?")
    tokens = page.count(".chip")
    set_to(page, "system", "Be brief.")
    set_to(page, "temperature", "0.5")
    begin(page, "Tell a story.")
    page.until(BEGUN)
    page.type("#box", "What I was about to say")
    page.reload()
    page.until(READY)
    first, second = page.run(TURNS)
    assert first == ["What is the capital?", CAPITAL, "stop"]
    assert second[0] == "Tell a story." and len(second[1]) > 50 and STORY.startswith(second[1])
    assert second[2] == "interrupted" and "interrupted" in page.text(f"{LAST_ANSWER} .note")
    assert page.count(".turn:first-child .chip") == tokens > 0
    assert page.run(BOX) == "What I was about to say"
    assert page.text("#in-use") == "system message · temperature 0.5"
    assert rests(server), "no request waits for the rest"


@pytest.mark.clause("PAGE-05")
def test_an_answer_is_kept_while_it_is_written(page: Browser) -> None:
    kept = "return JSON.parse(localStorage.getItem('ferrum.turns'))?.[0].answer.text.length"
    begin(page, "Tell a story.")
    page.until(f"{kept} > 50")
    put_away = "localStorage.clear(); dispatchEvent(new Event('pagehide'));"
    assert page.run(put_away + kept) > 50
    page.press("Escape")
    page.until(IDLE)
    page.run("turns[0].answer.finish = null; save()")  # as a browser leaves it that is killed
    page.reload()
    assert page.run(TURNS)[0][2] == "interrupted"


@pytest.mark.clause("PAGE-05")
def test_where_there_is_little_room_the_words_are_kept(page: Browser) -> None:
    page.run("""
        const store = Storage.prototype.setItem;
        Storage.prototype.setItem = function (key, value) {
            if (value.length > 2000) throw new DOMException('', 'QuotaExceededError');
            store.call(this, key, value);
        };""")
    ask(page, "What is the capital?")
    assert page.count(".chip") > 0 and page.count("#notice:not([hidden])") == 0
    page.reload()
    assert page.run(TURNS) == [["What is the capital?", CAPITAL, "stop"]] and page.count(".chip") == 0


@pytest.mark.clause("PAGE-05")
def test_a_conversation_goes_on_in_another_tab(page: Browser) -> None:
    ask(page, "What is the capital?")
    page.run("""
        const turn = { question: 'From elsewhere', answer: { ...newAnswer(), text: 'Yes.', finish: 'stop' } };
        localStorage.setItem('ferrum.turns', JSON.stringify([...turns, turn]));
        dispatchEvent(new StorageEvent('storage', { key: 'ferrum.turns' }));""")
    assert [question for question, _, _ in page.run(TURNS)] == ["What is the capital?", "From elsewhere"]
    assert page.count(".turn") == 2 and page.text(f"{LAST_ANSWER} .text") == "Yes."


@pytest.mark.clause("PAGE-06")
def test_a_stream_without_an_end_is_an_answer_that_was_interrupted(page: Browser) -> None:
    page.run("""
        const chunk = { choices: [{ index: 0, delta: { content: 'Half an' }, finish_reason: null }] };
        window.fetch = async () => new Response(`data: ${JSON.stringify(chunk)}\n\n`);""")
    ask(page, "Hello.")
    assert page.run(TURNS) == [["Hello.", "Half an", "interrupted"]]
    assert "connection" in page.text(".note")


@pytest.mark.clause("PAGE-06")
def test_a_question_that_fails_goes_back_to_the_box(page: Browser) -> None:
    ask(page, "What is the capital?")
    set_to(page, "schema", '{"type": "nothing that is"}')
    ask(page, "And a failure?")
    assert page.run(BOX) == "And a failure?"
    assert "nothing that is" in page.text("#notice.error span")
    page.click(RETRY)
    page.until(IDLE)
    assert "nothing that is" in page.text("#notice.error span")
    assert page.run(TURNS) == [["What is the capital?", CAPITAL, "stop"]], "the answer that there was stays"
    assert page.text(".answer .text").startswith("The capital is Paris.")


@pytest.mark.clause("PAGE-06")
def test_a_server_that_is_gone_loses_nothing(window: Browser, tmp_path: Path) -> None:
    with scripted(tmp_path) as server:
        visit(window, server.url)
        begin(window, "Tell a story.")
        window.until(BEGUN)
        server.process.kill()
        server.process.wait()
        window.until(IDLE)
    assert window.run(TURNS)[0][2] == "interrupted" and "connection" in window.text(".note")
    ask(window, "Is anybody there?")
    assert window.run(BOX) == "Is anybody there?" and "cannot be reached" in window.text("#notice span")
    window.until("return document.getElementById('health').textContent === 'not reachable'")


@pytest.mark.clause("PAGE-14")
def test_retry_edit_and_new(page: Browser) -> None:
    ask(page, "Hello.")
    ask(page, "What is the capital?")
    retried = sent(page, lambda: page.click(RETRY))
    assert [each["content"] for each in retried["messages"]] == ["Hello.", DEFAULT, "What is the capital?"]
    page.until(IDLE)
    page.type("#box", "a draft")
    page.click(f"{LAST_QUESTION} button")
    assert page.run(BOX) == "What is the capital?"
    page.press("Escape")
    assert page.run(BOX) == "a draft" and len(page.run(TURNS)) == 2
    page.click(f"{LAST_QUESTION} button")
    page.press("End", *" city", "Enter")
    page.until(IDLE)
    questions = ["Hello.", "What is the capital? city"]
    assert [question for question, _, _ in page.run(TURNS)] == questions
    assert page.run(BOX) == "a draft"
    page.click("#new")
    assert page.run(TURNS) == [] and page.count(".turn") == 0
    page.click("#notice button")
    assert [question for question, _, _ in page.run(TURNS)] == questions and page.count(".turn") == 2


@pytest.mark.clause("PAGE-15")
def test_reasoning_is_folded_and_calls_are_shown(page: Browser) -> None:
    ask(page, "Please reason.")
    assert page.run("return document.querySelector('.reasoning').open") is False
    assert page.run("return document.querySelector('.reasoning p').textContent").strip() == "Let me see."
    assert page.text(".answer .text") == "It is so."
    set_to(page, "tools", json.dumps([TOOL]))
    ask(page, "How is the weather?")
    assert page.text(".call div") == "calls weather"
    assert json.loads(page.text(".call pre")) == {"city": "Paris"}
