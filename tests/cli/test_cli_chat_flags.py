"""CLI-90 to CLI-92: variables of the command line for a chat template, and answers with a given beginning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.cli.chat_flags import Variable
from tests.cli.conftest import Invoke, write_model

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if not loop.last %}.{% endif %}{% endfor %}"
    "{{ tools | tojson if tools }}{{ x | tojson if x is defined }}{{ '<answer>' if add_generation_prompt }}"
)
TOOLS: list[dict[str, Any]] = [{"type": "function", "function": {"name": "f"}}, {}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "own", template=TEMPLATE)


def prompts(generate: Invoke, model: Path, *arguments: object, input: str | None = None) -> list[str]:
    result = generate(*arguments, "--json", model=model, input=input)
    assert result.exit_code == 0, result.output
    assert "warning" not in result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return [spelt(line["prompt_token_ids"]) for line in lines]


def spelt(ids: list[int]) -> str:
    """The tiny model has a token for each byte, in the order of the alphabet of byte-level BPE."""
    from tests.cli.conftest import byte_tokenizer

    return byte_tokenizer().decode(ids)


@pytest.mark.clause("CLI-90")
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("false", "false"),
        ("null", "null"),
        ("5", "5"),
        ('"a b"', '"a b"'),
        ("a b", '"a b"'),
        ("", '""'),
        ("a=b", '"a=b"'),
        ('{"a": [1, null]}', '{"a": [1, null]}'),
        ("{", '"{"'),
        ("NaN", '"NaN"'),
        ("True", '"True"'),
    ],
)
def test_variables_of_the_template(generate: Invoke, model: Path, value: str, shown: str) -> None:
    assert prompts(generate, model, "Hi", "--template-arg", f"x={value}") == [f"<user>Hi{shown}<answer>"]


@pytest.mark.clause("CLI-90")
@given(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()))
def test_any_value_in_json(name: str, value: Any) -> None:
    name = name.replace("=", "") or "x"
    assert Variable().convert(f"{name}={json.dumps(value)}", None, None) == (name, value)


@pytest.mark.clause("CLI-90")
def test_the_last_of_the_same_name_counts(generate: Invoke, model: Path) -> None:
    assert prompts(generate, model, "Hi", "--template-arg", "x=1", "--template-arg", "x=2") == ["<user>Hi2<answer>"]


@pytest.mark.clause("CLI-91")
def test_tools_come_from_the_argument_or_a_file(generate: Invoke, model: Path, tmp_path: Path) -> None:
    text, file = json.dumps(TOOLS), tmp_path / "tools.json"
    file.write_text("\ufeff" + json.dumps(TOOLS, indent=1) + "\n")
    for given_tools in (text, f"@{file}"):
        assert prompts(generate, model, "Hi", "--tools", given_tools) == [f"<user>Hi{text}<answer>"]
    assert prompts(generate, model, "Hi", "--tools", "[]") == ["<user>Hi<answer>"]


@pytest.mark.clause("CLI-90", "CLI-91")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--tools", "{"), "--tools"),
        (("--tools", "{}"), "list of objects"),
        (("--tools", "[1]"), "list of objects"),
        (("--tools", "[NaN]"), "not JSON"),
        (("--tools", "[" * 100_000), "--tools"),
        (("--tools", "@/no/such/file"), "cannot be read"),
        (("--template-arg", "x"), "NAME=VALUE"),
        (("--template-arg", "=x"), "NAME=VALUE"),
        (("--template-arg", "tools=[]"), "--template-arg: chat_template_kwargs cannot have 'tools'"),
        (("--template-arg", "messages=[]"), "cannot have 'messages'"),
        (("--raw", "--tools", "[]"), "--tools needs the chat template"),
        (("--raw", "--template-arg", "x=1"), "--template-arg needs the chat template"),
        (("--raw", "--continue"), "--continue needs the chat template"),
    ],
    ids=str,
)
def test_what_is_wrong_with_the_flags(generate: Invoke, model: Path, arguments: tuple[str, ...], says: str) -> None:
    result = generate("Hi", *arguments, model=model)
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.clause("CLI-90")
def test_flags_that_have_no_place_are_told(generate: Invoke, tiny: Path, plain: Path) -> None:
    result = generate("Hi", "--tools", "[{}]", "--template-arg", "y=1", model=tiny)
    assert result.exit_code == 0
    assert [line for line in result.stderr.splitlines() if line.startswith("warning: ")] == [
        f"warning: the chat template of {tiny.name} does not read 'tools', 'y': what is given for it changes nothing"
    ]
    for flags in (("--tools", "[]"), ("--template-arg", "y=1"), ("--continue", "a")):
        result = generate("Hi", *flags, model=plain)
        assert result.exit_code == 1 and f"{flags[0]} has no place" in result.stderr


@pytest.mark.clause("CLI-92")
@pytest.mark.parametrize(
    ("arguments", "input", "prompt"),
    [
        (("Hi", "--continue", "It is"), None, "<user>Hi.<assistant>It is"),
        (("--continue", "It is", "Hi"), None, "<user>Hi.<assistant>It is"),
        (("Hi", "-s", "S", "--continue", "It is "), None, "<system>S.<user>Hi.<assistant>It is "),
        (("It is", "--continue"), None, "<assistant>It is"),
        (("--continue", "It is"), "", "<assistant>It is"),
        (("--continue", "It is"), "Hi\n", "<user>Hi.<assistant>It is"),
        (("--continue", "It is", "-s", "S"), "", "<system>S.<assistant>It is"),
        (("-f", "-", "--continue"), "It is", "<assistant>It is"),
    ],
)
def test_an_answer_that_is_begun(
    generate: Invoke, model: Path, arguments: tuple[str, ...], input: str | None, prompt: str
) -> None:
    assert prompts(generate, model, *arguments, input=input) == [prompt]


@pytest.mark.clause("CLI-92")
def test_every_line_with_the_same_beginning(generate: Invoke, model: Path) -> None:
    found = prompts(generate, model, "a\nb", "--continue", "It is", "--parallel")
    assert found == ["<user>a.<assistant>It is", "<user>b.<assistant>It is"]
    assert prompts(generate, model, "a\nb", "--continue", "--parallel") == ["<assistant>a", "<assistant>b"]


@pytest.mark.clause("CLI-92")
def test_a_chat_begins_with_more_of_the_last_answer(invoke: Invoke, model: Path, tmp_path: Path) -> None:
    file, saved = tmp_path / "chat.json", tmp_path / "saved.json"
    file.write_text(
        json.dumps({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "H"}]})
    )
    flags = ["-m", model, "--backend", "numpy", "-n", 4, "--temperature", 0, "--tools", "[{}]"]
    result = invoke("chat", "--load", file, "--continue", *flags, input=f"/save {saved}\n")
    assert result.exit_code == 0, result.output
    answer = json.loads(saved.read_text())["messages"][-1]["content"]
    again = invoke("generate", "Hi", "--continue", "H", *flags, "--no-stream")
    assert answer == "H" + again.stdout.removesuffix("\n")
    assert answer.removeprefix("H") in result.stdout


@pytest.mark.clause("CLI-92")
def test_there_must_be_an_answer_to_go_on_with(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("chat", "--continue", "-m", tmp_path / "no model")
    assert result.exit_code == 2 and "--load" in result.stderr
    file = tmp_path / "chat.json"
    for messages in ([], [{"role": "user", "content": "Hi"}]):
        file.write_text(json.dumps({"messages": messages}))
        result = invoke("chat", "--continue", "--load", file, "-m", tmp_path / "no model")
        assert result.exit_code == 1 and "no answer yet" in result.stderr


@pytest.mark.clause("CLI-90")
@pytest.mark.parametrize("command", ["generate", "chat"])
def test_help_tells_of_the_flags(invoke: Invoke, command: str) -> None:
    told = invoke(command, "--help").stdout
    assert all(flag in told for flag in ("--tools", "--template-arg NAME=VALUE", "--continue"))
