"""CLI-80 to CLI-83: the tokens of a text."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path

import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st

from ferrum.cli.tokenize import quoted
from ferrum.load.safetensors import SafetensorsSource
from tests.cli.conftest import VOCAB, Invoke, byte_tokenizer
from tests.cli.test_cli_startup import imported

END = VOCAB - 1  # "<|end|>"


def ids(text: str) -> list[int]:
    return list(byte_tokenizer().encode(text, add_special_tokens=False).ids)


@pytest.fixture(scope="module")
def surrounded(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """The tiny model with a tokenizer that puts a special token in front of a raw prompt."""
    folder = Path(shutil.copytree(tiny, tmp_path_factory.mktemp("models") / "surrounded"))
    tokenizer = byte_tokenizer()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", END)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.clause("CLI-80")
def test_one_line_per_token(invoke: Invoke, tiny: Path) -> None:
    result = invoke("tokenize", "-m", tiny, "a é\n<|end|>")
    assert result.exit_code == 0
    assert result.stderr == "6 tokens\n"
    assert [line.split(maxsplit=1) for line in result.stdout.splitlines()] == [
        [str(ids("a")[0]), '"a"'],
        [str(ids(" ")[0]), '" "'],
        [str(ids("é")[0]), r'"\xc3"'],
        [str(ids("é")[1]), r'"\xa9"'],
        [str(ids("\n")[0]), r'"\n"'],
        [str(END), '"<|end|>"  special'],
    ]
    assert invoke("tokenize", "-m", tiny, "a").stderr == "1 token\n"


@pytest.mark.clause("CLI-80")
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b" the", '" the"'),
        (b"\r\n\t", r'"\r\n\t"'),
        ("é日😀".encode(), '"é日😀"'),
        (b"\xe2\x80", r'"\xe2\x80"'),
        (b"a\xff\\xff", r'"a\xff\\xff"'),  # a byte, and text that looks like one
        (b'"', r'"\""'),
        (b"\x1b[31m\x00", r'"\u001b[31m\u0000"'),
        ("\u00a0\u202e\U000e0067".encode(), r'"\u00a0\u202e\U000e0067"'),
        (b"", '""'),
    ],
)
def test_quoting(content: bytes, expected: str) -> None:
    assert quoted(content) == expected


@pytest.mark.clause("CLI-80")
@given(st.one_of(st.binary(), st.text().map(str.encode)))
@example("\u2028\x85\u200b".encode())
def test_a_quoted_piece_is_one_harmless_line(content: bytes) -> None:
    text = quoted(content)
    assert text.isprintable() and len(text.splitlines()) == 1
    assert not any(unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") for character in text)


@pytest.mark.clause("CLI-80")
@given(st.lists(st.one_of(st.binary(max_size=4), st.text(max_size=4).map(str.encode)), max_size=2, min_size=2))
def test_different_pieces_look_different(pieces: list[bytes]) -> None:
    first, second = pieces
    assert (quoted(first) == quoted(second)) == (first == second)


@pytest.mark.clause("CLI-03")
@pytest.mark.clause("CLI-81")
def test_the_text_comes_from_anywhere(invoke: Invoke, tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("héllo\n", encoding="utf-8")
    for arguments, given_input in [(["héllo"], None), (["-f", file], None), (["-"], "héllo\n"), ([], "héllo")]:
        result = invoke("tokenize", "-m", tiny, "--ids", *arguments, input=given_input)
        assert result.stdout == " ".join(map(str, ids("héllo"))) + "\n"


@pytest.mark.clause("CLI-81")
@pytest.mark.parametrize("flags", [[], ["--chat"]])
def test_the_tokens_are_those_of_generate(invoke: Invoke, surrounded: Path, flags: list[str]) -> None:
    shown = invoke("tokenize", "-m", surrounded, "--ids", "a<|end|>b", *flags).stdout.split()
    raw = [] if flags else ["--raw"]
    generated = invoke("generate", "-m", surrounded, "--backend", "numpy", "-n", 1, "--json", *raw, "a<|end|>b")
    assert list(map(int, shown)) == json.loads(generated.stdout)["prompt_token_ids"]


@pytest.mark.clause("CLI-81")
def test_special_tokens_around_the_text(invoke: Invoke, surrounded: Path) -> None:
    def shown(*flags: str) -> list[int]:
        return list(map(int, invoke("tokenize", "-m", surrounded, "--ids", "ab", *flags).stdout.split()))

    assert shown() == shown("--special") == [END, *ids("ab")]
    assert shown("--no-special") == ids("ab")
    assert shown("--chat") == ids("<user>ab<answer>")


@pytest.mark.clause("CLI-82")
def test_json(invoke: Invoke, tiny: Path) -> None:
    result = invoke("tokenize", "-m", tiny, "--json", "é<|end|>")
    assert (result.exit_code, result.stderr, result.stdout.count("\n")) == (0, "", 1)
    first, second = ids("é")
    assert json.loads(result.stdout) == {
        "model": "tiny",
        "token_ids": [first, second, END],
        "pieces": [
            {"id": first, "text": "\ufffd", "bytes": "c3", "special": False},
            {"id": second, "text": "\ufffd", "bytes": "a9", "special": False},
            {"id": END, "text": "<|end|>", "bytes": b"<|end|>".hex(), "special": True},
        ],
        "count": 3,
    }


@pytest.mark.clause("CLI-82")
def test_ids_only(invoke: Invoke, tiny: Path) -> None:
    result = invoke("tokenize", "-m", tiny, "--ids", "ab")
    assert (result.stdout, result.stderr) == (" ".join(map(str, ids("ab"))) + "\n", "")


@pytest.mark.clause("CLI-10")
@pytest.mark.clause("CLI-11")
@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--ids", "--json", "a"], 2, "--json"),
        (["--chat", "--special", "a"], 2, "--chat"),
        (["--chat", "--no-special", "a"], 2, "--chat"),
        ([""], 2, "empty"),
        (["-f", "no/such/file", "a"], 2, "no/such/file"),
        (["--chat", "a"], 1, "plain has no chat template"),
        (["-m", "no/such/place", "--offline", "a"], 1, "no/such/place"),
    ],
)
def test_every_mistake_is_one_line(invoke: Invoke, plain: Path, flags: list[str], code: int, words: str) -> None:
    result = invoke("tokenize", "-m", plain, *flags)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert words in result.stderr


@pytest.mark.clause("CLI-83")
def test_no_weight_is_read(invoke: Invoke, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(SafetensorsSource, "weight", refuse)
    monkeypatch.setattr(SafetensorsSource, "vector", refuse)
    assert invoke("tokenize", "-m", tiny, "a").exit_code == 0


@pytest.mark.clause("CLI-24")
@pytest.mark.clause("CLI-83")
def test_no_backend_is_imported(tiny: Path) -> None:
    found = imported("tokenize", "-m", tiny, "a")
    assert "ferrum.text.tokenizer" in found
    unneeded = {"numba", "llvmlite", "jinja2", "ferrum.engine.llm", "ferrum.cli.generate", "ferrum.cli.models"}
    assert not found & unneeded
    assert not any(name.startswith("ferrum.backends.") for name in found)


@pytest.mark.clause("CLI-81")
def test_the_real_model(invoke: Invoke, smollm2_path: Path) -> None:
    described = json.loads(invoke("tokenize", "-m", smollm2_path, "--json", "What is the capital of France?").stdout)
    pieces = [piece["text"] for piece in described["pieces"]]
    assert pieces == ["What", " is", " the", " capital", " of", " France", "?"]
    assert described["count"] == 7
