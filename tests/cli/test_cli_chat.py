"""CLI-60 to CLI-71: the program `chat`, in a terminal and through pipes."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ferrum.cli.chat import Partner
from ferrum.cli.conversation import Conversation
from ferrum.sampling_params import SamplingParams
from tests.cli.conftest import CONFIG, CONTEXT, command, environment
from tests.cli.terminal import CTRL_C, CTRL_D, CTRL_P, Terminal

PROMPT = ">>> "
Open = Callable[..., Iterator[Terminal]]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache folder for the test, so that the user's history stays unchanged."""
    return tmp_path / "cache"


def arguments(model: Path, *more: object) -> list[str]:
    return command("chat", "-m", model, "--backend", "numpy", "-n", 8, "--seed", 3, *more)


@contextmanager
def chatting(model: Path, cache: Path, *more: object) -> Iterator[Terminal]:
    """A chat in a terminal that has printed its greeting and waits for input."""
    with Terminal(arguments(model, *more), {**environment(), "FERRUM_CACHE": str(cache)}) as terminal:
        terminal.expect(PROMPT)
        yield terminal


def piped(model: Path, cache: Path, text: str | bytes, *more: object) -> subprocess.CompletedProcess[bytes]:
    content = text.encode() if isinstance(text, str) else text
    changed = {**environment(), "FERRUM_CACHE": str(cache)}
    return subprocess.run(arguments(model, *more), input=content, capture_output=True, env=changed, timeout=240)


def say(terminal: Terminal, text: str) -> str:
    """Types a line. Returns the output after it, up to the next prompt."""
    terminal.type(text + "\n")
    return terminal.expect(PROMPT).removesuffix(PROMPT).partition("\n")[2]


def saved(terminal: Terminal, folder: Path) -> list[tuple[str, str]]:
    """The saved conversation: (role, text) of each message."""
    path = folder / "saved.json"
    assert say(terminal, f"/save {path}") == f"saved to {path}\n"
    return [(message["role"], message["content"]) for message in json.loads(path.read_text())["messages"]]


@pytest.fixture(scope="session")
def talkative(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a context so long that no answer ends before it is stopped."""
    copy = Path(shutil.copytree(tiny, tmp_path_factory.mktemp("models") / "talkative"))
    (copy / "config.json").write_text(json.dumps({**CONFIG, "max_position_embeddings": 100_000}))
    return copy


@pytest.mark.clause("CLI-60")
@pytest.mark.clause("CLI-64")
def test_a_conversation_in_a_terminal(tiny: Path, cache: Path, tmp_path: Path) -> None:
    with Terminal(arguments(tiny, "-s", "Be brief."), {**environment(), "FERRUM_CACHE": str(cache)}) as terminal:
        assert f"{tiny.name}, float32, on numpy · context of {CONTEXT} tokens" in terminal.expect(PROMPT)
        first = say(terminal, "Hi")
        assert "(cut off after 8 tokens: /continue goes on, /set max_tokens none" in first
        assert say(terminal, "   ") == ""
        say(terminal, "And?")
        messages = saved(terminal, tmp_path)
        assert [role for role, _ in messages] == ["system", "user", "assistant", "user", "assistant"]
        assert [messages[0][1], messages[1][1], messages[3][1]] == ["Be brief.", "Hi", "And?"]
        assert messages[2][1] in first
        terminal.type("/exit\n")
        assert terminal.end()[0] == 0


@pytest.mark.clause("CLI-68")
def test_an_interrupt_stops_the_answer_and_not_the_program(talkative: Path, cache: Path, tmp_path: Path) -> None:
    with chatting(talkative, cache, "--kv-memory", "64MiB", "-n", 90_000) as terminal:
        terminal.type("Hi\n")
        terminal.expect("Hi\r\n")
        terminal.expect_more(20)  # in the middle of the answer
        terminal.type(CTRL_C)
        terminal.expect("(stopped)\r\n")
        terminal.expect(PROMPT)
        messages = saved(terminal, tmp_path)
        assert [role for role, _ in messages] == ["user", "assistant"]
        assert 0 < len(messages[1][1]) < 80_000
        assert say(terminal, "/set max_tokens 5") == "max_tokens  5\n"
        say(terminal, "And?")
        assert [role for role, _ in saved(terminal, tmp_path)] == ["user", "assistant"] * 2


@pytest.mark.clause("CLI-68")
def test_an_interrupt_while_typing_clears_the_line(tiny: Path, cache: Path, tmp_path: Path) -> None:
    with chatting(tiny, cache) as terminal:
        terminal.type("never said")
        terminal.expect("never said")
        terminal.interrupt("(Ctrl-D or /exit ends the chat)")
        terminal.expect(PROMPT)
        terminal.type('"""\nnor this\n')
        terminal.expect("nor this\r\n... ")
        terminal.interrupt("(Ctrl-D or /exit ends the chat)")
        terminal.expect(PROMPT)
        say(terminal, "Hi")
        assert [text for role, text in saved(terminal, tmp_path) if role == "user"] == ["Hi"]
        terminal.type(CTRL_D)
        assert terminal.end()[0] == 0


@pytest.mark.clause("CLI-63")
def test_several_lines_between_quotes_are_one_message(tiny: Path, cache: Path, tmp_path: Path) -> None:
    with chatting(tiny, cache) as terminal:
        terminal.type('"""\n')
        terminal.expect("... ")
        terminal.type("/one\n")
        terminal.expect("... ")
        terminal.type("\n")
        terminal.expect("... ")
        terminal.type("  two\n")
        terminal.expect("... ")
        terminal.type('"""\n')
        terminal.expect(PROMPT)
        say(terminal, '"""/three"""')
        assert [text for role, text in saved(terminal, tmp_path) if role == "user"] == ["/one\n\n  two", "/three"]


@pytest.mark.clause("CLI-61")
@pytest.mark.clause("CLI-62")
@pytest.mark.clause("CLI-65")
def test_the_commands_in_a_terminal(tiny: Path, cache: Path, tmp_path: Path) -> None:
    with chatting(tiny, cache) as terminal:
        say(terminal, "/set temperature 1")
        answers = [saved(terminal, tmp_path) for text in ("Hi", "/retry") if say(terminal, text)]
        assert answers[0] == answers[1] and len(answers[0]) == 2  # the seed is set
        say(terminal, "/set seed none")
        say(terminal, "/set max_tokens 40")
        say(terminal, "/retry")
        again = saved(terminal, tmp_path)
        assert again[0] == ("user", "Hi") and len(again) == 2 and again[1] != answers[0][1]
        assert "seed none" in re.sub(" +", " ", say(terminal, "/set"))
        assert "tokens at" in say(terminal, "/stats")
        assert "no parameter 'colour'" in say(terminal, "/set colour red")
        assert "no command '/sing': /help" in say(terminal, "/sing")
        assert say(terminal, "/system Be kind.") == say(terminal, "/system") == "Be kind.\n"
        before = saved(terminal, tmp_path)
        (tmp_path / "bad.json").write_text('{"messages": [1]}')
        assert say(terminal, f"/load {tmp_path / 'bad.json'}").startswith("error: ")
        assert "does not exist" in say(terminal, f"/load {tmp_path / 'none.json'}")
        assert saved(terminal, tmp_path) == before
        kept = shutil.copy(tmp_path / "saved.json", tmp_path / "kept.json")
        say(terminal, "/clear")
        assert saved(terminal, tmp_path) == [("system", "Be kind.")]
        assert say(terminal, f"/load {kept}") == "1 answer loaded\n"
        assert saved(terminal, tmp_path) == before
        terminal.type("/bye\n")
        assert terminal.end()[0] == 0


@pytest.mark.clause("CLI-71")
def test_lines_are_remembered_and_completed(tiny: Path, cache: Path) -> None:
    with chatting(tiny, cache) as terminal:
        say(terminal, "/set temperature 1")
        terminal.type("/he\t\n")
        terminal.expect("shows this")
        terminal.expect(PROMPT)
        terminal.type(CTRL_D)
        assert terminal.end()[0] == 0
    history = cache / "chat_history"
    assert history.read_text() == "/set temperature 1\n/help\n"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    with chatting(tiny, cache) as terminal:
        terminal.type(CTRL_P + CTRL_P + "\n")
        terminal.expect("temperature  1.0")


@pytest.mark.clause("CLI-71")
def test_a_history_that_cannot_be_kept_is_no_reason_to_fail(tiny: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "file"
    nowhere.write_text("not a folder")
    with chatting(tiny, nowhere) as terminal:
        say(terminal, "Hi")
        terminal.type(CTRL_D)
        code, rest = terminal.end()
        assert (code, rest.strip()) == (0, "")


@pytest.mark.clause("CLI-66")
def test_a_full_context_is_told_and_nothing_is_lost(tiny: Path, cache: Path, tmp_path: Path) -> None:
    with chatting(tiny, cache) as terminal:
        say(terminal, "Hi")
        before = saved(terminal, tmp_path)
        told = say(terminal, "x" * CONTEXT)
        assert told.startswith("error: the conversation does not fit any more") and "/clear" in told
        assert told.count("\n") == 1
        assert saved(terminal, tmp_path)[:2] == before
        say(terminal, "Short.")  # in the place of the message that did not fit
        assert [text for role, text in saved(terminal, tmp_path) if role == "user"] == ["Hi", "Short."]
        say(terminal, "/set max_tokens none")
        assert "(the context is full: /clear" in say(terminal, "And?")


@pytest.mark.clause("CLI-70")
def test_without_a_terminal_lines_go_in_and_answers_come_out(tiny: Path, cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "saved.json"
    ran = piped(tiny, cache, f'\ufeffHi\r\n\n/set max_tokens 3\n"""\na\nb\n"""\n/save {path}\n')
    answers = [m["content"] for m in json.loads(path.read_text())["messages"] if m["role"] == "assistant"]
    questions = [m["content"] for m in json.loads(path.read_text())["messages"] if m["role"] == "user"]
    assert questions == ["Hi", "a\nb"] and len(answers) == 2
    assert (ran.returncode, ran.stdout.decode()) == (0, "".join(answer + "\n" for answer in answers))
    assert ran.stderr.decode() == f"max_tokens  3\nsaved to {path}\n"
    assert not cache.exists()


@pytest.mark.clause("CLI-67")
@pytest.mark.clause("CLI-70")
def test_what_fails_is_one_line_and_the_rest_goes_on(tiny: Path, cache: Path) -> None:
    ran = piped(tiny, cache, b"\xff\n" + b"x" * CONTEXT + b"\n/sing\n/clear now\n/set\xc2\xa0n 2\n/set n 2\nHi\n")
    errors = ran.stderr.decode().splitlines()
    assert ran.returncode == 0 and len(ran.stdout) > 1
    assert [line.startswith("error: ") for line in errors] == [True] * 6
    for line, words in zip(errors, ["line 1 of", "does not fit", "/sing", "/clear", "/set", "n cannot"], strict=True):
        assert words in line


@pytest.mark.clause("CLI-60")
def test_a_model_without_a_template_is_refused(plain: Path, cache: Path) -> None:
    ran = piped(plain, cache, "Hi\n")
    assert (ran.returncode, ran.stdout, ran.stderr.count(b"\n")) == (1, b"", 1)
    assert b"no chat template" in ran.stderr
    ran = piped(plain, cache, "", "-s", os.fsdecode(b"\xff"))
    assert (ran.returncode, ran.stderr) == (2, b"error: --system: system is not UTF-8 text\n")


@pytest.mark.clause("CLI-61")
def test_a_conversation_is_loaded_by_a_flag_and_flags_go_first(tiny: Path, cache: Path, tmp_path: Path) -> None:
    path, again = tmp_path / "first.json", tmp_path / "second.json"
    piped(tiny, cache, f"/set top_k 7\n/set min_p 0.25\nHi\n/save {path}\n", "-s", "Be brief.")
    piped(tiny, cache, f"/save {again}\n", "--load", path, "-s", "Be kind.", "--top-k", 9)
    first, second = (json.loads(file.read_text()) for file in (path, again))
    assert second["messages"] == [{"role": "system", "content": "Be kind."}, *first["messages"][1:]]
    assert (second["params"]["top_k"], second["params"]["min_p"], second["params"]["seed"]) == (9, 0.25, 3)
    piped(tiny, cache, f"/save {again}\n", "--load", path, "--preset", "precise", "--logit-bias", "5=-3")
    third = json.loads(again.read_text())["params"]
    assert (third["temperature"], third["top_k"], third["min_p"], third["seed"]) == (0.3, 40, 0.05, 3)
    assert third["logit_bias"] == {"5": -3.0}
    path.write_text("{")
    ran = piped(tmp_path / "no-model", cache, "", "--load", path)  # told before the model is looked for
    assert (ran.returncode, ran.stdout) == (1, b"") and ran.stderr.startswith(f"error: {path} is not JSON".encode())


@pytest.mark.clause("CLI-62")
def test_a_structure_is_kept_beside_a_file(smollm2_path: Path, cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    piped(smollm2_path, cache, f"Hi\n/save {path}\n", "-n", 3)
    ran = piped(smollm2_path, cache, f"/load {path}\nYes or no?\n", "--regex", "yes|no", "--load", path)
    assert ran.stdout.strip() in (b"yes", b"no")


@pytest.mark.clause("CLI-62")
def test_what_a_chat_cannot_tell_is_refused(tiny: Path, cache: Path) -> None:
    ran = piped(tiny, cache, "Hi\n", "--logprobs", 1)
    assert ran.returncode == 2 and b"--logprobs" in ran.stderr


@pytest.mark.clause("CLI-69")
def test_a_turn_reuses_what_was_computed_for_the_ones_before(smollm2_path: Path) -> None:
    from ferrum.engine.llm import LLM

    partner = Partner(LLM(smollm2_path, max_model_len=512))
    conversation = Conversation(SamplingParams(temperature=0, max_tokens=30))
    computed = 0  # tokens of the turns before whose keys and values are in memory: all but the last
    for question in ("What is the capital of France?", "And of Germany?", "And of Spain?"):
        asked = conversation.asked(question)
        with partner.answer(asked) as stream:
            text = "".join(chunk.text for chunk in stream)
        completion = stream.completion()
        assert completion.usage.cached_tokens == computed // 16 * 16
        computed = completion.usage.prompt_tokens + completion.usage.completion_tokens - 1
        conversation = asked.answered(text)
    assert conversation.turns[0].answer == "The capital of France is Paris."


@pytest.mark.clause("CLI-60")
def test_the_real_model_answers_in_a_terminal(smollm2_path: Path) -> None:
    history = Path(os.environ.get("FERRUM_CACHE", "~/.cache/ferrum")).expanduser() / "chat_history"
    before = history.read_bytes() if history.exists() else None
    asked = b"What is the capital of France?\nAnd of Germany?\n"
    ran = subprocess.run(
        command("chat", "-m", smollm2_path, "--temperature", 0),
        input=asked, capture_output=True, env=environment(), timeout=300,
    )  # fmt: skip
    assert ran.stdout.startswith(b"The capital of France is Paris.\n") and b"Berlin" in ran.stdout
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert (history.read_bytes() if history.exists() else None) == before
