"""`ferrum-ref trace`: one generation, or several at once, recorded step by step, as a page or as JSON.

Owns: its flags, the order of prompts and their seeds, and the file or stream that the recording is written to.
Refuses to know: how steps are recorded, and how the page shows them. Specs: TRACE-14 to TRACE-17.
Next: `ferrum.cli.models`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ferrum.cli.chat_flags import ChatFlags, Setting
from ferrum.cli.errors import FAILED
from ferrum.cli.generate import chat_setting
from ferrum.cli.loading import load
from ferrum.cli.options import (
    EngineOptions,
    chat_options,
    debug_option,
    engine_options,
    json_option,
    sampling_options,
)
from ferrum.cli.prompt_text import read_prompt
from ferrum.cli.terminal import Progress, human_bytes
from ferrum.sampling_params import SamplingParams
from ferrum.types import Completion

if TYPE_CHECKING:
    from ferrum.engine.llm import LLM
    from ferrum.engine.observer import EngineObserver
    from ferrum.sched.plan import StepPlan
    from ferrum.trace.recording import Detail, Recording

_FILE = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
_OUTPUT = click.Path(dir_okay=False, readable=False, allow_dash=True, path_type=Path)
_COUNT = click.IntRange(min=1)
STDOUT = Path("-")
MOST_CHOICES = 1000
"""As many as the queue of an engine has room for, by the default of `EngineConfig.max_waiting`."""
TOKENS = 64
"""The default of --max-tokens here: each token is a step of the page, and of the default model takes some 30 kB."""


class Layers(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click only
    """all, none, or numbers of layers with commas between them -> None for all, else the numbers"""

    name = "layers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...] | None:
        if value is None or isinstance(value, tuple):
            return value
        if value in ("all", "none"):
            return None if value == "all" else ()
        try:
            return tuple(sorted({int(number) for number in str(value).split(",")}))
        except ValueError:
            self.fail(f"{value!r} is neither all, nor none, nor numbers of layers such as 0,5,11", param, ctx)


@dataclass(frozen=True)
class TraceFlags:
    """The flags of this command alone. `attention_layers`: numbers of layers; None stands for all."""

    choices: int
    max_num_seqs: int
    max_num_batched_tokens: int
    attention_layers: tuple[int, ...] | None
    attention_memory: str

    def detail(self) -> Detail:
        """Raises InvalidParameter for a size that is none."""
        from ferrum.config import parse_memory
        from ferrum.trace.recording import Detail

        return Detail(
            attention=self.attention_layers != (),
            attention_layers=self.attention_layers,
            attention_bytes=parse_memory("attention_memory", self.attention_memory),
        )


@click.command(context_settings={"default_map": {"max_tokens": TOKENS}})
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@click.option("-f", "--file", "files", type=_FILE, multiple=True,
              help="Read one more prompt from this file (- for standard input); may be repeated.")  # fmt: skip
@click.option("-o", "--output", type=_OUTPUT, metavar="FILE",
              help="Write the page to this file (- for standard output). It needs no other file. With --json, the "
              "JSON is written.")  # fmt: skip
@click.option("-s", "--system", metavar="TEXT", help="A system message before each prompt.")
@click.option("--raw", is_flag=True, help="Continue the prompts as they are, without the chat template.")
@click.option("--choices", type=click.IntRange(1, MOST_CHOICES), default=1, show_default=True, metavar="N",
              help="Answers to each prompt. They share the blocks of the prompt.")  # fmt: skip
@click.option("--max-num-seqs", type=_COUNT, default=64, show_default=True, metavar="N",
              help="Sequences that run at a time; others wait.")  # fmt: skip
@click.option("--max-num-batched-tokens", type=_COUNT, default=2048, show_default=True, metavar="N",
              help="Tokens computed in a step: a longer prompt is cut into chunks.")  # fmt: skip
@click.option("--attention", "attention_layers", type=Layers(), default="all", show_default=True, metavar="LAYERS",
              help="Layers whose attention is recorded: all, none, or numbers such as 0,5,11.")  # fmt: skip
@click.option("--attention-memory", default="16MiB", show_default=True, metavar="SIZE",
              help="Bytes of attention in the trace. Where they do not suffice, later tokens have none.")  # fmt: skip
@chat_options
@sampling_options
@engine_options
@json_option
@debug_option
def trace(
    prompts: tuple[str, ...],
    files: tuple[Path, ...],
    output: Path | None,
    system: str | None,
    raw: bool,
    as_json: bool,
    flags: ChatFlags,
    params: SamplingParams,
    engine: EngineOptions,
    **recorded: Any,
) -> None:
    """Record the answer to PROMPT step by step, as a page to look at.

    Several prompts are answered at the same time, so that the page shows how they share steps and memory. The page
    shows for each step which tokens are computed, the blocks of memory, attention, how each token was chosen, and which
    operations ran for how long. With --json the same is written as JSON, to standard output or to the file of -o.
    """
    setting = Setting(system, None, flags)
    if raw and setting.flag() is not None:
        raise click.UsageError(f"{setting.flag()} needs the chat template that --raw leaves out")
    if output is None and not as_json:
        raise click.UsageError("say where the page goes: -o FILE.html; or --json for programs")
    if params.logprobs is not None:
        raise click.UsageError("--logprobs has no meaning here: a trace has the distribution of each token")
    if output is not None:
        check_place(output)
    flags.as_options()  # wrong flags are refused before the model is loaded
    extent = TraceFlags(**recorded)
    detail = extent.detail()
    texts = [read_prompt(prompt, None) for prompt in prompts] + [read_prompt(None, file) for file in files]
    texts = texts or [read_prompt(None, None)]
    progress = Progress()
    limits = {"max_num_seqs": extent.max_num_seqs, "max_num_batched_tokens": extent.max_num_batched_tokens}
    llm = load(engine, progress, **limits)
    around = None if raw else chat_setting(llm, setting, progress)
    each = [prompt_params(params, extent.choices, index) for index in range(len(texts))]
    completions, content = record(llm, texts, around, each, detail, progress)
    size = write(content, output, as_json)
    for note in content["left_out"]:
        progress.note(f"note: left out: {note}")
    failed = [completion.error for completion in completions if completion.error is not None]
    for error in failed:
        progress.note(f"error: {error}")
    if output is not None and output != STDOUT:
        progress.note(f"{output}: {extent_of(content)}, {human_bytes(size)}")
    if failed:
        raise click.exceptions.Exit(FAILED)


def check_place(output: Path) -> None:
    """Refuses a place where no file can be written: a model may take minutes until there is something to write."""
    if output == STDOUT:
        return
    if not output.parent.is_dir():
        raise click.UsageError(f"-o: there is no folder {output.parent}")
    exists = output.exists()
    if exists and not output.is_file():
        raise click.UsageError(f"-o: {output} is not a regular file; -o - writes to standard output")
    if not os.access(output if exists else output.parent, os.W_OK):
        raise click.UsageError(f"-o: {output} may not be written to")


def extent_of(content: dict[str, Any]) -> str:
    """How long a trace is."""
    counts = {"sequence": len(content["sequences"]), "step": len(content["steps"])}
    return " in ".join(f"{count} {noun}{'' if count == 1 else 's'}" for noun, count in counts.items())


def prompt_params(params: SamplingParams, choices: int, index: int) -> SamplingParams:
    """The parameters of prompt `index`: with a seed of its own, so that equal prompts have different answers."""
    from dataclasses import replace

    from ferrum.sample.randomness import choice_seed

    seed = None if params.seed is None else choice_seed(params.seed, index * choices)  # no other choice has this one
    return replace(params, n=choices, seed=seed)


def record(
    llm: LLM,
    texts: list[str],
    setting: Setting | None,
    params: list[SamplingParams],
    detail: Detail,
    progress: Progress,
) -> tuple[list[Completion], dict[str, Any]]:
    """The answers to all prompts, as chats in a setting or, without one, as they are; and the trace of them."""
    from ferrum.trace.recording import Observers, Recording

    recording = Recording(llm, detail)
    with recording, progress.during("recording"):  # which takes the observer away at its end
        llm.engine.observer = Observers(llm.engine.observer, step_counter(recording, progress))
        completions = list(begin(llm, texts, setting, params))
    return completions, recording.trace()


def step_counter(recording: Recording, progress: Progress) -> EngineObserver:
    """Shows the number of recorded steps after each step: on a busy machine a recording can take minutes."""
    from ferrum.engine.observer import EngineObserver

    class StepCounter(EngineObserver):
        def step_finished(self, plan: StepPlan, duration_s: float) -> None:
            progress.show(f"recording: {recording.steps} steps")

    return StepCounter()


def begin(llm: LLM, texts: list[str], setting: Setting | None, params: list[SamplingParams]) -> Iterator[Completion]:
    """The completions to be."""
    if setting is None:
        return llm.generate_each(texts, params)
    return llm.chat_each([setting.messages(text) for text in texts], params, **setting.options())


def write(content: dict[str, Any], output: Path | None, as_json: bool) -> int:
    """To the file, which appears with all of its content, or to standard output. -> bytes"""
    import json

    from ferrum.files import replacing
    from ferrum.trace.page import page

    text = json.dumps(content, allow_nan=False, separators=(",", ":")) + "\n" if as_json else page(content)
    encoded = text.encode()
    if output is None or output == STDOUT:
        click.echo(encoded, nl=False)
    else:
        with replacing(output) as file:
            file.write(encoded)
    return len(encoded)
