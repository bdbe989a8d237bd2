"""CLI-85 to CLI-87: what a terminal is shown of texts that somebody else has written."""

from __future__ import annotations

import json
import os
import struct
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
