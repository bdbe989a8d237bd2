"""The page of a real generation in a real browser: played to its end, every figure is the engine's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferrum import LLM, SamplingParams
from ferrum.trace.page import page
from tests.browser import Browser, chromium
from tests.cli.conftest import write_model
from tests.trace.page.figures import SHOWN, counts_of_tier, lengths_at, shown_of_tier, states_at, weights_of
from tests.trace.page.test_page_file import EXAMPLE, HOSTILE

pytestmark = pytest.mark.browser

PROMPTS = ("The sea is wide and blue tonight.", "The sea is wide and blue at dawn.", "A hill")
FLAGS = (
    "--raw", "--backend", "numpy", "-n", "12", "--seed", "3", "--temperature", "0.9", "--top-k", "20", "--top-p", "0.9",
    "--block-size", "4", "--kv-memory", "14KiB", "--host-kv-memory", "8KiB", "--max-num-batched-tokens", "24",
)  # fmt: skip
"""Memory for fewer blocks than the three need at once, so that one of them has to wait."""
SPECULATION = (
    "--speculate", "ngram:3", "--choices", "2", "--temperature", "0.3", "--top-k", "0", "--top-p", "1", "--seed", "1",
    "-n", "40", "--kv-memory", "30KiB",
)  # fmt: skip
AT = "return document.getElementById('step').dataset.step"
NUMBER = "return Number(document.getElementById('slider').value)"


def traced(model: Path, *flags: str, prompts: Sequence[str] = PROMPTS) -> str:
    command = [sys.executable, "-m", "ferrum", "trace", *prompts, "-m", str(model), *FLAGS, *flags]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), template=None)


@pytest.fixture(scope="module")
def file(model: Path) -> Path:
    """The page of one run."""
    path = model / "trace.html"
    traced(model, "-o", str(path))
    return path


@pytest.fixture(scope="module")
def trace(model: Path) -> dict[str, Any]:
    """The trace of another run of the same."""
    return dict(json.loads(traced(model, "--json")))


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def player(window: Browser, file: Path) -> Browser:
    """The page at its first step."""
    return opened(window, file)


def opened(window: Browser, file: Path) -> Browser:
    window.screen(1400, 1000)
    window.open(file.as_uri())
    window.until("return window.view !== undefined")
    return window


def recorded(file: Path) -> dict[str, Any]:
    """The trace inside of a page."""
    found = re.search(r'<script type="application/json" id="trace">(.*?)</script>', file.read_text(), re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


@pytest.mark.clause("GLASS-03", "GLASS-04")
def test_played_to_the_end_it_shows_every_step_and_the_tokens_of_the_engine(
    player: Browser, trace: dict[str, Any], model: Path
) -> None:
    player.run("""
        window.seen = [];
        const step = document.getElementById('step');
        new MutationObserver(() => window.seen.push(step.dataset.step)).observe(step, { attributes: true });
        document.getElementById('speed').value = '20';""")
    player.click("#play")
    player.until("return document.getElementById('play').textContent === 'Pause'")
    player.until(f"{AT} === 'end' && document.getElementById('play').textContent === 'Play'")
    assert player.run("return seen") == [*(str(step["step"]) for step in trace["steps"][1:]), "end"]
    params = [SamplingParams(**request["params"]) for request in trace["requests"]]
    answers = LLM(str(model), backend="numpy").generate(list(PROMPTS), params)
    shown = player.run(SHOWN)["sequences"]
    for number, answer in enumerate(answers):
        assert [token for token, _ in shown[str(number)]] == [*answer.prompt_token_ids, *answer.token_ids]
    assert player.complaints() == []


@pytest.mark.clause("GLASS-03", "GLASS-04")
def test_every_figure_of_every_step_is_that_of_another_run(player: Browser, trace: dict[str, Any], file: Path) -> None:
    kinds = {event["kind"] for step in trace["steps"] for event in step["events"]}
    assert {"preempted", "admitted", "finished"} <= kinds, "the example shows too little"
    check_every_step(player, trace, recorded(file))


@pytest.mark.clause("GLASS-03")
def test_drafts_and_several_answers_to_a_prompt_are_shown(window: Browser, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "trace.html"
    traced(model, *SPECULATION, "-o", str(file), prompts=("abcabcabcabc", "xyxyxyxyxy"))
    trace = recorded(file)
    drafts = sum(len(chunk["drafts"]) for step in trace["steps"] for chunk in step["chunks"])
    assert drafts > 0 and rejections(trace) > 0, "the example shows too little"
    sources = [event.get("source") for step in trace["steps"] for event in step["events"]]
    assert "sibling" in sources, "the example shows too little"
    check_every_step(opened(window, file), trace, trace)


def rejections(trace: Mapping[str, Any]) -> int:
    """Drafts that did not come: a chunk with all of its drafts accepted draws one token more than it has drafts."""
    pairs = [
        (len(chunk["drafts"]), sum(choice["sequence"] == chunk["sequence"] for choice in step["choices"]))
        for step in trace["steps"]
        for chunk in step["chunks"]
    ]
    return sum(drafts - (drawn - 1) for drafts, drawn in pairs if drafts and drawn)


def check_every_step(player: Browser, trace: Mapping[str, Any], timed: Mapping[str, Any]) -> None:
    """Goes from step to step. Times are those of the run that the page is of."""
    player.press("Home")
    for index, step in enumerate(trace["steps"]):
        shown = player.run(SHOWN)
        assert shown["step"] == str(step["step"])
        check_memory(shown, step, trace["memory"])
        check_tokens(shown, trace, index)
        check_choice(shown, player, step)
        times = [microseconds for _, _, microseconds, _ in timed["steps"][index]["launches"]]
        assert float(shown["launches"][0]) == pytest.approx(sum(times))
        assert sorted(shown["events"]) == sorted(e["kind"] for e in step["events"] if e["kind"] != "sampled")
        player.press("Right")
    assert player.run(AT) == "end"
    check_memory(player.run(SHOWN), {**trace["end"], "chunks": []}, trace["memory"])


def check_memory(shown: Mapping[str, Any], step: Mapping[str, Any], memory: Mapping[str, Any]) -> None:
    for tier in ("device", "host"):
        assert shown[tier] == shown_of_tier(step[tier], memory[f"{tier}_blocks"])
    assert shown["counts"] == [counts_of_tier(step[tier], memory[f"{tier}_blocks"]) for tier in ("device", "host")]
    slots = [slot for chunk in step["chunks"] for slot in chunk["slots"]]
    assert sorted(shown["written"]) == sorted({slot // memory["block_size"] for slot in slots})
    tables = [["device", *each] for each in step["tables"].items()] + [
        ["host", *each] for each in step["host_tables"].items()
    ]
    assert shown["tables"] == [[tier, sequence, ",".join(map(str, blocks))] for tier, sequence, blocks in tables]
    queues = dict(shown["queues"])
    assert queues == {name: ",".join(map(str, step[name])) for name in ("running", "waiting")}


def check_tokens(shown: Mapping[str, Any], trace: Mapping[str, Any], index: int) -> None:
    """Which tokens there are, and what the step makes of each."""
    lengths, step = lengths_at(trace, index), trace["steps"][index]
    assert {sequence: len(chips) for sequence, chips in shown["sequences"].items() if chips} == lengths
    for sequence in trace["sequences"]:
        number = sequence["id"]
        chips = shown["sequences"][str(number)]
        assert [token for token, _ in chips] == sequence["tokens"][: len(chips)]
        assert [state for _, state in chips] == states_at(trace, index, number, len(chips))
        drafts = sum(len(chunk["drafts"]) for chunk in step["chunks"] if chunk["sequence"] == number)
        drawn = sum(choice["sequence"] == number for choice in step["choices"])
        assert shown["rejected"].get(str(number), 0) == max(0, drafts - max(0, drawn - 1))


def check_choice(shown: Mapping[str, Any], player: Browser, step: Mapping[str, Any]) -> None:
    """What is shown of the token of the selected sequence."""
    selected = player.run("return view.sequence")
    choices = [each for each in step["choices"] if each["sequence"] == selected]
    if not choices:
        assert shown["stages"] == [] and shown["weights"] == []
        return
    choice = choices[0]
    assert shown["choice"] == [str(choice["position"]), str(choice["token"])]
    assert shown["stages"] == [[stage["name"], str(stage["left"])] for stage in choice["stages"]]
    if choice["greedy"]:
        assert shown["draw"] == [None, None, None]
    else:
        assert [float(each) for each in shown["draw"]] == [choice["unit"], *choice["interval"]]
    assert np.allclose(shown["weights"], weights_of(choice, 0, 0)) and sum(shown["weights"]) == pytest.approx(
        1, abs=0.1
    )


@pytest.mark.clause("GLASS-03")
def test_any_head_can_be_chosen(player: Browser, trace: dict[str, Any]) -> None:
    choice = trace["steps"][1]["choices"][0]
    player.press("Right")
    player.run("view.set({ sequence: arguments[0] })", choice["sequence"])
    for layer in range(trace["model"]["layers"]):
        for head in range(trace["model"]["heads"]):
            player.click(f".map i:nth-child({layer * trace['model']['heads'] + head + 1})")
            assert player.run("return ['layer', 'head'].map((id) => document.getElementById(id).value)") == [
                str(layer),
                str(head),
            ]
            assert np.allclose(player.run(SHOWN)["weights"], weights_of(choice, layer, head))


@pytest.mark.clause("GLASS-03")
def test_a_token_that_is_chosen_shows_its_block_and_slot(player: Browser, trace: dict[str, Any]) -> None:
    size = trace["memory"]["block_size"]
    index, number, table, entry = next(
        (index, sequence, table, entry)
        for index, step in enumerate(trace["steps"])
        for sequence, table in step["tables"].items()
        for entry, block in enumerate(table[:-1])
        if block != entry
    )
    player.run("view.set({ step: arguments[0] })", index)
    for position in (0, size - 1, entry * size, entry * size + 1):
        player.click(f"[data-sequence='{number}'] .chip[data-position='{position}']")
        block = table[position // size]
        place = player.run("return { ...document.getElementById('place').dataset }")
        assert place == {"block": str(block), "slot": str(block * size + position % size)}
        assert player.run("return document.querySelector('.block.selected').dataset.block") == str(block)


@pytest.mark.clause("GLASS-04")
def test_keys_buttons_and_the_slider_reach_any_step(player: Browser, trace: dict[str, Any]) -> None:
    last = len(trace["steps"])
    for key, wanted in (("End", last), ("Right", last), ("Left", last - 1), ("Home", 0), ("Left", 0), ("Right", 1)):
        player.press(key)
        assert player.run(NUMBER) == wanted, key
    for button, wanted in (("#last", last), ("#back", last - 1), ("#forward", last), ("#first", 0)):
        player.click(button)
        assert player.run(NUMBER) == wanted, button
    player.run("const s = document.getElementById('slider'); s.value = 3; s.dispatchEvent(new Event('input'))")
    assert player.run(AT) == str(trace["steps"][3]["step"])
    player.run("document.activeElement.blur()")
    player.press(" ")
    assert player.text("#play") == "Pause"
    player.press(" ", ".", ",", ",", "Escape")
    assert player.text("#play") == "Play" and player.run("return view.chosen") is None


@pytest.mark.clause("GLASS-01", "GLASS-02")
def test_hostile_texts_are_texts(window: Browser, tmp_path: Path) -> None:
    trace = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    evil = "<img src=x onerror=\"document.title='evil'\"></script><script>document.title='evil'</script>"
    texts = [evil, *HOSTILE, "x" * 10_000, "\u202eשלום", "\ud83d", "\udc00", "\0\x1b[31m"]
    assert len(texts) >= len(trace["texts"])
    trace["texts"] = dict(zip(trace["texts"], texts, strict=False))
    trace["model"]["name"] = trace["left_out"] = [evil]
    file = tmp_path / "hostile.html"
    file.write_text(page(trace), encoding="utf-8")
    opened(window, file).press("Right")
    assert window.run("return document.title") == "ferrum: glass box"
    shown = window.run("return [...document.querySelectorAll('.tokens .chip')].map((chip) => chip.textContent)")
    tokens = [token for sequence in trace["sequences"] for token in sequence["tokens"]]
    for chip, token in zip(shown, tokens, strict=True):
        assert chip.removesuffix("…")[:20] == trace["texts"][str(token)][:20].replace(" ", "·")
    assert window.count("img") == 0 and window.count("script") == 2
    assert window.complaints() == []


@pytest.mark.clause("GLASS-01")
def test_nothing_else_can_run_or_be_loaded(player: Browser) -> None:
    assert player.run("return performance.getEntriesByType('resource').map((each) => each.name)") == []
    player.run("document.body.append(make('script', { textContent: 'window.ran = true' }))")
    player.run("document.body.append(make('img', { src: 'https://example.org/x.png' }))")
    player.until("return performance.now() > 0")
    assert player.run("return window.ran") is None
    assert all("Content Security Policy" in each for each in player.complaints())


@pytest.mark.clause("GLASS-05")
@pytest.mark.parametrize("width", [320, 380, 600, 1000])
def test_the_page_fits_the_window(player: Browser, width: int) -> None:
    player.screen(width, 800)
    assert player.run("return document.documentElement.scrollWidth") <= width


@pytest.mark.clause("GLASS-05")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_controls_have_names_and_text_can_be_read(player: Browser, scheme: str) -> None:
    player.screen(1000, 900, scheme)
    named = """
        const isNamed = (each) => each.labels?.length || each.ariaLabel || each.textContent.trim();
        const controls = [...document.querySelectorAll('button, select, input')];
        return controls.filter((each) => !isNamed(each)).map((each) => each.outerHTML);"""
    assert player.run(named) == []
    assert player.run("return document.documentElement.scrollWidth <= innerWidth")
    for name in ("ink", "muted", "rust", *(f"s{number}" for number in range(8))):
        assert contrast(player, name) >= 4.5, name


def contrast(page: Browser, name: str) -> float:
    """The ratio of WCAG 2.2 between a colour of the page, by its variable or the class of a sequence, and panels."""
    channels = page.run(
        """
        const sequence = /^s\\d$/.test(arguments[0]);
        const probe = document.body.appendChild(make('i', { className: sequence ? arguments[0] : '' }));
        probe.style.color = sequence ? 'var(--hue)' : `var(--${arguments[0]})`;
        probe.style.backgroundColor = 'var(--raised)';
        const { color, backgroundColor } = getComputedStyle(probe);
        probe.remove();
        return [color, backgroundColor].map((each) => each.match(/[\\d.]+/g).slice(0, 3).map(Number));""",
        name,
    )

    def luminance(rgb: list[float]) -> float:
        shares = np.array(rgb) / 255
        linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted(map(luminance, channels))
    return (high + 0.05) / (low + 0.05)
