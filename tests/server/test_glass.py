"""GLASS-06 to GLASS-10: the steps of a server, and who may see them. The page itself is tested in tests/trace/page."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ferrum.engine.metrics import EngineMetrics
from ferrum.sampling_params import SamplingParams
from ferrum.server import glass
from ferrum.server.app import make_app
from ferrum.server.glass import Glass
from ferrum.server.settings import ServerSettings
from ferrum.trace.recorder import Recorder, numbers_in
from ferrum.trace.recording import Observers
from tests.browser import Browser, chromium
from tests.server.running import CHAT, SCRIPT, Running, application, ask, is_error, running, scripted
from tests.server.test_run import assembled, written

SLOW = {"default": "one two three four five six", "delay_ms": 5}
COUNT = {"messages": [{"role": "user", "content": "count"}], "temperature": 0}


class Viewer:
    """Asks for steps as the page does, and collects them."""

    def __init__(self, server: Running, **more: str) -> None:
        self.server, self.more = server, more
        self.recording: str | None = None
        self.after = 0
        self.steps: list[dict[str, Any]] = []
        self.sequences: dict[int, dict[str, Any]] = {}

    def look(self) -> dict[str, Any]:
        """One answer; it has no sequences where there is no news."""
        asked = {"recording": str(self.recording), "after": str(self.after), **self.more}
        found: dict[str, Any] = httpx.get(f"{self.server.url}/glass/events", params=asked).raise_for_status().json()
        self.recording = found["recording"]
        assert all(step["step"] > self.after for step in found["steps"]), "steps come again"
        self.steps += found["steps"]
        self.sequences |= {each["id"]: each for each in found["sequences"]}
        self.after = self.steps[-1]["step"] if self.steps else 0
        return found

    def begin(self) -> None:
        """Waits until the recording has begun."""
        while self.look()["recording"] is None:
            time.sleep(0.01)


def answer(server: Running, body: dict[str, Any] = COUNT) -> str:
    found = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).raise_for_status().json()
    return str(found["choices"][0]["message"]["content"])


@contextmanager
def asking(server: Running, times: int) -> Iterator[None]:
    """Requests in other threads, as long as the block runs."""
    threads = [threading.Thread(target=answer, args=(server,)) for _ in range(times)]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()


@pytest.mark.clause("GLASS-06", "GLASS-07")
def test_a_viewer_sees_every_step_once_and_changes_no_answer() -> None:
    with running(SLOW, glass=True) as server:
        before = answer(server)
        viewer = Viewer(server, distributions="true")
        viewer.begin()
        with asking(server, 3):
            for _ in range(20):
                viewer.look()
                time.sleep(0.01)
        while viewer.look()["steps"]:
            pass
        memory = viewer.look()["memory"]
        assert (memory["scheduler"], memory["eviction"]) == ("fifo", "lru")
        numbers = [step["step"] for step in viewer.steps]
        assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= len(before)
        sequences = viewer.sequences.values()
        assert {each["finish_reason"] for each in sequences} == {"stop"}
        assert {each["text"].rsplit("<|assistant|>\n")[1].removesuffix("<eos>") for each in sequences} == {before}
        choices = [choice for step in viewer.steps for choice in step["choices"]]
        assert all(choice["token"] == choice["definition"] and choice["stages"] for choice in choices)


@pytest.mark.clause("GLASS-06")
def test_what_is_remembered_and_sent_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glass, "KEPT_STEPS", 10)
    monkeypatch.setattr(glass, "SENT_STEPS", 4)
    with running({"default": "x" * 40}, glass=True) as server:
        viewer = Viewer(server)
        viewer.begin()
        answer(server)
        sizes = []
        while (found := viewer.look())["steps"]:
            sizes.append(len(found["steps"]))
        last = server.service.stats().steps
        assert sizes == [4, 4, 2] and [step["step"] for step in viewer.steps] == list(range(last - 9, last + 1))


@pytest.mark.clause("GLASS-06")
def test_steps_of_many_blocks_come_in_smaller_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with running({"default": "x" * 20}, glass=True) as server:
        viewer = Viewer(server)
        viewer.begin()
        answer(server)
        size = numbers_in(viewer.look()["steps"][-1])
        viewer.after, viewer.steps = 1, []  # no page has asked for these steps: answers are shared
        sizes = []
        for most in (1, 3 * size, 3 * size):
            monkeypatch.setattr(glass, "SENT_NUMBERS", most)
            sizes.append(len(viewer.look()["steps"]))
        assert sizes[0] == 1 and all(2 <= each <= 4 for each in sizes[1:])


@pytest.mark.clause("GLASS-06")
def test_where_nothing_is_new_the_answer_is_short_and_no_text_is_spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(SLOW, glass=True) as server:
        viewer = Viewer(server)
        viewer.begin()
        answer(server)
        while viewer.look()["steps"]:
            pass
        monkeypatch.setattr(Recorder, "recorded", lambda *_: pytest.fail("the recording was read"))
        found = viewer.look()
        assert found["recording"] == viewer.recording and found["sequences"] == found["steps"] == []


@pytest.mark.clause("GLASS-06", "GLASS-07")
def test_many_pages_take_one_thread_of_those_that_requests_need(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, most = [0], [0]
    told = Glass._told

    def counted(self: Glass, *arguments: Any) -> bytes:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        time.sleep(0.01)
        at_once[0] -= 1
        return told(self, *arguments)

    monkeypatch.setattr(Glass, "_told", counted)
    with running({"default": "x" * 30}, glass=True) as server:
        viewers = recorded_viewers(server, 20)
        for number, viewer in enumerate(viewers):
            viewer.after = number
        look_at_once(viewers)
    assert most == [1]


def recorded_viewers(server: Running, count: int) -> list[Viewer]:
    """Viewers of a recording with an answer in it; they have no step yet."""
    viewers = [Viewer(server) for _ in range(count)]
    viewers[0].begin()
    answer(server)
    for viewer in viewers:
        viewer.recording = viewers[0].recording
    return viewers


def look_at_once(viewers: list[Viewer]) -> None:
    """One answer to each viewer, all asked for at the same time."""
    threads = [threading.Thread(target=viewer.look) for viewer in viewers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.clause("GLASS-07")
def test_pages_that_ask_for_the_same_steps_share_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    told = Glass._told

    def counted(self: Glass, recording: Any, after: int) -> bytes:
        if recording is not None:
            made.append(after)
        return told(self, recording, after)

    monkeypatch.setattr(Glass, "_told", counted)
    with running(SLOW, glass=True) as server:
        viewers = recorded_viewers(server, 20)
        made.clear()
        look_at_once(viewers)
        assert made == [0] and all(viewer.steps == viewers[0].steps != [] for viewer in viewers)
        last = viewers[0].after
        answer(server)
        look_at_once(viewers)
        assert made == [0, last] and all(viewer.steps == viewers[0].steps for viewer in viewers)
        assert viewers[0].after > last


@pytest.mark.clause("GLASS-07")
def test_the_engine_is_observed_only_while_a_page_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glass, "IDLE_S", 0.2)
    with running(SLOW, glass=True) as server:
        engine = server.service.served.thread.engine
        httpx.get(f"{server.url}/glass").raise_for_status()
        assert isinstance(engine.observer, EngineMetrics)
        viewer = Viewer(server)
        viewer.begin()
        first = viewer.recording
        assert isinstance(engine.observer, Observers)
        wait_until(lambda: isinstance(engine.observer, EngineMetrics))
        viewer.begin()
        assert viewer.recording != first and isinstance(engine.observer, Observers)


def wait_until(happened: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.clause("GLASS-07")
def test_distributions_are_recorded_only_on_demand() -> None:
    with running(SLOW, glass=True) as server:
        viewer = Viewer(server)
        viewer.begin()
        answer(server)
        viewer.look()
        assert viewer.steps and not any("stages" in choice for step in viewer.steps for choice in step["choices"])


@pytest.mark.clause("GLASS-08", "SERVER-30")
def test_steps_need_a_key_and_the_page_does_not() -> None:
    with application(glass=True, api_keys=("one",)) as app:
        page = ask(app, "GET", "/glass")
        assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
        is_error(ask(app, "GET", "/glass/events"), 401)
        is_error(ask(app, "GET", "/glass/events", headers={"authorization": "Bearer two"}), 401)
        answered = ask(app, "GET", "/glass/events", headers={"authorization": "Bearer one"})
        assert answered.status_code == 200 and answered.headers["cache-control"] == "no-store"


@pytest.mark.clause("GLASS-08")
def test_a_page_of_another_origin_may_chat_and_may_not_look() -> None:
    with application(glass=True, cors_origins=("https://example.org",)) as app:
        foreign = {"origin": "https://example.org"}
        assert ask(app, "POST", "/v1/chat/completions", json=CHAT, headers=foreign).status_code == 200
        is_error(ask(app, "GET", "/glass/events", headers=foreign), 403)


@pytest.mark.clause("GLASS-08")
@pytest.mark.parametrize(
    ("site", "is_own"), [("same-origin", True), ("none", True), ("same-site", False), ("cross-site", False)]
)
def test_a_page_of_another_site_has_nothing_recorded(site: str, is_own: bool) -> None:
    """A GET of the mode `no-cors` has no Origin header."""
    with scripted() as service:
        app = make_app(service, ServerSettings(glass=True))
        answered = ask(app, "GET", "/glass/events", headers={"sec-fetch-site": site})
        service.served.thread.submit([1], SamplingParams(max_tokens=1)).result(20)  # commands run in order
        assert isinstance(service.served.thread.engine.observer, Observers) == is_own
        if is_own:
            assert answered.status_code == 200
        else:
            is_error(answered, 403)


@pytest.mark.clause("GLASS-10")
@pytest.mark.parametrize(
    ("host", "is_told"),
    [
        ("192.168.1.7:8000", True), ("[fe80::1]:8000", True), ("localhost:8000", True), ("box.example:8000", True),
        ("BOX.example", True), ("evil.example:8000", False), ("localhost.evil.example", False),
        ("1.2.3.4.example", False), ("[", False),
    ],
)  # fmt: skip
def test_without_keys_a_name_of_the_dns_must_be_allowed(host: str, is_told: bool) -> None:
    """Also where the server has other machines as clients and answers to every name otherwise."""
    headers = {"host": host}
    with application(glass=True, allowed_hosts=("*", "box.example")) as app:
        assert ask(app, "GET", "/v1/models", headers=headers).status_code == 200
        if is_told:
            assert ask(app, "GET", "/glass/events", headers=headers).status_code == 200
        else:
            assert "--allowed-host" in is_error(ask(app, "GET", "/glass/events", headers=headers), 403)["message"]
    with application(glass=True, api_keys=("one",)) as app:
        answered = ask(app, "GET", "/glass/events", headers={**headers, "authorization": "Bearer one"})
        assert answered.status_code == 200


@pytest.mark.clause("GLASS-08")
def test_the_page_runs_nothing_else_and_talks_to_this_server_alone() -> None:
    with application(glass=True) as app:
        rules = ask(app, "GET", "/glass").headers["content-security-policy"]
    assert "default-src 'none'" in rules and "connect-src 'self'" in rules and "frame-ancestors 'none'" in rules
    assert "unsafe" not in rules and rules.count("sha256-") == 2


@pytest.mark.clause("GLASS-09")
def test_where_it_is_off_it_tells_how_to_turn_it_on() -> None:
    with application() as app:
        for path in ("/glass", "/glass/events"):
            assert "--glass" in is_error(ask(app, "GET", path), 404)["message"]


@pytest.mark.clause("GLASS-09")
@pytest.mark.parametrize(
    ("flags", "is_on"),
    [
        ([], True), (["--api-key", "a"], True), (["--api-key", "a", "--api-key", "b"], False), (["--no-glass"], False),
        (["--host", "0.0.0.0"], False), (["--host", "0.0.0.0", "--glass"], True), (["--host", "localhost"], True),
    ],
    ids=str,
)  # fmt: skip
def test_by_default_it_is_on_for_one_user(tmp_path: Path, flags: list[str], is_on: bool) -> None:
    script = str(written(tmp_path, SCRIPT))
    _, app, _, _ = assembled("--stub", script, *flags)
    assert ask(app, "GET", "/glass").status_code == (200 if is_on else 404)


@pytest.mark.clause("GLASS-06")
@pytest.mark.parametrize("after", ["-1", "x", "1.5", "9" * 16, "٣", ""])
def test_a_number_that_is_none(after: str) -> None:
    with application(glass=True) as app:
        assert is_error(ask(app, "GET", f"/glass/events?after={after}"), 400)["param"] == "after"


@pytest.mark.browser
@pytest.mark.clause("GLASS-06", "GLASS-08")
def test_a_browser_follows_the_server() -> None:
    with running(SLOW, glass=True, api_keys=("secret",)) as server, chromium() as browser:
        browser.screen(1400, 1000)
        browser.open(f"{server.url}/glass")
        browser.until("return document.querySelector('dialog[open]')")
        browser.press("Escape")
        browser.until("return document.getElementById('notice').innerText.includes('reload the page')")
        browser.reload()
        browser.type("#key", "secret")
        browser.press("Enter")
        browser.until("return window.view !== undefined")
        browser.complaints()  # the answer without a key
        headers = {"authorization": "Bearer secret"}
        httpx.post(f"{server.url}/v1/chat/completions", json=COUNT, headers=headers, timeout=60).raise_for_status()
        steps = server.service.stats().steps
        browser.until("return document.getElementById('step').dataset.step === arguments[0]", str(steps))
        assert shown_text(browser) == "one·two·three·four·five·six"
        assert browser.complaints() == []


def shown_text(browser: Browser) -> str:
    """The generated tokens on the page."""
    chips = (
        "return [...document.querySelectorAll('.tokens .generated, .tokens .drawn')].map((e) => e.textContent).join('')"
    )
    return str(browser.run(chips)).removesuffix("<eos>")
