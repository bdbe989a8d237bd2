"""CLI-17, CLI-85 to CLI-89: escape sequences in texts from files and models have no effect on the terminal."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from ferrum.cli.conversation import Conversation, load, save
from ferrum.cli.terminal import printable, warnings_told
from ferrum.errors import ModelWarning, warn
from ferrum.sampling_params import SamplingParams
from tests.cli.conftest import Invoke, command, environment, run
from tests.cli.terminal import Terminal

EVIL = "\x1b]0;title\x07\x1b[2J\u202etxt\x9b31m\r\b\0"


@pytest.mark.clause("CLI-85")
def test_everything_invisible_is_written_out() -> None:
    assert printable("é 日本 🦜\tb\n") == "é 日本 🦜\tb\n"
    assert printable(EVIL).isprintable() and printable("\x1b[2J\u202e") == "\\x1b[2J\\u202e"
    assert printable("\ud800") == "\\ud800"


@pytest.mark.clause("CLI-85")
def test_names_of_files_and_in_files_are_written_out(tiny: Path, tmp_path: Path, invoke: Invoke) -> None:
    model = tmp_path / ("evil" + EVIL.replace("\0", ""))
    model.mkdir()
    for file in tiny.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    stored = (model / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", stored[:8])[0]
    header = json.loads(stored[8 : 8 + length])
    header["evil" + EVIL] = header.pop("model.norm.weight")
    text = json.dumps(header).encode()
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + stored[8 + length :])
    (model / "config.json").write_text(json.dumps(json.loads((tiny / "config.json").read_text())))
    for arguments in (["inspect", "--tensors", model], ["generate", "-m", model, "Hi"], ["pull", model], ["models"]):
        result = invoke(*arguments)
        told = result.stderr if arguments[0] == "pull" else result.output
        assert printable(told) == told, arguments  # pull prints the path for programs
    architecture = json.loads((tiny / "config.json").read_text()) | {"architectures": [EVIL]}
    (model / "config.json").write_text(json.dumps(architecture))
    result = invoke("inspect", model)
    assert result.exit_code == 1 and printable(result.stderr) == result.stderr and "\\x1b" in result.stderr


@pytest.mark.clause("CLI-86")
def test_an_answer_is_written_out_on_a_terminal_and_raw_elsewhere(tiny: Path) -> None:
    escape = run("tokenize", "-m", tiny, "--ids", "\x1b").stdout.split()[-1]
    bias = ["--logit-bias", f"{escape}=100"]
    asked = ["generate", "-m", tiny, "--backend", "numpy", "--raw", "-n", 3, "--temperature", 0, *bias]
    assert run(*asked, "Hi").stdout == "\x1b\x1b\x1b\n"
    terminal = Terminal(command(*asked, "Hi"), environment())
    assert "\\x1b\\x1b\\x1b" in terminal.expect("tokens at")
    terminal.end()
    assert "\x1b\x1b" not in terminal.screen


@pytest.mark.clause("CLI-03", "FILES-01")
@pytest.mark.parametrize("flag", [["-f", "/dev/zero"], ["-f", "/dev/urandom"]])
def test_a_prompt_without_end_is_refused(generate: Invoke, flag: list[str]) -> None:
    result = generate(*flag)
    assert result.exit_code == 2 and "that is no prompt" in result.stderr


@pytest.mark.clause("CLI-61", "FILES-02")
def test_a_conversation_that_cannot_be_written_leaves_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, older = tmp_path / "talk.json", Conversation(SamplingParams()).asked("Hi").answered("Hello")
    save(older, path, "model")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            save(older.asked("And?"), path, "model")
    assert load(path, SamplingParams()) == older and os.listdir(tmp_path) == ["talk.json"]
    save(older.asked("And?"), path, "model")  # once there is room
    assert load(path, SamplingParams()).unanswered == "And?"


@pytest.mark.clause("LOAD-53")
@pytest.mark.clause("CLI-87")
def test_a_warning_is_one_line_and_comes_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(ModelWarning, match="a key"):
        warn("a key is passed over")
    with warnings_told():
        for _ in range(3):
            warn("a key \x1b[2J is\npassed over")
    told = capsys.readouterr()
    assert told.out == "" and told.err == "warning: a key \\x1b[2J is passed over\n"


ANSWERS = ["🦜", "日本", "é", "naïve £5 – “quoted”", "plain"]


@pytest.mark.clause("CLI-88")
@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp437", "koi8-r", "shift_jis", "ascii", "utf-8", "utf-16"])
def test_an_encoding_that_lacks_a_character_loses_nothing(encoding: str) -> None:
    told = "utf-8" if encoding == "ascii" else encoding
    script = f"""if True:
        import click
        from ferrum.cli.terminal import as_json, say, settle_encoding
        settle_encoding()
        for text in {ANSWERS!a}:
            say(text + chr(10))
            click.echo(as_json([text]))
            click.echo(text, err=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment() | {"PYTHONIOENCODING": encoding}, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode(told).splitlines()
    assert [json.loads(line) for line in lines[1::2]] == [[text] for text in ANSWERS]
    for line, other, text in zip(lines[::2], done.stderr.decode(told).splitlines(), ANSWERS, strict=True):
        assert line == other == text.encode(told, "backslashreplace").decode(told)


@pytest.mark.clause("CLI-88")
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
def test_commands_do_not_fail_for_want_of_a_character(tiny: Path, encoding: str) -> None:
    half = run("tokenize", "-m", tiny, "--ids", "🦜").stdout.split()[-1]  # by itself it is U+FFFD
    narrow = environment() | {"PYTHONIOENCODING": encoding}
    flags = ["-m", tiny, "--backend", "numpy", "-n", 2, "--logit-bias", f"{half}=100", "--temperature", 0]

    def told(*arguments: object) -> str:
        done = subprocess.run(command(*arguments), input="🦜\n\n🦜\n".encode(), env=narrow, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    bird, answer = ("🦜", "\ufffd\ufffd") if encoding == "ascii" else ("\\U0001f99c", "\\ufffd\\ufffd")
    assert told("generate", *flags, "--parallel") == "\n".join(2 * [f">>> {bird}\n{answer}\n"])
    assert told("generate", *flags) == f"{answer}\n"
    assert json.loads(told("generate", *flags, "--json"))["text"] == "\ufffd\ufffd"
    assert told("chat", *flags) == 2 * f"{answer}\n"


@pytest.mark.clause("CLI-89")
@pytest.mark.parametrize("kind", ["dumb", "unknown", "", None, "xterm"])
def test_only_terminals_that_obey_them_get_escape_sequences(tiny: Path, kind: str | None) -> None:
    arguments = ["generate", "-m", tiny, "--backend", "numpy", "--temperature", 0, "-n", 4, "Hi"]
    with Terminal(command(*arguments), environment(), kind=kind) as terminal:
        code, shown = terminal.end()
    assert code == 0 and ("\x1b" in shown) == (kind == "xterm")


@pytest.mark.clause("CLI-17")
def test_what_waits_on_standard_input_is_told_of_and_left_there(tiny: Path, tmp_path: Path) -> None:
    asked = command("generate", "-m", tiny, "--backend", "numpy", "--temperature", 0, "-n", 2, "Hi")
    file = tmp_path / "lines.txt"
    file.write_text("one\ntwo\n")

    def notes(stdin: object) -> int:
        done = subprocess.run(asked, stdin=stdin, capture_output=True, text=True, env=environment())  # type: ignore[call-overload]
        assert done.returncode == 0, done.stderr
        return int(done.stderr.count("note: standard input is not read"))

    read, write = os.pipe()
    with open(read, "rb") as pipe:
        assert notes(pipe) == 0  # empty, and still open
        os.write(write, b"SECRET")
        assert notes(pipe) == 1
        os.close(write)
        assert pipe.read() == b"SECRET"
        assert notes(pipe) == 0  # empty and closed
    with file.open("rb") as opened:
        assert notes(opened) == 1 and opened.read() == b"one\ntwo\n"
    with file.open("rb") as opened:
        opened.seek(0, os.SEEK_END)
        assert notes(opened) == 0
    assert notes(subprocess.DEVNULL) == 0
