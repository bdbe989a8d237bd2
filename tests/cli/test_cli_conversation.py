"""CLI-61 to CLI-71: conversations, parameters and commands by themselves, and the loop with a partner that can fail."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ferrum.cli.chat import Chat
from ferrum.cli.chat import chat as chat_command
from ferrum.cli.chat_commands import COMMANDS, completions, run_command
from ferrum.cli.conversation import Conversation, Turn, load, save
from ferrum.cli.line_editor import HISTORY_LINES, line_editing
from ferrum.cli.line_input import Entry, read_entry
from ferrum.cli.parameters import as_json, change, from_json, names, shown
from ferrum.cli.values import from_json as value_from_json
from ferrum.cli.values import read, to_json, typable, write
from ferrum.errors import FerrumError, InvalidFormat, InvalidParameter, NotFound, RequestValidation, Unsupported
from ferrum.types import Choice, Completion, FinishReason, SamplingParams, StreamChunk, Usage

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PARAMS = st.builds(
    SamplingParams,
    max_tokens=st.none() | st.integers(1, 10**6),
    temperature=st.floats(0, 1e6),
    top_k=st.integers(0, 10**6),
    top_p=st.floats(0, 1, exclude_min=True),
    seed=st.none() | st.integers(),
    # half a surrogate pair is a text too, to Python and to JSON
    stop=st.lists(st.text(min_size=1, max_size=5) | st.just("\udc80"), max_size=3),
    stop_token_ids=st.lists(st.integers(), max_size=3),
    ignore_eos=st.booleans(),
    typical_p=st.floats(0, 1, exclude_min=True),
    mirostat=st.sampled_from([0, 2]),
    repetition_penalty=st.floats(0.01, 100),
    presence_penalty=st.floats(-2, 2),
    logit_bias=st.dictionaries(st.integers(0, 10**6), st.floats(-100, 100), max_size=3),
)
CONVERSATIONS = st.builds(
    Conversation,
    PARAMS,
    st.none() | TEXTS,
    st.lists(st.builds(Turn, TEXTS, TEXTS), max_size=4).map(tuple),
    st.none() | TEXTS,
)
EMPTY = Conversation(SamplingParams(seed=1))


class Silent:
    """A partner that commands can ask."""

    name = "someone"

    def statistics(self, conversation: Conversation) -> list[str]:
        return [f"{len(conversation.turns)} answers"]


# ---- the file
@pytest.mark.clause("CLI-61")
@given(CONVERSATIONS)
def test_what_is_saved_is_what_is_loaded(tmp_path_factory: pytest.TempPathFactory, conversation: Conversation) -> None:
    path = tmp_path_factory.mktemp("saved") / "file.json"
    save(conversation, path, "model")
    assert load(path, SamplingParams()) == conversation
    save(EMPTY, path, "model")  # over an older one
    assert load(path, SamplingParams()) == EMPTY
    assert json.loads(path.read_bytes())["model"] == "model"


@pytest.mark.clause("CLI-61")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "object"),
        (b"{}", "messages"),
        (b'{"messages": {}}', "messages"),
        (b'{"messages": [], "colour": 1}', "colour"),
        (b'{"messages": [], "params": []}', "params"),
        (b'{"messages": [], "params": {"colour": 1}}', "colour"),
        (b'{"messages": [], "params": {"n": 2}}', "n "),
        (b'{"messages": [], "params": {"top_p": 2}}', "top_p must be"),
        (b'{"messages": [], "params": {"ignore_eos": 1}}', "ignore_eos cannot be 1"),
        (b'{"messages": ["Hi"]}', "message 1"),
        (b'{"messages": [{"role": "user"}]}', "message 1"),
        (b'{"messages": [{"role": "user", "content": ["a"]}]}', "message 1"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "message 1"),
        (b'{"messages": [{"role": "user", "content": "a", "name": "b"}]}', "message 1"),
        (b'{"messages": [{"role": "tool", "content": "a"}]}', "out of turn"),
        (b'{"messages": [{"role": "assistant", "content": "a"}]}', "out of turn"),
        (b'{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "a"}]}', "message 2"),
        (b'{"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "a"}]}', "message 2"),
    ],
)
def test_another_file_is_refused_in_a_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(InvalidFormat, match=words) as caught:
        load(path, SamplingParams())
    assert str(caught.value).startswith(f"{path}")
    if content:
        with pytest.raises(InvalidParameter, match="not written over"):
            save(EMPTY, path, "model")
        assert path.read_bytes() == content


@pytest.mark.clause("CLI-61")
def test_a_file_without_parameters_leaves_them_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text('{"messages": [{"role": "user", "content": "Hi"}]}')
    assert load(path, EMPTY.params) == replace(EMPTY, unanswered="Hi")


# ---- parameters
def outcome(make: Any) -> Any:
    """What came of it: the parameters, or what was wrong with them."""
    try:
        return make()
    except InvalidParameter as error:
        return str(error)


NUMBERS = st.integers(-3, 10**6) | st.floats() | st.sampled_from([0.0, 1.0])


@pytest.mark.clause("CLI-62")
@given(st.sampled_from(["temperature", "top_p", "min_p"]), NUMBERS)
def test_a_number_is_accepted_exactly_where_the_parameters_accept_it(name: str, value: float) -> None:
    expected = outcome(lambda: replace(EMPTY.params, **{name: float(value)}))
    assert outcome(lambda: change(EMPTY.params, name, str(value))) == expected


@pytest.mark.clause("CLI-62")
@given(st.sampled_from(["max_tokens", "top_k", "seed"]), NUMBERS)
def test_a_whole_number_too(name: str, value: float) -> None:
    expected = outcome(lambda: replace(EMPTY.params, **{name: value}))
    told = outcome(lambda: change(EMPTY.params, name, str(value)))
    assert told == expected if isinstance(expected, SamplingParams) else isinstance(told, str) and name in told
    assert change(EMPTY.params, "seed", "none").seed is None


@pytest.mark.clause("CLI-62")
@given(PARAMS)
def test_what_is_shown_can_be_typed(params: SamplingParams) -> None:
    typed = SamplingParams()
    for name in names():
        typed = change(typed, name, shown(params, name))
    assert typed == params
    assert from_json(json.loads(json.dumps(as_json(params)))) == params


@pytest.mark.clause("CLI-62")
@pytest.mark.parametrize(
    ("name", "text", "error", "words"),
    [
        ("temperature", "-1", InvalidParameter, "temperature must be a number at least 0, not -1.0"),
        ("temperature", "warm", InvalidParameter, "temperature must be a number at least 0, not 'warm'"),
        ("max_tokens", "0", InvalidParameter, "max_tokens must be a whole number of at least 1, not 0"),
        ("max_tokens", "1.5", InvalidParameter, "max_tokens must be a whole number of at least 1, not '1.5'"),
        ("top_k", "none", InvalidParameter, "top_k must be a whole number of at least 0, not 'none'"),
        ("stop_token_ids", "1,x", InvalidParameter, "stop_token_ids must hold token ids"),
        ("stop", '["a", 1]', InvalidParameter, "stop cannot be"),
        ("stop", '[""]', InvalidParameter, "stop must hold non-empty strings"),
        ("stop", "[" * 100_000, InvalidParameter, "stop cannot be"),
        ("ignore_eos", "perhaps", InvalidParameter, "ignore_eos must be true or false, not 'perhaps'"),
        ("n", "2", Unsupported, "n cannot be set"),
        ("logprobs", "2", Unsupported, "logprobs cannot be set"),
        ("structured_outputs", "{}", Unsupported, "structured_outputs cannot be set here"),
        ("logit_bias", "5", InvalidParameter, "logit_bias"),
        ("logit_bias", "5=1000", InvalidParameter, "logit_bias must be a number between -100 and 100"),
        ("colour", "red", NotFound, "no parameter 'colour'"),
    ],
)
def test_a_wrong_value_is_refused_in_the_words_of_the_parameters(
    name: str, text: str, error: type[FerrumError], words: str
) -> None:
    with pytest.raises(error) as caught:
        change(EMPTY.params, name, text)
    assert words in str(caught.value)


@pytest.mark.clause("CLI-62")
@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (str, "one two", "one two"),
        (str, '"a\\nb"', "a\nb"),
        (str | None, "none", None),
        (str | None, '"none"', "none"),
        (bool, "on", True),
        (Literal["low", "high"], "high", "high"),
        (Literal[0, 2], "2", 2),
        (tuple[str, ...], "a, b", ("a, b",)),
        (tuple[str, ...], '["a", "\\n"]', ("a", "\n")),
        (tuple[int, ...], "1, 2", (1, 2)),
        (tuple[int, ...] | None, "none", None),
        (Mapping[int, float], "5=-1.5, 7=2", {5: -1.5, 7: 2.0}),
        (Mapping[int, float] | None, "5=-inf", {5: -math.inf}),
        (dict[int, float], "none", {}),
        (tuple[tuple[int, float], ...], "5=-1.5,7=2", ((5, -1.5), (7, 2.0))),
    ],
)
def test_how_values_of_each_type_are_written(hint: Any, text: str, value: Any) -> None:
    assert typable(hint)
    assert read(hint, text) == value
    assert read(hint, write(value)) == value
    assert value_from_json(hint, json.loads(json.dumps(to_json(value)))) == value


@pytest.mark.clause("CLI-62")
@pytest.mark.parametrize("hint", [Any, object, list[int], Mapping[str, Any] | None, tuple[int, int], type[int]])
def test_other_types_cannot_be_typed(hint: Any) -> None:
    assert not typable(hint)


@pytest.mark.clause("CLI-62")
def test_a_parameter_of_such_a_type_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ferrum.cli.parameters._hints", lambda: {"n": int, "stop": object})
    with pytest.raises(Unsupported, match="stop cannot be set here"):
        change(EMPTY.params, "stop", "a")
    with pytest.raises(Unsupported, match="stop cannot be set here"):
        shown(EMPTY.params, "stop")


# ---- commands
LINES = st.one_of(
    st.builds(
        lambda command, operand: f"{command} {operand}".rstrip(),
        st.sampled_from(["/help", "/set", "/system", "/stats", "/retry", "/save", "/load", "/exit", "/none", "/"]),
        st.sampled_from(["", "temperature 0.5", "top_k x", "seed none", "stop [", "n 2", "/no/such/folder/file"])
        | TEXTS,
    ),
    TEXTS.map(lambda text: "/" + text),
)


@pytest.mark.clause("CLI-65")
@given(CONVERSATIONS, LINES)
def test_no_command_but_clear_and_load_loses_a_message(conversation: Conversation, line: str) -> None:
    if line.startswith(("/clear", "/load")):
        return
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ferrum.cli.chat_commands.save", lambda *_: None)  # no files of any name
            outcome = run_command(line, conversation, Silent())
    except FerrumError:
        return
    assert (outcome.conversation.turns, outcome.conversation.unanswered) == (
        conversation.turns,
        conversation.unanswered,
    )
    assert outcome.ends == (line.split(" ")[0] in ("/exit", "/bye"))
    if outcome.asked is not None:
        said = [message["content"] for message in conversation.messages() if message["role"] == "user"]
        assert outcome.asked.messages()[-1] == {"role": "user", "content": said[-1]}
        assert [m["content"] for m in outcome.asked.messages() if m["role"] == "user"] == said


@pytest.mark.clause("CLI-65")
@given(CONVERSATIONS)
def test_clear_keeps_the_system_message_and_the_parameters(conversation: Conversation) -> None:
    cleared = run_command("/clear", conversation, Silent()).conversation
    assert cleared == Conversation(conversation.params, conversation.system)
    with pytest.raises(NotFound, match="no message yet"):
        run_command("/retry", cleared, Silent())


@pytest.mark.clause("CLI-65")
def test_the_system_message_is_set_and_removed() -> None:
    kind = run_command("/system Be kind.", EMPTY, Silent())
    assert (kind.conversation.system, kind.lines) == ("Be kind.", ("Be kind.",))
    assert run_command("/system none", kind.conversation, Silent()).conversation.system is None


@pytest.mark.clause("CLI-65")
def test_help_names_every_command_and_operands_are_never_ignored() -> None:
    told = "\n".join(run_command("/help", EMPTY, Silent()).lines)
    for name, command in COMMANDS.items():
        assert f"{name} {command.operands}".rstrip() in told
        if not command.operands:
            with pytest.raises(InvalidParameter, match=f"{name} takes nothing after it"):
                run_command(f"{name} now", EMPTY, Silent())
    for line in ("/save", "/load"):
        for operand in ("", " ", " a\0b"):
            with pytest.raises(InvalidParameter, match=f"{line} needs"):
                run_command(line + operand, EMPTY, Silent())
        with pytest.raises(OSError, match="~nobody-of-this-name"):
            run_command(f"{line} ~nobody-of-this-name/file", EMPTY, Silent())
    for line in ("/sing", "/", "/ help", "/HELP", "//"):
        with pytest.raises(NotFound, match="/help"):
            run_command(line, EMPTY, Silent())


@pytest.mark.clause("CLI-71")
def test_completions(tmp_path: Path) -> None:
    (tmp_path / "talk.json").touch()
    (tmp_path / "talks").mkdir()
    assert completions("/s") == ["/set", "/system", "/save", "/stats"]
    assert completions("/set te") == ["temperature"]
    assert completions(f"/load {tmp_path}/ta") == [f"{tmp_path}/talk.json", f"{tmp_path}/talks/"]
    assert completions("") == completions("Hello") == completions("/help m") == []


# ---- lines
class Script:
    """Lines that are read one after another; an exception among them is raised."""

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
    """A stream of pieces; one that is an exception is raised, and a number is a Ctrl-C sent so many times."""

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
    """A partner that says what it is told to."""

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
    """A chat that starts with one turn and hears these lines -> the conversation at its end."""
    with click.Context(chat_command):
        loop = Chat(partner, BEFORE, Script(*lines), typed)  # type: ignore[arg-type]
        loop.run()
    return loop.conversation


@pytest.mark.clause("CLI-64")
def test_an_answer_is_written_piece_by_piece_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert talk(Puppet(["a", "", "b"]), "Say it.", typed=False).turns == (*BEFORE.turns, Turn("Say it.", "ab"))
    assert tuple(capsys.readouterr()) == ("ab\n", "")
    assert talk(Puppet([]), "Say nothing.").turns == (*BEFORE.turns, Turn("Say nothing.", ""))


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
    """A conversation beside a plain list of what was said: any order of messages and commands."""

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

    def answer(self, asked: Conversation, answer: str | None) -> None:
        if answer is not None:
            self.conversation = asked.answered(answer)
            self.said[-1] = [self.said[-1][0], answer]

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
