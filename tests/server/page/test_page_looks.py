"""Hands and eyes: the page by keyboard alone, on a phone, dark and light; and its pictures for the documentation.

FERRUM_PICTURES=FOLDER has the pictures made, with the real model.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.browser import Browser
from tests.server.page.steps import BOX, DESK, IDLE, PHONE, TURNS, ask, set_to, visit
from tests.server.suites.serving import served

pytestmark = pytest.mark.browser

FOCUS = """
    const e = document.activeElement, style = getComputedStyle(e);
    const name = e === document.body ? '' : e.id || e.className || e.textContent;
    return [name, style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0]"""
NAMELESS = """
    const named = (e) => e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.[0]?.textContent.trim();
    const controls = [...document.querySelectorAll('button, input, select, textarea')];
    return controls.filter((e) => !named(e) && !e.closest('#notice')).map((e) => e.outerHTML)"""
FAINT = """
    const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    const rgba = (colour) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const luminance = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
    const behind = (e) => {
        const colour = rgba(getComputedStyle(e).backgroundColor);
        return colour[3] > 250 ? colour : behind(e.parentElement);
    };
    const contrast = (e) => {
        const both = [rgba(getComputedStyle(e).color), behind(e)].map(luminance);
        return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
    };
    const hasText = (e) => [...e.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    const seen = [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() && hasText(e));
    return [seen.length, seen.filter((e) => contrast(e) < 4.5).map((e) => [e.outerHTML.slice(0, 80), contrast(e)])]"""
WIDE = """
    const wide = [...document.querySelectorAll('body, header, main, dialog[open]')];
    return wide.filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.localName)"""
PAPER = "return getComputedStyle(document.body).backgroundColor"


@pytest.mark.clause("PAGE-09")
def test_keys_are_enough(page: Browser) -> None:
    assert page.run("return document.activeElement.id") == "box"
    page.press(*"capital", "Shift+Enter", *"two")
    assert page.run(BOX) == "capital\ntwo"
    page.press("Enter")
    page.until(IDLE)
    assert page.run(TURNS)[0][0] == "capital\ntwo"
    assert page.run("return document.activeElement.id") == "box"
    stops = []
    for _ in range(30):
        page.press("Tab")
        name, is_visible = page.run(FOCUS)
        if name:  # else it is the page itself, where Tab begins anew
            stops.append(name)
            assert is_visible, name
        if name == "box":
            break
    for wanted in ("model", "new", "export", "open-settings", "theme", "quiet", "send", "box"):
        assert wanted in stops
    assert len([name for name in stops if "chip" in name]) == 1, "tokens are one stop"


@pytest.mark.clause("PAGE-09")
def test_controls_have_names_and_answers_are_read_out(page: Browser) -> None:
    ask(page, "What is the capital?")
    assert page.run(NAMELESS) == []
    spoken = page.run("return [...document.querySelectorAll('[aria-live=polite] p')].map((p) => p.textContent)")
    assert len(spoken) == 3 and spoken[0] == "The capital is Paris."


@pytest.mark.clause("PAGE-10")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_all_of_it_can_be_read(page: Browser, size: tuple[int, int], scheme: str) -> None:
    page.screen(*size, scheme)
    page.reload()
    ask(page, "What is the capital? " + "x" * 100)
    ask(page, "Say something hostile.")
    page.run("for (const e of document.querySelectorAll('details')) e.open = true")
    page.run("const chip = document.querySelector('.chip'); chip.focus(); chip.style.setProperty('--p', 0)")
    assert page.run("return matchMedia('(prefers-color-scheme: dark)').matches") == (scheme == "dark")
    for _ in range(2):
        count, faint = page.run(FAINT)
        assert count > 20 and faint == []
        assert page.run(WIDE) == []
        assert page.run("return document.documentElement.scrollWidth") <= size[0]
        page.run("document.getElementById('settings').showModal()")


@pytest.mark.clause("PAGE-10")
def test_the_theme_is_the_systems_until_it_is_chosen(page: Browser) -> None:
    light = page.run(PAPER)
    page.screen(*DESK, "dark")
    dark = page.run(PAPER)
    assert dark != light
    page.click("#theme")
    assert page.run(PAPER) == light
    page.reload()
    assert page.run(PAPER) == light, "the choice is kept"
    page.click("#theme")
    page.screen(*DESK, "light")
    assert page.run(PAPER) == dark


@pytest.mark.clause("PAGE-07")
@pytest.mark.skipif("FERRUM_PICTURES" not in os.environ, reason="FERRUM_PICTURES=FOLDER has the pictures made")
def test_pictures(window: Browser) -> None:
    folder = Path(os.environ["FERRUM_PICTURES"])
    with served() as server:
        visit(window, server.url)
        set_to(window, "temperature", "0")
        set_to(window, "max_tokens", "120")
        ask(window, "What is the capital of France?")
        set_to(window, "temperature", "0.7")
        set_to(window, "seed", "1")
        ask(window, "Why should I go there? Give me three reasons, as a list.")
        window.until("return Number(document.getElementById('speed').textContent) > 0")
        window.run("document.querySelectorAll('.turn:last-child .chip.unlikely')[0].focus()")
        for name, size, scheme in [("light", DESK, "light"), ("dark", DESK, "dark"), ("phone", PHONE, "light")]:
            window.screen(*size, scheme, 1.5)
            if size == PHONE:
                window.reload()
                window.until("return document.querySelector('#device .counts')")
                window.click(".turn:last-child .tokens summary")
                window.click(".turn:last-child .chip.unlikely")
                window.run("document.querySelector('.turn:last-child .detail').scrollIntoView(false)")
            window.picture(folder / f"page-{name}.png")
