"""`ferrum-ref generate --parallel`: every line a prompt, all of them at the same time.

Owns: how several answers are shown: in the order of their prompts, each as soon as it and those before it are complete.
Refuses to know: how they are generated. Specs: CLI-50, CLI-51. Next: `ferrum.cli.models`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ferrum.cli.progress import Progress
from ferrum.types import Completion, SamplingParams

if TYPE_CHECKING:
    from ferrum.engine.llm import LLM


def split_prompts(text: str) -> list[str]:
    """One prompt a line; empty lines are none. Raises UsageError where there is no prompt at all."""
    prompts = [line for line in text.splitlines() if line.strip()]
    if not prompts:
        raise click.UsageError("there is no prompt: --parallel expects one a line")
    return prompts


def answers(
    llm: LLM, prompts: list[str], system: str | None, as_chat: bool, params: SamplingParams, progress: Progress
) -> Iterator[Completion]:
    """The completions, in order."""
    before = [] if system is None else [{"role": "system", "content": system}]
    if as_chat:
        conversations = [[*before, {"role": "user", "content": prompt}] for prompt in prompts]
        completions = llm.chat_each(conversations, params)
    else:
        completions = llm.generate_each(prompts, params)
    for done in range(len(prompts)):
        with progress.during(f"answering: {done} of {len(prompts)} done"):
            completion = next(completions)
        yield completion


def show_answer(prompt: str, completion: Completion, first: bool) -> None:
    """A prompt and its answer, with an empty line between one and the next."""
    click.echo(("" if first else "\n") + f">>> {prompt}\n{completion.text}")


def overall(completions: list[Completion], seconds: float) -> str:
    """Seed and speed on one line."""
    prompt = sum(completion.usage.prompt_tokens for completion in completions)
    cached = sum(completion.usage.cached_tokens for completion in completions)
    generated = sum(completion.usage.completion_tokens for completion in completions)
    rate = generated / seconds if seconds > 0 else 0.0
    return " · ".join(
        (
            f"seed {completions[0].seed}",
            f"{len(completions)} prompts of {prompt} tokens, {cached} of them from memory",
            f"{generated} tokens at {rate:.0f} tok/s",
        )
    )
