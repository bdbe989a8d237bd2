"""CLI-50 to CLI-53: several prompts at a time, statistics, and the flags of memory and scheduling."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke

PROMPTS = ["one", "two and more", "three", "one"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("one\ntwo and more\n\nthree\n  \none\n")
    return path


@pytest.mark.clause("CLI-50")
def test_every_line_is_answered_as_it_would_be_alone(generate: Invoke, file: Path) -> None:
    alone = [json.loads(generate(prompt, "--seed", 3, "--json").stdout) for prompt in PROMPTS]
    together = generate("-f", file, "--parallel", "--seed", 3, "--json")
    assert together.exit_code == 0
    told = [json.loads(line) for line in together.stdout.splitlines()]
    for one, other in zip(told, alone, strict=True):
        assert one.keys() == other.keys()
        assert (one["text"], one["seed"], one["prompt_token_ids"]) == (
            other["text"], other["seed"], other["prompt_token_ids"],
        )  # fmt: skip


@pytest.mark.clause("CLI-50")
@pytest.mark.parametrize("arguments", [["--parallel"], ["--parallel", 2], ["--parallel", 1], ["--parallel", 0]])
def test_answers_stand_below_their_prompts_in_order(generate: Invoke, file: Path, arguments: list[object]) -> None:
    texts = [json.loads(generate(prompt, "--seed", 3, "--json").stdout)["text"] for prompt in PROMPTS]
    result = generate("-f", file, "--seed", 3, *arguments)
    expected = [f">>> {prompt}\n{text}\n" for prompt, text in zip(PROMPTS, texts, strict=True)]
    assert result.stdout == "\n".join(expected)
    assert result.stderr.startswith("seed 3 · 4 prompts of ") and result.stderr.count("\n") == 1


@pytest.mark.clause("CLI-50")
def test_the_reported_seed_repeats_all_answers(generate: Invoke, file: Path) -> None:
    first = generate("-f", file, "--parallel")
    seed = first.stderr.split()[1]
    assert generate("-f", file, "--parallel", "--seed", seed).stdout == first.stdout


@pytest.mark.clause("CLI-50")
def test_prompts_come_from_anywhere_and_go_raw_or_with_a_system_message(generate: Invoke, file: Path) -> None:
    piped = generate("--parallel", "--json", "--raw", "--seed", 1, input=file.read_text())
    assert [len(json.loads(line)["prompt_token_ids"]) for line in piped.stdout.splitlines()] == [3, 12, 5, 3]
    told = generate("--parallel", "--json", "--seed", 1, "-s", "Be brief.", input="Hi\n")
    alone = generate("--json", "--seed", 1, "-s", "Be brief.", "Hi")
    assert json.loads(told.stdout)["text"] == json.loads(alone.stdout)["text"]


@pytest.mark.clause("CLI-51")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--parallel", "x"], 2, "--parallel"),
        (["--parallel", "2", " \n "], 2, "one a line"),
        (["--parallel", "2", "x\n" + 300 * "y"], 1, "leaves no room in a context of 256"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_anything_is_said(
    generate: Invoke, arguments: list[object], code: int, words: str
) -> None:
    result = generate(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr and result.stderr.startswith("error:")


@pytest.mark.clause("CLI-52")
def test_statistics_tell_what_happened(generate: Invoke, file: Path) -> None:
    memory = ["--block-size", 4, "--kv-memory", 12 * 1024, "--host-kv-memory", 8 * 1024]  # blocks of 1024 bytes
    result = generate("-f", file, "--parallel", "--temp", 0, "--stats", "-n", 20, "--max-model-len", 48, *memory)
    assert result.exit_code == 0, result.stderr
    lines = {line.split()[0]: line for line in result.stderr.splitlines()[1:]}
    assert list(lines) == ["blocks", "prefixes", "evictions", "preemptions", "steps"]
    assert "device: 12 = 0 held +" in lines["blocks"] and "host: 8 = 0 held +" in lines["blocks"]
    words = lines["preemptions"].split()
    by_recompute, by_swap = int(words[1]), int(words[4])
    assert by_recompute + by_swap > 0
    roomy = generate("-f", file, "--parallel", "--temp", 0, "-n", 20)
    assert roomy.stdout == result.stdout  # and nobody noticed


@pytest.mark.clause("CLI-52")
def test_statistics_leave_stdout_alone(generate: Invoke) -> None:
    plain, told = generate("Hi", "--seed", 1), generate("Hi", "--seed", 1, "--stats")
    assert told.stdout == plain.stdout
    assert told.stderr.count("\n") == plain.stderr.count("\n") + 5
    assert json.loads(generate("Hi", "--seed", 1, "--stats", "--json").stdout)


@pytest.mark.clause("CLI-53", "CLI-20")
@pytest.mark.parametrize(
    "flags",
    [
        ["--scheduler", "priority"],
        ["--eviction", "clock"],
        ["--eviction", "fifo"],
        ["--block-size", "3"],
        ["--no-prefix-caching"],
        ["--deterministic"],
        ["--host-kv-memory", "1MiB"],
    ],
    ids=" ".join,
)
def test_how_memory_is_run_does_not_change_the_answer(generate: Invoke, flags: list[str]) -> None:
    assert generate("Hi", "--seed", 3, *flags).stdout == generate("Hi", "--seed", 3).stdout


@pytest.mark.clause("CLI-53", "CLI-16")
@pytest.mark.parametrize(
    ("flag", "value"),
    [("--scheduler", "random"), ("--eviction", "mru"), ("--host-kv-memory", "much"), ("--host-kv-memory", "5")],
)
def test_values_that_mean_nothing_are_refused_by_name(generate: Invoke, flag: str, value: str) -> None:
    result = generate("Hi", flag, value)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {flag}: ")


@pytest.mark.clause("CLI-53")
def test_a_pool_too_small_for_a_request_says_so(generate: Invoke) -> None:
    result = generate("Hi", "-n", 200, "--block-size", 4, "--kv-memory", 12 * 1024, "--max-model-len", 200)
    assert result.exit_code == 2 and "kv_memory holds only 48 tokens" in result.stderr
    result = generate("x" * 50, "--block-size", 4, "--kv-memory", 12 * 1024)
    assert result.exit_code == 1 and "leaves no room in a context of 48" in result.stderr
