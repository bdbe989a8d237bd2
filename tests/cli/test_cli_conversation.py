"""CLI-61 and CLI-65: conversations, their file, and the commands on them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.cli.chat_commands import COMMANDS, completions, run_command
from ferrum.cli.conversation import Conversation, load, save
from ferrum.errors import FerrumError, InvalidFormat, InvalidParameter, NotFound
from ferrum.sampling_params import SamplingParams
from tests.cli.conversations import CONVERSATIONS, EMPTY, TEXTS, Silent


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
        (b'{"messages": [], "params": {"ignore_eos": 1}}', "ignore_eos must be true or false, not 1"),
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


LINES = st.one_of(
    st.builds(
        lambda command, operand: f"{command} {operand}".rstrip(),
        st.sampled_from(
            ["/help", "/set", "/system", "/stats", "/retry", "/continue", "/save", "/load", "/exit", "/none", "/"]
        ),
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
        last = {"role": "user", "content": said[-1]}
        if line.startswith("/continue"):
            last = {"role": "assistant", "content": conversation.turns[-1].answer}
        assert outcome.asked.messages()[-1] == last
        assert [m["content"] for m in outcome.asked.messages() if m["role"] == "user"] == said


@pytest.mark.clause("CLI-65")
@given(CONVERSATIONS)
def test_clear_keeps_the_system_message_and_the_parameters(conversation: Conversation) -> None:
    cleared = run_command("/clear", conversation, Silent()).conversation
    assert cleared == Conversation(conversation.params, conversation.system)
    with pytest.raises(NotFound, match="no message yet"):
        run_command("/retry", cleared, Silent())
    with pytest.raises(NotFound, match="no answer yet"):
        run_command("/continue", cleared, Silent())


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
        with pytest.raises((OSError, NotFound), match="~nobody-of-this-name"):
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
