"""Tokens beside their answers, and the engine's gauges."""

from __future__ import annotations

import re

import pytest

from tests.browser import Browser
from tests.server.page.steps import CAPITAL, NOTHING_RUNS, ask, begin

pytestmark = pytest.mark.browser

FOCUSED = "return document.activeElement.dataset.at"
MADE = """
    const others = [['b', Math.log(0.5), null], ['a', Math.log(0.25), null], ['c', -9999, null]];
    const tokens = [['a', Math.log(0.25), null, others], [' \\n', 0, null, []], ['\\ufffd', -1, [226, 130], []]];
    const panel = new TokenPanel(tokens);
    document.body.append(panel.element);
    panel.update();
    const chips = [...panel.chips.querySelectorAll('.chip')];
    panel.show(chips[0]);
    const row = (li) => [li.className, ...[...li.children].map((e) => e.textContent)];
    const told = [...panel.detail.querySelectorAll('li')].map(row);
    const colours = chips.map((chip) => getComputedStyle(chip).backgroundColor);
    panel.element.remove();
    return [chips.map((chip) => [chip.textContent, chip.className]), told, new Set(colours).size]"""


def left_edge(page: Browser, selector: str) -> float:
    return float(page.run("return document.querySelector(arguments[0]).getBoundingClientRect().x", selector))


@pytest.mark.clause("PAGE-07")
def test_tokens_stand_beside_their_answer(page: Browser) -> None:
    ask(page, "What is the capital?")
    tokens = page.run("return turns[0].answer.tokens")
    assert "".join(text for text, *_ in tokens).startswith(CAPITAL)
    assert page.count(".chip") == len(tokens)
    assert left_edge(page, ".tokens") > left_edge(page, ".answer")
    page.hover('.chip[data-at="3"]')  # the space in "The capital"
    assert page.text(".detail li.chosen span") == "·"
    assert len(tokens[3][3]) == 5 and page.count(".detail li:not(.rest)") == 5
    page.run("document.querySelector('.chip').focus()")
    page.press("Right", "Right", "Left")
    assert page.run(FOCUSED) == "1" and page.text(".detail li.chosen span") == "h"
    page.press("End")
    assert page.run(FOCUSED) == str(len(tokens) - 1)
    page.click('.chip[data-at="0"]')
    assert page.text(".detail li.chosen span") == "T"


@pytest.mark.clause("PAGE-07")
def test_the_numbers_and_colours_of_tokens(page: Browser) -> None:
    chips, told, colours = page.run(MADE)
    assert chips == [["a", "chip unlikely shown"], ["·↵", "chip"], ["e2 82", "chip"]]
    assert told == [
        ["", "b", "50.0%"],
        ["chosen", "a", "25.0%"],
        ["", "c", "<0.01%"],
        ["rest", "everything else", "25.0%"],
    ]
    assert colours == 3


@pytest.mark.clause("PAGE-08")
def test_gauges_move(page: Browser) -> None:
    page.until(NOTHING_RUNS)
    assert re.fullmatch(r"0 held · [\d,]+ cached · [\d,]+ free", page.text("#device .counts"))
    begin(page, "Tell a story.")
    page.until("return document.getElementById('running').textContent === '1'")
    page.until("return Number(document.getElementById('speed').textContent) > 0")
    page.until("return !document.querySelector('#device .counts').textContent.startsWith('0 held')")
    page.press("Escape")
    page.until(NOTHING_RUNS)


@pytest.mark.clause("PAGE-08")
def test_gauges_come_back_after_a_server_that_went_away_in_the_middle(page: Browser) -> None:
    page.run("""
        const old = window.fetch;
        window.broken = true;
        window.fetch = async (path, options) => {
            const response = await old(path, options);
            if (path === '/metrics' && window.broken) response.text = () => Promise.reject(new TypeError('gone'));
            return response;
        };""")
    page.until("return document.getElementById('engine').hidden")
    page.run("window.broken = false")
    page.until("return !document.getElementById('engine').hidden")
