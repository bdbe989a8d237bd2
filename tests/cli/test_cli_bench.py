"""CLI-40 to CLI-42: what `bench` measures and reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ferrum.cli.bench import measure, prompts
from ferrum.engine.engine import Engine
from ferrum.engine.llm import LLM
from ferrum.sched.plan import StepPlan
from ferrum.sched.scheduler import Scheduler
from tests.cli.conftest import CONTEXT, Invoke

SMALL = ("-p", 12, "-n", 4, "-b", 3, "-r", 2)


@pytest.mark.clause("CLI-40")
def test_json_is_one_object_with_these_fields(invoke: Invoke, tiny: Path) -> None:
    result = invoke("bench", "-m", tiny, "--backend", "numpy", "--json", *SMALL)
    measured = json.loads(result.stdout)
    assert result.exit_code == 0 and result.stdout.count("\n") == 1
    for rate in ("prefill_tok_s", "decode_tok_s", "peak_rss_bytes", "threads"):
        assert measured.pop(rate) > 0
    assert measured == {
        "model": tiny.name, "backend": "numpy", "dtype": "float32", "prompt_len": 12, "gen_len": 4, "batch": 3,
        "decode_steps": 0, "replayed_steps": 0,
    }  # fmt: skip


@pytest.mark.clause("CLI-40")
def test_the_table_shows_the_same(invoke: Invoke, tiny: Path) -> None:
    shown = invoke("bench", "-m", tiny, "--backend", "numpy", *SMALL).stdout
    assert "3 × 12 tokens" in shown and "3 × 4 tokens" in shown and shown.count("tok/s") == 2


@pytest.mark.clause("CLI-41")
@pytest.mark.parametrize("budget", [2048, 20])
def test_only_what_is_meant_is_timed(tiny: Path, monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    """The clock of the test counts computed tokens, so that the rates show which tokens each phase contains."""
    llm = LLM(tiny, backend="numpy", max_num_batched_tokens=budget)
    planned: list[int] = []
    step = Engine.step

    def counted(engine: Engine) -> None:
        before = llm.scheduler.plan

        def plan() -> object:
            made = before()
            planned.append(made.tokens)
            return made

        monkeypatch.setattr(llm.scheduler, "plan", plan)
        step(engine)
        monkeypatch.setattr(llm.scheduler, "plan", before)

    monkeypatch.setattr(Engine, "step", counted)
    monkeypatch.setattr("time.perf_counter", lambda: float(sum(planned)))
    prefill, decode = measure(llm, prompts(llm, 12, 3, seed=1), gen_len=4)
    assert prefill == 1  # 36 prompt tokens in the time of 36
    assert decode == 1  # 12 generated tokens in the time of 12, whatever the first ones got meanwhile
    assert not llm.engine.has_work and not llm.stats().device.held


@pytest.mark.clause("CLI-41")
def test_all_tokens_of_a_step_count(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the test counts generated tokens, so that the rate is 1 for any number of tokens in a step."""
    llm = LLM(tiny, backend="numpy", speculate="ngram", max_num_batched_tokens=8)
    push, came = Engine._push, []

    def counted(engine: Engine, *given: Any) -> None:
        came.append(given)
        push(engine, *given)

    monkeypatch.setattr(Engine, "_push", counted)
    monkeypatch.setattr("time.perf_counter", lambda: float(len(came)))
    assert measure(llm, [[1, 2] * 6, [3, 4, 5] * 4], gen_len=60)[1] == 1
    assert llm.stats().accepted_tokens > 5
    assert len(came) < 150, "more is computed than is measured"


@pytest.mark.clause("CLI-41")
def test_all_sequences_decode_together(invoke: Invoke, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampled: list[int] = []
    plan = Scheduler.plan

    def watched(scheduler: Scheduler) -> StepPlan:
        made = plan(scheduler)
        sampled.append(len(made.sampled))
        return made

    monkeypatch.setattr(Scheduler, "plan", watched)
    invoke("bench", "-m", tiny, "--backend", "numpy", "-p", 5, "-n", 4, "-b", 70, "-r", 1)  # 70: above LLM's default
    assert sampled == [70] * 12  # twice: a prefill by itself, a prefill, four decode steps


@pytest.mark.clause("CLI-41")
def test_repeats_use_other_prompts_and_runs_the_same(tiny: Path) -> None:
    llm = LLM(tiny, backend="numpy")
    first = prompts(llm, 8, 2, seed=1)
    assert first == prompts(llm, 8, 2, seed=1) != prompts(llm, 8, 2, seed=2)
    assert [len(prompt) for prompt in first] == [8, 8]
    assert all(0 <= token < llm.config.vocab_size for prompt in first for token in prompt)


@pytest.mark.clause("CLI-42")
@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("-p", CONTEXT - 1, "-n", 64), "--prompt-len"),
        (("-p", 100, "-n", 10, "-b", 16, "--kv-memory", "100KiB"), "--kv-memory"),
        (("-p", 4, "-n", 1, "-b", 2048), "--prompt-len"),
        (("-p", 0), "-p"),
        (("-b", -1), "-b"),
    ],
)
def test_what_does_not_fit_is_refused(invoke: Invoke, tiny: Path, arguments: tuple[object, ...], word: str) -> None:
    result = invoke("bench", "-m", tiny, "--backend", "numpy", *arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert word in result.stderr
