"""`ferrum-ref generate --parallel`: answers each line of the input, many at the same time.

Owns: the output of several answers: in the order of their prompts, each as soon as it and those before it are complete.
Refuses to know: how they are generated. Specs: CLI-50, CLI-51. Next: `ferrum.cli.chat`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from ferrum.cli.chat_flags import Setting
from ferrum.cli.errors import FAILED
from ferrum.cli.logprobs import logprob_lines
from ferrum.cli.terminal import Progress, say
from ferrum.errors import RequestValidation
from ferrum.sampling_params import SamplingParams
from ferrum.types import Completion

if TYPE_CHECKING:
    from ferrum.engine.llm import LLM

NO_LIMIT = 0
"""Value of --parallel without a number: as many prompts at a time as the engine takes."""


class AtATime(click.IntRange):
    """The number after --parallel. It is optional, so a prompt in its place is read as the number; then the error says
    so."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            int(value)
        except ValueError:
            self.fail(f"{value!r} is no number; put the prompt before --parallel, or write --parallel=N", param, ctx)
        return super().convert(value, param, ctx)


@dataclass(frozen=True)
class Line:
    """A prompt and the number of its line, counted from 1."""

    number: int
    prompt: str


@dataclass
class Totals:
    """The sums that are printed at the end. The answers are not kept, because they may be many."""

    answers: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0

    def add(self, completion: Completion) -> None:
        self.answers += 1
        self.prompt_tokens += completion.usage.prompt_tokens
        self.cached_tokens += completion.usage.cached_tokens
        self.generated_tokens += completion.usage.completion_tokens

    def summary(self, seeds: str, seconds: float) -> str:
        """Seeds and speed on one line."""
        rate = self.generated_tokens / seconds if seconds > 0 else 0.0
        prompts = "1 prompt" if self.answers == 1 else f"{self.answers} prompts"
        return " · ".join(
            (
                seeds,
                f"{prompts} of {self.prompt_tokens} tokens, {self.cached_tokens} of them from memory",
                f"{self.generated_tokens} tokens at {rate:.0f} tok/s",
            )
        )


def split_prompts(text: str) -> list[Line]:
    r"""One prompt a line; empty lines are none. A line ends with \n or \r\n: what else Unicode calls the end of a line
    may stand in a prompt. Raises UsageError where there is no prompt at all."""
    numbered = enumerate(text.split("\n"), start=1)
    lines = [Line(number, line.removesuffix("\r")) for number, line in numbered if line.strip()]
    if not lines:
        raise click.UsageError("there is no prompt: --parallel expects one a line")
    return lines


def answer_all(
    llm: LLM,
    lines: list[Line],
    setting: Setting | None,
    params: SamplingParams,
    progress: Progress,
    as_line: Callable[[Completion], str] | None,
) -> None:
    """Answers all prompts, as chats in a setting or, without one, as raw text. `as_line` makes the output line of an
    answer; None prints the answer below its prompt. A failed answer is reported and sets the exit code; the others are
    printed."""
    each, seeds = seeded(params, lines)
    totals, failed = Totals(), False
    began = time.perf_counter()
    for line, completion in zip(lines, answers(llm, lines, setting, each, progress), strict=True):
        if as_line is None:
            gap = "\n" if totals.answers else ""
            say(f"{gap}>>> {line.prompt}\n{completion.text}\n")
            if completion.logprobs is not None:
                click.echo("\n".join(logprob_lines(completion.logprobs, llm.tokenizer.token_bytes)), err=True)
        else:
            click.echo(as_line(completion))
        if completion.error is not None:
            progress.note(f"error: line {line.number}: {completion.error}")
            failed = True
        totals.add(completion)
    if as_line is None:
        click.echo(totals.summary(seeds, time.perf_counter() - began), err=True)
    if failed:
        raise click.exceptions.Exit(FAILED)


def seeded(params: SamplingParams, lines: list[Line]) -> tuple[list[SamplingParams], str]:
    """The parameters of each line, and a text about their seeds. A given seed is used for every line. Otherwise one is
    drawn, and a repeated line gets the seed of a further choice, so that its answer differs."""
    from ferrum.sample.randomness import choice_seed, fresh_seed

    if params.seed is not None:
        return [params] * len(lines), f"seed {params.seed}"
    drawn, before = fresh_seed(), Counter[str]()
    seeds = []
    for line in lines:
        seeds.append(choice_seed(drawn, before[line.prompt]))
        before[line.prompt] += 1
    more = "" if len(before) == len(lines) else " (repeated lines have others, which --json tells)"
    return [replace(params, seed=seed) for seed in seeds], f"seed {drawn}{more}"


def answers(
    llm: LLM, lines: list[Line], setting: Setting | None, params: list[SamplingParams], progress: Progress
) -> Iterator[Completion]:
    """The completions, in order."""
    completions = begin(llm, lines, setting, params)
    for done in range(len(lines)):
        with progress.during(f"answering: {done} of {len(lines)} done"):
            completion = next(completions)
        yield completion


def begin(llm: LLM, lines: list[Line], setting: Setting | None, params: list[SamplingParams]) -> Iterator[Completion]:
    """Submits all prompts. Raises RequestValidation that names the first line that cannot be answered."""

    def ask(lines: list[Line], params: list[SamplingParams]) -> Iterator[Completion]:
        if setting is not None:
            return llm.chat_each([setting.messages(line.prompt) for line in lines], params, **setting.options())
        return llm.generate_each([line.prompt for line in lines], params)

    try:
        return ask(lines, params)
    except RequestValidation:
        for line, own in zip(lines, params, strict=True):
            try:
                ask([line], [own])  # checks only: nothing starts before the first answer is read
            except RequestValidation as error:
                raise RequestValidation(f"line {line.number}: {error}") from error
        raise
