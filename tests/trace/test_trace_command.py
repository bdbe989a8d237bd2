"""TRACE-14 to TRACE-17: the command `trace`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ferrum.cli.main import program
from ferrum.cli.terminal import Progress
from tests.cli.conftest import write_model
from tests.trace.checks import check_whole, events

Trace = Callable[..., Result]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def trace(model: Path) -> Trace:
    """Runs `trace` on a tiny model with the oracle backend."""

    def run(*arguments: object, input: str | None = None) -> Result:
        words = ["trace", "-m", model, "--backend", "numpy", "-n", 4, *arguments]
        return CliRunner().invoke(program, [str(word) for word in words], input=input)

    return run


@pytest.mark.clause("TRACE-14")
def test_json_goes_to_stdout_and_nothing_else_does(trace: Trace, model: Path) -> None:
    result = trace("Hi", "--seed", 3, "--json")
    assert result.exit_code == 0 and result.stdout.count("\n") == 1 and result.stdout.isascii()
    told: dict[str, Any] = json.loads(result.stdout)
    check_whole(told)
    assert told["sequences"][0]["text"].startswith("<user>Hi<answer>")
    assert told["model"]["name"] == "tiny" and told["model"]["backend"] == "numpy"
    assert told["requests"][0]["params"]["seed"] == 3
    words = ["generate", "-m", str(model), "--backend", "numpy", "-n", "4", "Hi", "--seed", "3", "--json"]
    generated = CliRunner().invoke(program, words)
    tokens = told["sequences"][0]["tokens"]
    assert tokens[told["sequences"][0]["prompt_length"] :] == json.loads(generated.stdout)["token_ids"]


@pytest.mark.clause("TRACE-14")
def test_a_file_has_the_page_or_the_json(trace: Trace, tmp_path: Path) -> None:
    page, plain = tmp_path / "page.html", tmp_path / "trace.json"
    result = trace("Hi", "--seed", 3, "-o", page)
    assert result.exit_code == 0 and result.stdout == ""
    assert result.stderr.startswith(f"{page}: 1 sequence in 4 steps, ")
    assert page.read_text().lower().startswith("<!doctype html>")
    assert trace("Hi", "--seed", 3, "--json", "-o", plain).stdout == ""
    told = json.loads(plain.read_text())
    check_whole(told)
    again = json.loads(trace("Hi", "--seed", 3, "--json").stdout)
    assert again["sequences"] == told["sequences"]


@pytest.mark.clause("CLI-05")
def test_the_progress_line_counts_the_recorded_steps(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(Progress, "show", lambda _, text: shown.append(text))
    assert trace("Hi", "--seed", 3, "--json").exit_code == 0
    assert shown[-5:] == ["recording", *(f"recording: {count} steps" for count in range(1, 5))]


@pytest.mark.clause("TRACE-15")
def test_several_prompts_are_answered_at_the_same_time(trace: Trace, tmp_path: Path) -> None:
    file = tmp_path / "third.txt"
    file.write_text("One more, which is long enough for two blocks of the memory\n")
    told = json.loads(
        trace("Hi", "Hi", "-f", file, "--raw", "--json", "--choices", 2, "--seed", 9, "--max-num-seqs", 4,
              "--max-num-batched-tokens", 16, "--block-size", 8, "--attention", "1").stdout
    )  # fmt: skip
    check_whole(told)
    assert [request["sequences"] for request in told["requests"]] == [[0, 1], [2, 3], [4, 5]]
    assert told["limits"]["max_num_seqs"] == 4 and told["memory"]["block_size"] == 8
    texts = [sequence["text"] for sequence in told["sequences"]]
    assert texts[4].startswith("One more") and texts[4][-1] != "\n"
    assert len(set(texts)) == 6, "equal prompts have different answers"
    assert max(len(step["running"]) for step in told["steps"]) == 4
    assert {tuple(choice["attention"]["layers"]) for step in told["steps"] for choice in step["choices"]} == {(1,)}
    assert "sibling" in {event["source"] for event in events(told, "admitted")}


@pytest.mark.clause("TRACE-15")
def test_small_memory_shows_swaps(trace: Trace) -> None:
    told = json.loads(
        trace(*["abcdefghij" + letter for letter in "klm"], "--raw", "--json", "-n", 12, "--kv-memory", "6KiB",
              "--host-kv-memory", "64KiB", "--block-size", 4, "--max-model-len", 24, "--no-prefix-caching").stdout
    )  # fmt: skip
    check_whole(told)
    assert told["memory"]["device_blocks"] < 3 * 6
    assert {event["way"] for event in events(told, "preempted")} <= {"swap", "recompute"}
    assert events(told, "preempted")
    assert [sequence["finish_reason"] for sequence in told["sequences"]] == ["length"] * 3


@pytest.mark.clause("TRACE-16")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Hi"], "say where the page goes: -o FILE.html; or --json for programs"),
        (["Hi", "--json", "--logprobs", "2"], "--logprobs has no meaning here"),
        (["Hi", "--json", "--raw", "-s", "You are"], "--system needs the chat template that --raw leaves out"),
        (["Hi", "-o", "/nowhere/at/all.html"], "there is no folder /nowhere/at"),
        (["Hi", "--json", "--attention", "first"], "'first' is neither all, nor none, nor numbers of layers"),
        (
            ["Hi", "--json", "--attention", "2"],
            "--attention: attention_layers names layer 2; the model has layers 0",
        ),
        (["Hi", "--json", "--choices", "1001"], "'--choices': 1001 is not in the range"),
        (["Hi", "--json", "--attention-memory", "much"], "--attention-memory"),
        (["", "--json"], "the prompt is empty"),
    ],
)
def test_what_makes_no_trace_is_refused(trace: Trace, arguments: list[str], message: str) -> None:
    result = trace(*arguments)
    assert result.exit_code == 2 and result.stdout == ""
    assert message in result.stderr and result.stderr.startswith("error: ")


@pytest.mark.clause("TRACE-14")
def test_a_dash_is_standard_output(trace: Trace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for more, beginning in ([], "<!doctype html>"), (["--json"], '{"version"'):
        result = trace("Hi", "-o", "-", *more)
        assert result.exit_code == 0 and result.stdout.lower().startswith(beginning) and result.stderr == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.clause("TRACE-16")
def test_a_place_that_takes_no_file_is_refused_before_the_model_is_loaded(
    trace: Trace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("ferrum.cli.trace.load", lambda *_, **__: pytest.fail("the model was loaded"))
    (tmp_path / "old.html").touch()
    (tmp_path / "link.html").symlink_to("/dev/null")
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    for place, message in [
        ("/dev/null", "is not a regular file"), (tmp_path / "link.html", "is not a regular file"),
        (tmp_path / "old.html", "may not be written to"), (tmp_path / "new.html", "may not be written to"),
        ("", "is not a regular file"),
    ]:  # fmt: skip
        result = trace("Hi", "-o", place)
        assert result.exit_code == 2 and result.stdout == "", place
        assert message in result.stderr and result.stderr.startswith("error: -o: "), place


@pytest.mark.clause("TRACE-17")
def test_what_is_left_out_is_told(trace: Trace) -> None:
    result = trace("Hi", "--json", "--attention-memory", 200)
    told = json.loads(result.stdout)
    assert result.exit_code == 0 and len(told["left_out"]) == 1
    assert result.stderr == f"note: left out: {told['left_out'][0]}\n"


@pytest.mark.clause("TRACE-17")
def test_a_failed_prompt_makes_the_exit_code_and_the_trace_is_written(
    trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ferrum.backends.numpy_backend import NumpyOps

    logits = NumpyOps.logits
    monkeypatch.setattr(NumpyOps, "logits", lambda self, x, head: logits(self, x, head) * float("nan"))
    result = trace("Hi", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["sequences"][0]["finish_reason"] == "error"
    assert result.stderr.startswith("error: ")


@pytest.mark.clause("TRACE-14")
def test_a_prompt_comes_from_standard_input(trace: Trace) -> None:
    told = json.loads(trace("--raw", "--json", input="abc\n").stdout)
    assert told["sequences"][0]["text"].startswith("abc")
