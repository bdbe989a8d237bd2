"""CLI-01 to CLI-09: what `generate` reads and writes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ferrum.backends import registry
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.cli.generate import show
from ferrum.cli.loading import load
from ferrum.cli.options import EngineOptions
from ferrum.cli.terminal import Progress
from ferrum.types import StreamChunk
from tests.cli.conftest import Invoke, byte_tokenizer, command, environment, run


def ids(text: str) -> list[int]:
    return list(byte_tokenizer().encode(text).ids)


@pytest.mark.clause("CLI-01")
def test_text_to_stdout_and_the_rest_to_stderr(generate: Invoke) -> None:
    told = json.loads(generate("Hi", "--seed", 3, "--json").stdout)
    result = generate("Hi", "--seed", 3)
    assert result.exit_code == 0
    assert result.stdout == told["text"] + "\n"
    assert result.stderr.startswith("seed 3 · ") and result.stderr.count("\n") == 1
    assert "5 tokens at" in result.stderr and f"{len(told['prompt_token_ids'])} prompt tokens at" in result.stderr


@pytest.mark.clause("CLI-02")
def test_every_piece_is_written_before_the_next_is_made(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    written: list[bytes] = []

    def stream() -> Iterator[StreamChunk]:
        for token, piece in enumerate(["one", " two", "", " three"]):
            yield StreamChunk(piece, token)
            written.append(capfdbinary.readouterr().out)

    show(stream(), Progress(), silent=False, whole=False)  # type: ignore[arg-type]  # any iterator will do
    assert written == [b"one", b" two", b"", b" three"]
    assert capfdbinary.readouterr().out == b"\n"


@pytest.mark.clause("CLI-02")
def test_without_streaming_the_text_is_the_same(generate: Invoke) -> None:
    assert generate("Hi", "--seed", 3, "--no-stream").stdout == generate("Hi", "--seed", 3).stdout


@pytest.mark.clause("CLI-03")
@pytest.mark.parametrize("content", ["héllo", "héllo\n", "héllo\r\n"])
def test_the_prompt_comes_from_anywhere(generate: Invoke, tmp_path: Path, content: str) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes(content.encode())
    for result in [
        generate("héllo", "--raw", "--json"),
        generate("-f", file, "--raw", "--json"),
        generate("-", "--raw", "--json", input=content.encode()),
        generate("--raw", "--json", input=content.encode()),
    ]:
        assert json.loads(result.stdout)["prompt_token_ids"] == ids("héllo")


@pytest.mark.clause("CLI-03")
def test_only_one_newline_is_taken_off(generate: Invoke) -> None:
    result = generate("-", "--raw", "--json", input="a\n\n")
    assert json.loads(result.stdout)["prompt_token_ids"] == ids("a\n")


@pytest.mark.clause("CLI-03")
def test_an_argument_stands_behind_a_file(generate: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("one\ntwo\n")
    for result in [
        generate("-f", file, "what?", "--raw", "--json"),
        generate("-f", "-", "what?", "--raw", "--json", input=file.read_text()),
    ]:
        assert json.loads(result.stdout)["prompt_token_ids"] == ids("one\ntwo\n\nwhat?")
    alone = generate("-f", "-", "--raw", "--json", input="\ufeffone\n")
    assert json.loads(alone.stdout)["prompt_token_ids"] == ids("one")
    file.write_text("\n")
    assert json.loads(generate("-f", file, "what?", "--raw", "--json").stdout)["prompt_token_ids"] == ids("what?")
    twice = generate("-f", file, "what?", "--parallel")
    assert (twice.exit_code, twice.stdout) == (2, "") and "given twice" in twice.stderr


@pytest.mark.clause("CLI-03")
def test_a_byte_order_mark_is_not_part_of_the_prompt(generate: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes("\ufeffa\ufeffb\n".encode())
    for result in [
        generate("-f", file, "--raw", "--json"),
        generate("--raw", "--json", input=file.read_bytes()),
        generate("-f", file, "--raw", "--json", "--parallel"),
    ]:
        assert json.loads(result.stdout)["prompt_token_ids"] == ids("a\ufeffb")  # elsewhere it is a character
    wrong = generate("--raw", input=b"\xef\xbb\xbfa\xff")
    assert wrong.exit_code == 2 and "byte 4 is 0xff" in wrong.stderr


@pytest.mark.clause("CLI-04")
def test_json_is_one_object_with_these_fields(generate: Invoke, tiny: Path) -> None:
    result = generate("Hi", "--json", "--seed", 0)
    answer = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    timings, usage = answer.pop("timings"), answer.pop("usage")
    assert set(timings) == {"load_s", "ttft_s", "prefill_tok_s", "decode_tok_s", "peak_rss_bytes"}
    assert all(value > 0 for value in timings.values())
    assert 10e6 < timings["peak_rss_bytes"] < 100e9
    assert usage == {"prompt_tokens": len(answer["prompt_token_ids"]), "completion_tokens": 5}
    assert len(answer.pop("token_ids")) == 5
    assert answer.pop("prompt_token_ids") == ids("<user>Hi<answer>")
    assert isinstance(answer.pop("text"), str)
    assert answer == {"model": tiny.name, "backend": "numpy", "dtype": "float32", "seed": 0, "finish_reason": "length"}


@pytest.mark.clause("CLI-05")
def test_progress_is_seen_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, expected in [(io.StringIO(), ""), (Terminal(), "\r\x1b[2Kloading x\r\x1b[2K")]:
        monkeypatch.setattr(sys, "stderr", stream)
        progress = Progress()
        with progress.during("loading x"):
            pass
        progress.clear()  # nothing is shown any more, so nothing may be wiped
        assert stream.getvalue() == expected
        assert (progress.download("x") is None) == (not stream.isatty())
        progress.end()
        progress.show("while the answer is written")
        assert stream.getvalue() == expected


@pytest.mark.clause("CLI-05")
def test_compiling_is_announced(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(Progress, "show", lambda _, text: shown.append(text))
    monkeypatch.setattr(NumpyOps, "on_compile", lambda _, listener: listener("rms norm"))
    options = EngineOptions(
        str(tiny), "numpy", "auto", "float32", None, None, 16, "1MiB", "0", "fifo", "lru", True, False, True
    )
    load(options, Progress())
    assert shown == [f"loading {tiny}", "compiling rms norm"]


@pytest.mark.clause("CUDA-66")
@pytest.mark.parametrize(("asked", "told"), [("auto", True), ("numpy", False)])
def test_a_gpu_that_was_not_named_is_announced(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, asked: str, told: bool
) -> None:
    """The message comes if `auto` chooses a backend that is not on the host. In the test the oracle stands for one."""
    notes: list[str] = []
    monkeypatch.setattr(Progress, "note", lambda _, text: notes.append(text))
    monkeypatch.setattr(NumpyOps, "on_host", False)
    monkeypatch.setattr(registry, "_best", lambda _: "numpy")
    options = EngineOptions(
        str(tiny), asked, "auto", "float32", None, None, 16, "1MiB", "0", "fifo", "lru", True, False, True
    )
    load(options, Progress())
    assert notes == (["note: --backend auto takes the GPU: numpy"] if told else [])


@pytest.mark.clause("CLI-18")
@pytest.mark.parametrize(("compute", "dtype", "told"), [("int8", "float32", True), ("int8", "q8_0", False),
                                                        ("float32", "float32", False)])  # fmt: skip
def test_where_nothing_is_rounded_a_note_says_so(generate: Invoke, compute: str, dtype: str, told: bool) -> None:
    result = generate("Hi", "--json", "--compute", compute, "--dtype", dtype)
    note = "note: --compute int8 rounds only what meets quantised weights, and these are float32\n"
    assert result.stderr == (note if told else "")
    assert json.loads(result.stdout)["dtype"] == dtype


@pytest.mark.clause("CLI-06")
def test_the_chat_template_and_how_to_leave_it_out(generate: Invoke, plain: Path) -> None:
    for arguments, prompt in [
        ((), "<user>Hi<answer>"),
        (("-s", "Be brief."), "<system>Be brief.<user>Hi<answer>"),
        (("-s", ""), "<system><user>Hi<answer>"),  # an empty message is a message
        (("--raw",), "Hi"),
    ]:
        result = generate("Hi", "--json", *arguments)
        assert json.loads(result.stdout)["prompt_token_ids"] == ids(prompt)
        assert result.stderr == ""
    without = generate("Hi", "--json", model=plain)
    assert json.loads(without.stdout)["prompt_token_ids"] == ids("Hi")
    assert without.stderr == "note: plain has no chat template; the prompt is continued as it is\n"


@pytest.mark.clause("CLI-06")
def test_a_system_message_without_a_template_is_refused(generate: Invoke, plain: Path) -> None:
    assert generate("Hi", "-s", "Be brief.", "--raw").exit_code == 2
    result = generate("Hi", "-s", "Be brief.", model=plain)
    assert result.exit_code == 1 and "chat template" in result.stderr


@pytest.mark.clause("CLI-07")
def test_defaults_sample_and_the_reported_seed_repeats(generate: Invoke) -> None:
    first = json.loads(generate("Hi", "-n", 20, "--json").stdout)
    again = json.loads(generate("Hi", "-n", 20, "--json", "--seed", first["seed"]).stdout)
    stated = ["--temperature", 0.8, "--top-k", 40, "--top-p", 0.95, "--min-p", 0, "--seed", first["seed"]]
    explicit = json.loads(generate("Hi", "-n", 20, "--json", *stated).stdout)
    assert first["token_ids"] == again["token_ids"] == explicit["token_ids"]
    other = json.loads(generate("Hi", "-n", 20, "--json", "--seed", first["seed"] + 1).stdout)
    assert other["token_ids"] != first["token_ids"]


@pytest.mark.clause("CLI-07")
def test_temperature_zero_is_greedy(generate: Invoke) -> None:
    greedy = [json.loads(generate("Hi", "--temp", 0, "--json", "--seed", seed).stdout) for seed in (1, 2)]
    narrow = json.loads(generate("Hi", "--top-k", 1, "--json").stdout)
    assert greedy[0]["token_ids"] == greedy[1]["token_ids"] == narrow["token_ids"]


@pytest.mark.clause("CLI-09")
def test_stop_strings_end_the_text(generate: Invoke) -> None:
    whole = json.loads(generate("Hi", "--temp", 0, "-n", 30, "--json").stdout)["text"]
    stops = [whole[10], whole[4:6]]
    answer = json.loads(generate("Hi", "--temp", 0, "-n", 30, "--json", "--stop", stops[0], "--stop", stops[1]).stdout)
    assert answer["text"] == whole[: min(whole.index(stop) for stop in stops)]
    assert answer["finish_reason"] == "stop"


@pytest.mark.clause("CLI-08")
@pytest.mark.clause("CLI-01")
def test_the_real_model_knows_the_capital_of_france(smollm2_path: Path) -> None:
    question = "What is the capital of France?"
    answered = run("generate", "-m", smollm2_path, "--temperature", 0, question)
    assert answered.returncode == 0, answered.stderr
    assert answered.stdout == "The capital of France is Paris.\n"
    assert answered.stderr.count("\n") == 1 and "seed" in answered.stderr


@pytest.mark.clause("CLI-08")
def test_the_real_model_by_name_from_a_pipe(smollm2_path: Path) -> None:
    ran = subprocess.run(
        command("generate", "--json", "--offline", "--temperature", 0, "-"),
        input=b"What is the capital of France?\n", capture_output=True, env=environment(), timeout=300,
    )  # fmt: skip
    answer = json.loads(ran.stdout)
    assert answer["text"] == "The capital of France is Paris."
    assert (answer["model"], answer["finish_reason"]) == ("smollm2-135m-instruct", "stop")
    assert ran.stderr == b""


@pytest.mark.clause("CLI-03")
def test_bytes_of_the_argument_are_utf_8_or_wrong_usage(tiny: Path) -> None:
    asked = [*command("generate", "-m", tiny, "--backend", "numpy", "-n", 1, "--raw", "--json")]
    wrong = subprocess.run([*asked, b"caf\xe9"], capture_output=True, env=environment(), stdin=subprocess.DEVNULL)
    assert wrong.returncode == 2 and b"the prompt is not UTF-8 text: byte 3 is 0xe9" in wrong.stderr
    narrow = environment() | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    right = subprocess.run([*asked, "é 😀".encode()], capture_output=True, env=narrow, stdin=subprocess.DEVNULL)
    assert right.returncode == 0 and json.loads(right.stdout)["prompt_token_ids"] == ids("é 😀")
