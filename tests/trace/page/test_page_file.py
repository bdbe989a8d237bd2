"""The page as a file: its data are the trace, its policy is exact, its scripts are JavaScript. No browser is needed."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ferrum.trace.page import SCRIPTS, embedded, page
from tests.trace.page.figures import lengths_at, states_at

EXAMPLE = Path(__file__).parents[1] / "example.json"
ASSETS = Path(__file__).parents[3] / "ferrum" / "trace" / "assets"
HOSTILE = (
    "</script>",
    "<!--",
    "<script>",
    "]]>",
    "\u2028\u2029",
    "/*SCRIPT*/",
    "<!--POLICY-->",
    "\ud83d",
    "\u202e",
    "&lt;",
)

texts = st.text(st.characters(exclude_categories=[]), max_size=20) | st.sampled_from(HOSTILE)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


class Elements(HTMLParser):
    """The elements of a page by an independent reader: (name, attributes, text inside of scripts and styles)."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self.is_inside = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes), ""))
        self.is_inside = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self.is_inside = False

    def handle_data(self, text: str) -> None:
        if self.is_inside:
            tag, attributes, before = self.found[-1]
            self.found[-1] = (tag, attributes, before + text)

    def of(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, text) for name, attributes, text in self.found if name == tag]


EMPTY = [tag for tag, _, _ in Elements(page({})).found]


@pytest.mark.clause("GLASS-02")
@given(st.dictionaries(texts, values, max_size=5))
@example({text: text for text in HOSTILE})
@example({"long": "<" * 10_000})
def test_the_data_of_a_page_is_the_trace(trace: dict[str, Any]) -> None:
    elements = Elements(page(trace))
    ((attributes, data),) = [(found, text) for found, text in elements.of("script") if found]
    assert attributes == {"type": "application/json", "id": "trace"}
    assert json.loads(data) == trace
    assert data.isascii() and not set("<>&") & set(data)
    assert [tag for tag, _, _ in elements.found] == EMPTY


@pytest.mark.clause("GLASS-02")
def test_a_number_that_json_does_not_have_is_refused() -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            embedded([value])


@pytest.mark.clause("GLASS-01")
def test_the_policy_allows_the_one_style_and_the_one_script() -> None:
    elements = Elements(page(json.loads(EXAMPLE.read_text(encoding="utf-8"))))
    ((meta, _),) = [each for each in elements.of("meta") if "http-equiv" in each[0]]
    rules = dict(rule.split(" ", 1) for rule in str(meta["content"]).split("; "))
    (style,) = [text for _, text in elements.of("style")]
    (script,) = [text for attributes, text in elements.of("script") if not attributes]
    assert rules["script-src"] == f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    assert rules["style-src"] == f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'"
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert set(rules) == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}


@pytest.mark.clause("GLASS-01")
def test_nothing_is_loaded_and_nothing_stands_in_attributes() -> None:
    elements = Elements(page({}))
    addresses = [value for _, found, _ in elements.found for name, value in found.items() if name in ("src", "href")]
    assert addresses == ["data:,"]
    assert not [name for _, found, _ in elements.found for name in found if name == "style" or name.startswith("on")]


@pytest.mark.clause("GLASS-01")
def test_every_script_is_in_the_page_and_short_enough_to_read() -> None:
    assert sorted(SCRIPTS) == sorted(path.name for path in ASSETS.glob("*.js"))
    html = page({})
    for path in ASSETS.glob("*.*s"):
        source = path.read_text(encoding="utf-8")
        assert source in html and source.count("\n") <= 400
        assert max(len(line) for line in source.splitlines()) <= 120, path.name


NEEDS_NODE = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def run_by_node(script: str, folder: Path, *flags: str) -> str:
    """What a script prints."""
    file = folder / "script.js"
    file.write_text(script, encoding="utf-8")
    command = ["node", *flags, str(file)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.clause("GLASS-01")
@NEEDS_NODE
def test_the_script_is_javascript(tmp_path: Path) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", page({}), re.DOTALL)
    run_by_node(script, tmp_path, "--check")


@pytest.mark.clause("GLASS-06")
@NEEDS_NODE
def test_a_block_of_a_sequence_that_the_server_has_forgotten_is_drawn_without_texts(tmp_path: Path) -> None:
    trace = json.loads(EXAMPLE.read_text(encoding="utf-8")) | {"sequences": []}
    source = (ASSETS / "trace.js").read_text(encoding="utf-8")
    script = f"{source} console.log(JSON.stringify(new Trace({embedded(trace)}).textAt(0, 1)));"
    assert json.loads(run_by_node(script, tmp_path)) == ""


@pytest.mark.clause("GLASS-03")
@NEEDS_NODE
def test_the_states_of_tokens_without_a_browser(tmp_path: Path) -> None:
    """The part of the script that does not draw, on the example."""
    trace = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    sources = "".join((ASSETS / name).read_text(encoding="utf-8") for name in ("trace.js", "text_panel.js"))
    printed = run_by_node(
        f"""{sources}
        const trace = new Trace({embedded(trace)});
        const states = (sequence, index) => {{
            const row = Object.assign(Object.create(SequenceRow.prototype), {{ trace, sequence }});
            const stateOf = row.tokenStates(index);
            return Array.from({{ length: trace.progressOf(index, sequence.id).length }}, (_, at) => stateOf(at));
        }};
        const all = trace.steps.map((_, index) => trace.data.sequences.map((each) => states(each, index)));
        console.log(JSON.stringify(all));
        """,
        tmp_path,
    )
    for index, shown in enumerate(json.loads(printed)[:-1]):  # the last one is the end
        lengths = lengths_at(trace, index)
        assert shown == [states_at(trace, index, number, lengths[str(number)]) for number in range(len(shown))]
