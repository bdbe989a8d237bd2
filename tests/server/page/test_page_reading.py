"""What the page reads: streams, Markdown, metrics. Its functions run in the browser, on what Hypothesis thinks of."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from tests.browser import Browser
from tests.house.source import ROOT

HTML = (ROOT / "ferrum" / "server" / "page.html").read_text(encoding="utf-8")
ELEMENTS = {"p", "strong", "em", "code", "pre", "div", "button", "ul", "ol", "li", "blockquote", "h3", "h4", "h5"}
MARKS = ["**", "*", "`", "```", "```py\n", "~~~\n", "- ", "  - ", "1. ", "> ", "# ", "\n", "\n\n", "    ", "\\"]
TAGS = ["<b>", "</p>", "&lt;", "<script>", '"']
MARKDOWN = st.lists(st.sampled_from(MARKS + TAGS) | st.from_regex(r"[a-z]{1,6}", fullmatch=True), max_size=40)
DRAW = """
    const view = new TurnView({ question: '', answer: newAnswer() });
    let text = '';
    for (const piece of arguments[0]) { text += piece; view.updateText(text, false); }
    return [view.text.innerHTML, view.text.textContent, [...view.text.querySelectorAll('*')].map((e) => e.localName)]"""
READ = """
    const [pieces] = arguments;
    const body = new ReadableStream({ start(stream) {
        pieces.forEach((piece) => stream.enqueue(new Uint8Array(piece)));
        stream.close();
    } });
    const read = async () => {
        const all = [];
        for await (const event of events(new Response(body))) all.push(event);
        return all;
    };
    return read()"""


@pytest.mark.clause("PAGE-01")
def test_the_page_is_one_file() -> None:
    assert len(re.findall(r"<script\b", HTML)) == len(re.findall(r"<style\b", HTML)) == 1
    markup = re.sub(r"<(script|style)>.*?</\1>", "", HTML, flags=re.DOTALL)
    assert re.findall(r"\s(?:style|on\w+)=", markup) == []
    assert re.findall(r"(?:src|href|action)=\"(?!data:,\")[^\"]*\"|url\(|@import|https?://", HTML) == []


@pytest.mark.clause("PAGE-02")
def test_the_script_reads_no_html() -> None:
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "eval(", "Function("):
        assert way not in HTML


def lost(words: list[str], text: str) -> list[str]:
    """Words that do not stand in the text in their order."""
    at, missing = 0, []
    for word in words:
        found = text.find(word, at)
        if found < 0:
            missing.append(word)
        else:
            at = found + len(word)
    return missing


@pytest.mark.browser
@pytest.mark.clause("PAGE-02", "PAGE-03")
def test_an_answer_looks_the_same_however_it_was_cut_and_no_word_is_lost(page: Browser) -> None:
    @settings(deadline=None)
    @given(MARKDOWN)
    @example(["a", "\n", "*", "*b**"])  # the beginning of a list turns out to be none
    def check(pieces: list[str]) -> None:
        html, text, tags = page.run(DRAW, pieces)
        assert html == page.run(DRAW, ["".join(pieces)])[0]
        assert lost(re.findall(r"[a-z]+", "".join(pieces)), text) == []
        assert set(tags) <= ELEMENTS

    check()


@pytest.mark.browser
@pytest.mark.clause("PAGE-02")
@pytest.mark.parametrize("mark", ["> ", "- ", "1. ", "**", "`", "*", "``` "])
def test_no_answer_nests_too_deep(page: Browser, mark: str) -> None:
    _, text, _ = page.run(DRAW, [mark * 5000 + "end"])
    assert "end" in text


@pytest.mark.browser
@pytest.mark.clause("PAGE-03")
def test_markdown(page: Browser) -> None:
    shown = {
        "# A *b*": "<h3>A <em>b</em></h3>",
        "1. a\n   - b\n   - c\n2. d": "<ol><li>a<ul><li>b</li><li>c</li></ul></li><li>d</li></ol>",
        "3) a\n\n4) b": '<ol start="3"><li>a</li><li>b</li></ol>',
        "> a\n> b": "<blockquote><p>a\nb</p></blockquote>",
        "`` a`b `` and \\*c\\*": "<p><code> a`b </code> and *c*</p>",
        "**a *b* c** 2 * 3 * 4": "<p><strong>a <em>b</em> c</strong> 2 * 3 * 4</p>",
        "a\n- b": "<p>a</p><ul><li>b</li></ul>",
    }
    assert {text: page.run(DRAW, [text])[0].replace(' start="1"', "") for text in shown} == shown


@pytest.mark.browser
@pytest.mark.clause("PAGE-03")
def test_a_stream_is_read_however_it_was_cut(page: Browser) -> None:
    objects = st.dictionaries(st.text(max_size=4), st.text(max_size=8) | st.integers(0, 9), max_size=3)

    @settings(deadline=None)
    @given(
        st.lists(objects, max_size=5),
        st.sampled_from(["\n", "\r\n"]),
        st.lists(st.integers(1, 9), min_size=1),
        st.booleans(),
    )
    def check(told: list[Any], end: str, sizes: list[int], pauses: bool) -> None:
        comment = f": keep-alive{end}{end}" if pauses else ""
        lines = [f"data: {json.dumps(each, ensure_ascii=False)}{end}{end}{comment}" for each in told]
        data = "".join([*lines, f"data: [DONE]{end}{end}data: {{}}{end}{end}"]).encode()
        pieces: list[list[int]] = []
        while data:
            size = sizes[len(pieces) % len(sizes)]
            pieces.append(list(data[:size]))
            data = data[size:]
        assert page.run(READ, pieces) == told

    check()


@pytest.mark.browser
@pytest.mark.clause("PAGE-08")
def test_metrics_are_read_as_their_library_writes_them(page: Browser) -> None:
    values = st.floats(0, 1e15) | st.integers(0, 10**9)

    @settings(deadline=None)
    @given(values, st.dictionaries(st.text("abc_-.é ", min_size=1), values, max_size=4))
    def check(plain: float, labelled: dict[str, float]) -> None:
        registry = CollectorRegistry()
        Gauge("plain", 'A gauge with "{words}" in its help.', registry=registry).set(plain)
        counter = Counter("some", "A counter.", ("place", "state"), registry=registry)
        for place, value in labelled.items():
            counter.labels(place, "held").inc(value)
        read = page.run("return samples(arguments[0])", generate_latest(registry).decode())
        assert [each["value"] for each in read if each["name"] == "plain"] == [plain]
        some = [each for each in read if each["name"] == "some_total"]
        assert {each["labels"]["place"]: each["value"] for each in some} == labelled
        assert all(each["labels"]["state"] == "held" for each in some)

    check()
