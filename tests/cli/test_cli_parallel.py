"""CLI-50 to CLI-53: several prompts at a time, statistics, and the flags of memory and scheduling."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ferrum.cli.parallel import Line, Totals, answer_all, split_prompts
from ferrum.cli.statistics import stats_lines
from ferrum.cli.terminal import Progress
from ferrum.engine.statistics import EngineStats
from ferrum.kv.statistics import KvCounters, TierUsage
from ferrum.sampling_params import SamplingParams
from ferrum.types import Choice, Completion, DecodeSteps, FinishReason, Usage
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
    file.write_text("one\ntwo and more\nthree\n")
    first = generate("-f", file, "--parallel")
    seed = first.stderr.split()[1]
    assert generate("-f", file, "--parallel", "--seed", seed).stdout == first.stdout


@pytest.mark.clause("CLI-57")
@pytest.mark.parametrize("how", [[], ["--raw"], ["-s", "Be brief."]], ids=["chat", "raw", "system"])
def test_lines_that_come_again_have_other_answers(generate: Invoke, how: list[str]) -> None:
    lines = "a joke\n\nanother\na joke\r\na joke\n"
    told = [json.loads(line) for line in generate("--parallel", "--json", *how, input=lines).stdout.splitlines()]
    seeds, texts = [answer["seed"] for answer in told], [answer["text"] for answer in told]
    assert seeds[0] == seeds[1] and len(set(seeds)) == 3
    assert len({texts[0], texts[2], texts[3]}) == 3
    for answer in (told[0], *told[2:]):  # each can be had again
        again = json.loads(generate("a joke", *how, "--json", "--seed", answer["seed"]).stdout)
        assert again["text"] == answer["text"]
    given = [
        json.loads(line) for line in generate("--parallel", "--json", "--seed", 3, input=lines).stdout.splitlines()
    ]
    assert {answer["seed"] for answer in given} == {3}
    assert "seed" in (summary := generate("--parallel", input=lines).stderr) and "repeated lines have others" in summary


@pytest.mark.clause("CLI-50")
def test_prompts_come_from_anywhere_and_go_raw_or_with_a_system_message(generate: Invoke, file: Path) -> None:
    piped = generate("--parallel", "--json", "--raw", "--seed", 1, input=file.read_text())
    assert [len(json.loads(line)["prompt_token_ids"]) for line in piped.stdout.splitlines()] == [3, 12, 5, 3]
    told = generate("--parallel", "--json", "--seed", 1, "-s", "Be brief.", input="Hi\n")
    alone = generate("--json", "--seed", 1, "-s", "Be brief.", "Hi")
    assert json.loads(told.stdout)["text"] == json.loads(alone.stdout)["text"]


@pytest.mark.clause("CLI-50")
def test_only_newlines_separate_prompts() -> None:
    within = "a\x0bb\x0cc\x85d\u2028e\u2029f\x1cg\rh"
    assert split_prompts(f"{within}\r\n\r\n \nx\r\r\ny") == [Line(1, within), Line(4, "x\r"), Line(5, "y")]


@pytest.mark.clause("CLI-50")
def test_what_an_answer_does_not_need_is_refused(generate: Invoke) -> None:
    result = generate("Hi", "--no-stream", "--parallel")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--no-stream has no meaning with --parallel" in result.stderr


@pytest.mark.clause("CLI-50")
def test_one_prompt_is_one_prompt(generate: Invoke) -> None:
    assert " · 1 prompt of " in generate("Hi", "--parallel").stderr


@pytest.mark.clause("CLI-50")
def test_answers_are_let_go_once_they_are_shown() -> None:
    alive: weakref.WeakSet[Completion] = weakref.WeakSet()
    most = 0

    class Model:
        def generate_each(self, prompts: Sequence[str], _params: SamplingParams) -> Iterator[Completion]:
            nonlocal most
            for number in range(len(prompts)):
                completion = Completion((Choice(0, "x", (1,), FinishReason.LENGTH, 7),), (number,), Usage(2, 1))
                alive.add(completion)
                most = max(most, len(alive))
                yield completion

    lines = [Line(number, "x") for number in range(1, 101)]
    answer_all(Model(), lines, None, SamplingParams(), Progress(), None)  # type: ignore[arg-type]
    assert 0 < most < 5


@pytest.mark.clause("CLI-50")
def test_the_summary_adds_up() -> None:
    totals = Totals()
    for cached in (0, 3):
        totals.add(Completion((), (), Usage(5, 7, cached)))
    assert (
        totals.summary("seed 9", 2.0) == "seed 9 · 2 prompts of 10 tokens, 3 of them from memory · 14 tokens at 7 tok/s"
    )


@pytest.mark.clause("CLI-51")
@pytest.mark.parametrize("how", [["--raw"], ["-s", "Be brief."], []], ids=["raw", "system", "chat"])
def test_the_error_names_the_line(generate: Invoke, how: list[str]) -> None:
    long = 300 * "y"
    result = generate("--parallel", *how, input=f"a\n\nb\n{long}\nc\n{long}\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: line 4: a prompt of 3")


@pytest.mark.clause("CLI-51")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--parallel", "x"], 2, "'x' is no number; put the prompt before --parallel, or write --parallel=N"),
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
    assert roomy.stdout == result.stdout  # the preemption changed no answer


@pytest.mark.clause("CLI-52")
def test_what_came_back_is_not_a_part_of_what_went() -> None:
    usage = TierUsage(4, 1, 2, 1)
    counters = KvCounters(evicted=5, demoted=2, promoted=3, dropped=1)  # a block that was swapped out is found too
    lines = stats_lines(EngineStats(0, 0, 1, 1, 0, 0, usage, usage, counters))
    assert lines[2].split(maxsplit=1)[1] == ("5 blocks: 2 to the host, 1 dropped there; 3 found there and copied back")


@pytest.mark.clause("CLI-52")
def test_replayed_steps_are_told_where_there_are_any() -> None:
    def told(decode: DecodeSteps) -> str:
        usage, counters = TierUsage(4, 1, 2, 1), KvCounters(evicted=0, demoted=0, promoted=0, dropped=0)
        stats = EngineStats(0, 0, 1, 1, 0, 0, usage, usage, counters, decode)
        return "\n".join(stats_lines(stats)[5:])

    assert told(DecodeSteps()) == ""
    assert told(DecodeSteps(7, 7)) == "decode      7 of 7 steps replayed"
    assert told(DecodeSteps(7, 0, "exp")) == "decode      0 of 7 steps replayed; not recorded: exp"


@pytest.mark.clause("CLI-52", "DRAFT-05")
def test_drafts_are_told_where_there_were_any(generate: Invoke) -> None:
    usage, counters = TierUsage(4, 1, 2, 1), KvCounters()
    stats = EngineStats(0, 0, 1, 1, 0, 0, usage, usage, counters, draft_tokens=9, accepted_tokens=5)
    assert stats_lines(stats)[5:] == ["drafts      5 of 9 accepted"]
    plain, told = (generate("a a a a a a", "--temp", 0, "-n", 40, "--speculate", how) for how in ("off", "ngram"))
    assert told.stdout == plain.stdout
    assert "accepted" in told.stderr and "accepted" not in plain.stderr


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
        ["--host-kv-memory", "8KiB"],
    ],
    ids=" ".join,
)
def test_how_memory_is_run_does_not_change_the_answer(generate: Invoke, file: Path, flags: list[str]) -> None:
    assert generate("Hi", "--seed", 3, *flags).stdout == generate("Hi", "--seed", 3).stdout
    several = ["-f", file, "--parallel", "--seed", 3, "-n", 20, "--stats"]
    small = ["--block-size", 4, "--kv-memory", 12 * 1024, "--max-model-len", 48]  # blocks of 1024 bytes
    roomy, tight = generate(*several), generate(*several, *small, *flags)
    assert (tight.exit_code, tight.stdout) == (0, roomy.stdout)
    assert preemptions(roomy.stderr) == 0 < preemptions(tight.stderr)  # memory was short indeed


def preemptions(stderr: str) -> int:
    (line,) = [line.split() for line in stderr.splitlines() if line.startswith("preemptions ")]
    return int(line[1]) + int(line[4])


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
def test_a_context_that_memory_cuts_short_is_told(generate: Invoke) -> None:
    cut = generate("Hi", "-n", 100, "--block-size", 4, "--kv-memory", 12 * 1024, "--json")
    assert json.loads(cut.stdout)["finish_reason"] == "length"
    assert cut.stderr == "note: --kv-memory holds 48 tokens of the 256 in context\n"
    chosen = generate("Hi", "--block-size", 4, "--kv-memory", 12 * 1024, "--max-model-len", 48, "--json")
    assert chosen.stderr == ""


@pytest.mark.clause("CLI-53")
def test_a_pool_too_small_for_a_request_says_so(generate: Invoke) -> None:
    result = generate("Hi", "-n", 200, "--block-size", 4, "--kv-memory", 12 * 1024, "--max-model-len", 200)
    assert result.exit_code == 2 and "kv_memory holds only 48 tokens" in result.stderr
    result = generate("x" * 50, "--block-size", 4, "--kv-memory", 12 * 1024)
    assert result.exit_code == 1 and "leaves no room in a context of 48" in result.stderr


@pytest.mark.clause("CLI-56")
def test_logprobs_of_several_prompts_are_told(generate: Invoke, file: Path) -> None:
    plain, told = (generate("-f", file, "--parallel", "--seed", 3, *more) for more in ([], ["--logprobs", 1]))
    assert told.stdout == plain.stdout and told.stderr.count("(rank ") == 4 * 5
