"""CLI-10 to CLI-16: every error ends in one line on stderr and the right exit code."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from ferrum.cli.errors import Program
from ferrum.cli.options import debug_option
from ferrum.engine.output import OutputText
from ferrum.errors import InvalidParameter, NotFound, TokenizerError
from tests.cli.conftest import CONFIG, CONTEXT, Invoke, command, environment
from tests.processes import end_with_the_tests

NO_CUPY = pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed here")


def assert_one_line(result: Result, code: int, *words: str) -> None:
    """Checks the exit code, that stdout is empty, and that stderr is one line with these words."""
    assert (result.exit_code, result.stdout) == (code, ""), result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


def gguf(metadata: dict[str, str]) -> bytes:
    """A GGUF file of text metadata and no tensors."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    entries = b"".join(text(key) + struct.pack("<I", 8) + text(value) for key, value in metadata.items())
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(metadata)) + entries


def write(content: bytes) -> Callable[[Path, Path], Path]:
    """A maker of a .gguf file with this content."""

    def make(folder: Path, _tiny: Path) -> Path:
        path = folder / "broken.gguf"
        path.write_bytes(content)
        return path

    return make


def changed(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path, Path], Path]:
    """A maker of a copy of the tiny model with one file changed."""

    def make(folder: Path, tiny: Path) -> Path:
        copy = Path(shutil.copytree(tiny, folder / "broken"))
        (copy / name).write_bytes(change((copy / name).read_bytes()))
        return copy

    return make


def configured(**entries: object) -> Callable[[Path, Path], Path]:
    """A maker of a copy of the tiny model with other entries in its configuration."""
    return changed("config.json", lambda _: json.dumps({**CONFIG, **entries}).encode())


BAD_MODELS = {
    "a missing file": (lambda folder, _: folder / "nothing.gguf", "does not exist"),
    "a missing folder": (lambda folder, _: f"{folder}/none/", "does not exist"),
    "an empty folder": (lambda folder, _: folder, "config.json"),
    "an empty file": (write(b""), "empty"),
    "wrong magic": (write(b"GGML" + bytes(64)), "GGUF"),
    "a truncated header": (write(b"GGUF\x03\x00"), "ends inside"),
    "truncated metadata": (write(gguf({"general.architecture": "llama"})[:-3]), "ends inside"),
    "an unknown GGUF architecture": (write(gguf({"general.architecture": "mamba"})), "mamba"),
    "malformed config.json": (changed("config.json", lambda text: text[:-1]), "config.json"),
    "an unknown model type": (configured(model_type="mamba", architectures=["MambaForCausalLM"]), "Mamba"),
    "a configuration of the wrong type": (configured(num_hidden_layers="two"), "num_hidden_layers"),
    "truncated safetensors": (changed("model.safetensors", lambda data: data[: len(data) // 2]), "model.safetensors"),
    "a missing tensor": (configured(num_hidden_layers=3), "missing"),
    "a malformed tokenizer": (changed("tokenizer.json", lambda _: b"{}"), "tokenizer.json"),
    "a malformed chat template": (
        changed("tokenizer_config.json", lambda _: b'{"chat_template": "{% if %}"}'),
        "template",
    ),
}


@pytest.mark.clause("CLI-10")
@pytest.mark.clause("CLI-11")
@pytest.mark.parametrize("case", BAD_MODELS)
def test_bad_models(generate: Invoke, tiny: Path, tmp_path: Path, case: str) -> None:
    make, word = BAD_MODELS[case]
    assert_one_line(generate("Hi", model=make(tmp_path, tiny)), 1, word)


@pytest.mark.clause("CLI-10")
@pytest.mark.clause("CLI-11")
@pytest.mark.parametrize("case", ["a missing file", "wrong magic", "truncated metadata", "malformed config.json"])
def test_bad_models_to_describe(invoke: Invoke, tiny: Path, tmp_path: Path, case: str) -> None:
    make, word = BAD_MODELS[case]
    assert_one_line(invoke("inspect", make(tmp_path, tiny), "--json"), 1, word)


@pytest.mark.clause("CLI-10")
@pytest.mark.clause("CLI-11")
@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["Hi", "-m", "smollm3"], 1, "smollm3"),
        (["Hi", "-m", "smollm2-135m-instruc"], 1, "did you mean smollm2-135m-instruct"),
        (["Hi", "--backend", "abacus"], 1, "abacus"),
        (["Hi", "--backend", "abacus:Beads"], 1, "abacus"),
        pytest.param(["Hi", "--backend", "cupy"], 1, "cupy", marks=NO_CUPY),
        (["Hi", "--dtype", "int3"], 2, "--dtype"),
        (["x" * (CONTEXT + 1), "--raw"], 1, str(CONTEXT)),
        (["Hi", "--frequency"], 2, "--frequency"),
        (["Hi", "there"], 2, "there"),
        (["Hi", "--top-k", "many"], 2, "many"),
        (["Hi", "--seed"], 2, "--seed"),
        ([""], 2, "empty"),
        ([], 2, "empty"),
        (["-"], 2, "empty"),
        (["-f", "no/such/file"], 2, "no/such/file"),
        (["Hi", "--parallel", "-f", __file__], 2, "twice"),
        (["-", "--parallel", "-f", __file__], 2, "twice"),
    ],
)
def test_bad_arguments(generate: Invoke, arguments: list[str], code: int, word: str) -> None:
    assert_one_line(generate(*arguments), code, word)


@pytest.mark.clause("CLI-11")
def test_text_that_is_not_utf8(generate: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "latin1.txt"
    file.write_bytes("café".encode("latin-1"))
    assert_one_line(generate("-f", file), 2, "latin1.txt", "UTF-8", "byte 3")
    assert_one_line(generate("-", input=b"ab\xff"), 2, "standard input", "byte 2")


@pytest.mark.clause("CLI-16")
@pytest.mark.parametrize(
    ("flag", "value", "field"),
    [
        ("--top-p", "2", "top_p"),
        ("--top-p", "0", "top_p"),
        ("--min-p", "-1", "min_p"),
        ("--top-k", "-2", "top_k"),
        ("--temperature", "-1", "temperature"),
        ("--temp", "nan", "temperature"),
        ("--max-tokens", "0", "max_tokens"),
        ("--stop", "", "stop"),
        ("--threads", "0", "threads"),
        ("--block-size", "0", "block_size"),
        ("--max-model-len", "-5", "max_model_len"),
        ("--max-model-len", str(CONTEXT + 1), "max_model_len"),
        ("--kv-memory", "lots", "kv_memory"),
        ("--kv-memory", "1B", "kv_memory"),
    ],
)
def test_a_value_out_of_range_names_its_flag(generate: Invoke, flag: str, value: str, field: str) -> None:
    named = {"--temp": "--temperature"}.get(flag, flag)
    assert_one_line(generate("Hi", flag, value), 2, f"error: {named}: {field} ")


@pytest.mark.clause("CLI-22")
@pytest.mark.parametrize("flag", ["--best-of=1", "--beam-width=2", "--prompt-logprobs=3"])
def test_flags_that_do_not_exist_are_not_accepted(generate: Invoke, flag: str) -> None:
    assert_one_line(generate("Hi", flag), 2, flag.partition("=")[0])


@pytest.mark.clause("CLI-10")
@pytest.mark.parametrize("after", [0, 2])
def test_an_answer_that_fails_on_its_way(generate: Invoke, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    pushed: list[int] = []
    push = OutputText.push

    def fail(self: OutputText, token: int, **more: bool) -> object:
        pushed.append(token)
        if len(pushed) > after:
            raise TokenizerError("no text for this token")
        return push(self, token, **more)

    monkeypatch.setattr(OutputText, "push", fail)
    result = generate("Hi", "--no-stream")
    assert result.exit_code == 1
    assert result.stderr == "error: no text for this token\n"


@pytest.mark.clause("CLI-10")
def test_an_unknown_command(invoke: Invoke) -> None:
    assert_one_line(invoke("sing"), 2, "sing", "--help")


def failing(error: BaseException) -> Program:
    """A program whose one command prints and then fails."""

    @click.group(cls=Program)
    def group() -> None:
        pass

    @group.command()
    @click.option("--size", type=int)
    @debug_option
    def fail(size: int | None) -> None:
        raise error

    return group


@pytest.mark.clause("CLI-12")
@pytest.mark.clause("CLI-15")
@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (NotFound("no\n  such thing"), 1, "error: no such thing\n"),
        (InvalidParameter("size", "is odd"), 2, "error: --size: size is odd\n"),
        (InvalidParameter("shape", "is odd"), 2, "error: shape is odd\n"),
        (ZeroDivisionError("oops"), 1, "error: internal error: ZeroDivisionError: oops; run with --debug for the"),
        (MemoryError(), 1, "error: out of memory; a smaller --max-model-len"),
        (PermissionError(13, "Permission denied", "/x"), 1, "error: Permission denied: /x\n"),
        (KeyboardInterrupt(), 130, "\n"),
    ],
)
def test_what_each_kind_of_failure_says(error: BaseException, code: int, line: str) -> None:
    result = CliRunner().invoke(failing(error), ["fail"])
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(line) and result.stderr.count("\n") == 1


@pytest.mark.clause("CLI-12")
def test_debug_shows_the_traceback_first() -> None:
    result = CliRunner().invoke(failing(ZeroDivisionError("oops")), ["fail", "--debug"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Traceback (most recent call last)")
    assert result.stderr.splitlines()[-1].startswith("error: internal error: ZeroDivisionError: oops")


def start(tiny: Path, *arguments: object) -> subprocess.Popen[bytes]:
    """Starts `generate` on the tiny model, and returns at its first byte of output. A long answer would follow."""
    process = subprocess.Popen(
        command("generate", "-m", tiny, "--backend", "numpy", "--raw", "-n", 200, *arguments, "Hi"),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
        preexec_fn=end_with_the_tests,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.read(1)
    return process


@pytest.mark.clause("CLI-13")
def test_an_interrupt_ends_with_130(tiny: Path) -> None:
    process = start(tiny)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.strip()) == (130, b"")


@pytest.mark.clause("CLI-14")
def test_a_reader_that_leaves_is_no_failure(tiny: Path) -> None:
    process = start(tiny)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    assert (process.wait(timeout=60), errors) == (0, b"")


@pytest.mark.clause("CLI-11")
def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(command("models"), stdout=full, stderr=subprocess.PIPE, env=environment(), timeout=60)
    assert (ran.returncode, ran.stderr) == (1, b"error: No space left on device\n")
