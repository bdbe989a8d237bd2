"""CLI-63 to CLI-71: lines, and the loop of a chat with a scripted partner."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import click
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ferrum.cli.chat import Chat
from ferrum.cli.chat import chat as chat_command
from ferrum.cli.chat_commands import completions, run_command
from ferrum.cli.conversation import Conversation, Turn
from ferrum.cli.terminal_input import HISTORY_LINES, Entry, line_editing, read_entry
from ferrum.errors import RequestValidation
from ferrum.types import Choice, Completion, FinishReason, StreamChunk, Usage
from tests.cli.conversations import EMPTY, TEXTS, Silent


# ---- lines
class Script:
    """An input of lines. An exception among the lines is raised when it is read."""

    def __init__(self, *lines: str | BaseException) -> None:
        self._lines = list(lines)

    def line(self, prompt: str) -> str | None:
        line = self._lines.pop(0) if self._lines else None
        if isinstance(line, BaseException):
            raise line
        return line


@pytest.mark.clause("CLI-63")
@pytest.mark.parametrize(
    ("lines", "entry"),
    [
        (["Hi"], Entry("Hi")),
        ([], None),
        (['"""', "a", "", " b", '"""'], Entry("a\n\n b", quoted=True)),
        (['"""a', 'b"""  '], Entry("a\nb", quoted=True)),
        (['"""a"""'], Entry("a", quoted=True)),
        (['"""\na\n"""'], Entry("a", quoted=True)),  # pasted at once
        (['"""', "a"], Entry("a", quoted=True)),  # the input ends
        (['"""', '"""'], Entry("", quoted=True)),
        (['"""', "", "a", "", '"""'], Entry("\na\n", quoted=True)),
        (['He said """', '"""'], Entry('He said """')),
    ],
)
def test_what_one_message_is(lines: list[str], entry: Entry | None) -> None:
    assert read_entry(Script(*lines)) == entry


@pytest.mark.clause("CLI-71")
def test_without_readline_there_is_no_history_and_no_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "readline", None)
    monkeypatch.setenv("FERRUM_CACHE", str(tmp_path))
    with line_editing(completions):
        pass
    assert list(tmp_path.iterdir()) == []


# ---- the loop
class Told:
    """A stream of pieces of text. A piece that is an exception is raised; for a number n Ctrl-C is sent n times."""

    def __init__(self, pieces: list[Any], reason: FinishReason) -> None:
        self._pieces, self._reason, self._text = pieces, reason, ""

    def __iter__(self) -> Iterator[StreamChunk]:
        return self

    def __next__(self) -> StreamChunk:
        if not self._pieces:
            raise StopIteration
        piece = self._pieces.pop(0)
        if isinstance(piece, BaseException):
            raise piece
        if isinstance(piece, int):
            for _ in range(piece):
                os.kill(os.getpid(), signal.SIGINT)
            return next(self)
        self._text += piece
        return StreamChunk(piece, 0)

    def completion(self) -> Completion:
        reason = FinishReason.CANCELLED if self._pieces else self._reason
        return Completion((Choice(0, self._text, (), reason, 0),), (), Usage(0, 0))

    def __enter__(self) -> Told:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


class Puppet(Silent):
    """A partner of a chat with scripted answers."""

    full = False
    last: Completion | None = None

    def __init__(self, pieces: list[Any], reason: FinishReason = FinishReason.STOP) -> None:
        self._told = (pieces, reason)

    def greeting(self) -> str:
        return "hello"

    def watch(self, progress: object) -> None:
        pass

    def answer(self, conversation: Conversation) -> Told:
        pieces, reason = self._told
        if pieces and isinstance(pieces[0], RequestValidation):
            raise pieces[0]
        return Told(list(pieces), reason)


BEFORE = replace(EMPTY, turns=(Turn("Hi", "Hello."),))


def talk(partner: Puppet, *lines: str | BaseException, typed: bool = True) -> Conversation:
    """Runs a chat that starts with one turn and reads these lines. Returns the conversation at its end."""
    with click.Context(chat_command):
        loop = Chat(partner, BEFORE, Script(*lines), typed)  # type: ignore[arg-type]
        loop.run()
    return loop.conversation


@pytest.mark.clause("CLI-64")
def test_an_answer_is_written_piece_by_piece_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert talk(Puppet(["a", "", "b"]), "Say it.", typed=False).turns == (*BEFORE.turns, Turn("Say it.", "ab"))
    assert tuple(capsys.readouterr()) == ("ab\n", "")
    assert talk(Puppet([]), "Say nothing.").turns == (*BEFORE.turns, Turn("Say nothing.", ""))


@pytest.mark.clause("CLI-92")
def test_an_answer_is_gone_on_with() -> None:
    assert talk(Puppet([" How", " are you?"]), "/continue").turns == (Turn("Hi", "Hello. How are you?"),)
    assert talk(Puppet([2, "a"]), "/continue") == BEFORE  # stopped before the first word
    assert talk(Puppet([RequestValidation("full")]), "/continue") == BEFORE


@pytest.mark.clause("CLI-67")
@pytest.mark.parametrize("line", ["More?", "/retry"])
@pytest.mark.parametrize(
    ("pieces", "reason", "words"),
    [
        ([RequestValidation("too long")], FinishReason.STOP, "error: too long\n"),
        (["a", RequestValidation("no more")], FinishReason.STOP, "error: no more\n"),
        (["a", MemoryError()], FinishReason.STOP, "error: out of memory"),
        (["a"], FinishReason.ERROR, "error: the answer broke off"),
    ],
)
def test_an_answer_that_fails_takes_the_message_back(
    capsys: pytest.CaptureFixture[str], line: str, pieces: list[Any], reason: FinishReason, words: str
) -> None:
    after = talk(Puppet(pieces, reason), line, "/stats")
    assert after == (BEFORE if line == "/retry" else BEFORE.asked("More?"))
    told = capsys.readouterr()
    assert words in told.err and told.err.count("error: ") == 1 and "1 answers" in told.err
    assert talk(Puppet(pieces, reason), line, "Else.", typed=False).unanswered == "Else."  # in its place


@pytest.mark.clause("CLI-67")
def test_a_message_that_was_taken_back_is_answered_again(capsys: pytest.CaptureFixture[str]) -> None:
    partner = Puppet([RequestValidation("busy")])
    asked = run_command("/retry", talk(partner, "More?"), Silent()).asked
    assert asked == BEFORE.asked("More?")
    assert asked.answered("Yes.").turns == (*BEFORE.turns, Turn("More?", "Yes."))


@pytest.mark.clause("CLI-68")
@pytest.mark.parametrize("line", ["More?", "/retry"])
def test_an_interrupt_keeps_what_was_said(capsys: pytest.CaptureFixture[str], line: str) -> None:
    question, turns = ("Hi", ()) if line == "/retry" else ("More?", BEFORE.turns)
    assert talk(Puppet(["a", 1, "b", "c"]), line).turns == (*turns, Turn(question, "ab"))  # the token on its way too
    assert "(stopped)" in capsys.readouterr().err
    assert talk(Puppet(["a", 2, "b", "c"]), line).turns == (*turns, Turn(question, "a"))  # the second does not wait
    assert talk(Puppet(["a", 1, "b"]), line).turns == (*turns, Turn(question, "ab"))


@pytest.mark.clause("CLI-68")
@pytest.mark.parametrize("line", ["More?", "/retry"])
def test_an_interrupt_before_the_first_word_leaves_no_answer(capsys: pytest.CaptureFixture[str], line: str) -> None:
    assert talk(Puppet([2, "a"]), line) == (BEFORE if line == "/retry" else BEFORE.asked("More?"))
    assert "/retry answers the message again" in capsys.readouterr().err


@pytest.mark.clause("CLI-68")
@pytest.mark.clause("CLI-70")
def test_without_a_terminal_an_interrupt_ends_the_program() -> None:
    with pytest.raises(KeyboardInterrupt):
        talk(Puppet(["a", 1, "b"]), "More?", typed=False)
    with pytest.raises(KeyboardInterrupt):
        talk(Puppet([]), KeyboardInterrupt(), typed=False)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class CommandsMachine(RuleBasedStateMachine):
    """Compares a conversation with a plain list of its messages. Rules: messages and commands in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.conversation = EMPTY
        self.said: list[list[str]] = []  # question and answer, or only a question at the end

    def run(self, line: str) -> Any:
        outcome = run_command(line, self.conversation, Silent())
        self.conversation = outcome.conversation
        return outcome

    @rule(text=TEXTS, answer=st.none() | TEXTS)
    def message(self, text: str, answer: str | None) -> None:
        if self.said and len(self.said[-1]) == 1:
            self.said.pop()
        self.conversation = self.conversation.asked(text)
        self.said.append([text])
        self.answer(self.conversation, answer)

    @precondition(lambda self: self.said)
    @rule(answer=st.none() | TEXTS)
    def retry(self, answer: str | None) -> None:
        self.answer(self.run("/retry").asked, answer)

    @precondition(lambda self: self.said and len(self.said[-1]) == 2)
    @rule(more=st.none() | TEXTS)
    def go_on(self, more: str | None) -> None:
        self.answer(self.run("/continue").asked, more, self.said[-1][1])

    def answer(self, asked: Conversation, answer: str | None, begun: str = "") -> None:
        if answer is not None:
            self.conversation = asked.answered(answer)
            self.said[-1] = [self.said[-1][0], begun + answer]

    @rule()
    def clear(self) -> None:
        self.run("/clear")
        self.said = []

    @rule(line=st.sampled_from(["/help", "/stats", "/set", "/set top_k 3", "/system Be kind.", "/system none"]))
    def other(self, line: str) -> None:
        self.run(line)

    @invariant()
    def nothing_is_lost(self) -> None:
        messages = [m["content"] for m in self.conversation.messages() if m["role"] != "system"]
        assert messages == [text for turn in self.said for text in turn]


@pytest.mark.clause("CLI-65")
class TestCommands(CommandsMachine.TestCase):  # type: ignore[misc]
    pass


@pytest.mark.clause("CLI-71")
def test_the_history_is_limited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    readline = pytest.importorskip("readline")
    monkeypatch.setenv("FERRUM_CACHE", str(tmp_path))
    path = tmp_path / "chat_history"
    path.write_text("".join(f"line {number}\n" for number in range(3 * HISTORY_LINES)))
    with line_editing(completions):
        pass
    readline.clear_history()
    readline.set_completer(None)
    assert path.read_text().splitlines()[-1] == f"line {3 * HISTORY_LINES - 1}"
    assert len(path.read_text().splitlines()) <= HISTORY_LINES + 1
