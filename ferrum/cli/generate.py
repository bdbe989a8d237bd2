"""`ferrum-ref generate`: one prompt in, text out as it is produced.

Owns: what goes to stdout (the text or one JSON object, nothing else) and what to stderr.
Refuses to know: how text is generated. Specs: CLI-01 to CLI-09. Next: `ferrum.cli.prompt_text`.
"""

from __future__ import annotations

import time
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ferrum.cli.chat_flags import ChatFlags, Setting
from ferrum.cli.loading import load
from ferrum.cli.logprobs import as_list, logprob_lines
from ferrum.cli.options import (
    EngineOptions,
    chat_options,
    debug_option,
    engine_options,
    json_option,
    sampling_options,
)
from ferrum.cli.parallel import NO_LIMIT, AtATime, answer_all, split_prompts
from ferrum.cli.prompt_text import STDIN, input_is_ignored, read_prompt
from ferrum.cli.statistics import peak_rss_bytes, stats_lines
from ferrum.cli.terminal import Progress, say
from ferrum.cli.terminal import as_json as json_line
from ferrum.errors import Unsupported
from ferrum.sampling_params import SamplingParams
from ferrum.types import Completion

if TYPE_CHECKING:
    from ferrum.engine.llm import LLM
    from ferrum.engine.stream import TokenStream


@click.command()
@click.argument("prompt", required=False)
@click.option("-f", "--file", "file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
              help="Read the prompt from this file (- for standard input); PROMPT is added after it.")  # fmt: skip
@click.option("-s", "--system", metavar="TEXT", help="The system message: instructions before the prompt.")
@click.option("--continue", "beginning", is_flag=False, flag_value="", metavar="[TEXT]",
              help="The model continues an answer that begins with TEXT. Without TEXT, it continues PROMPT "
              "as if PROMPT were the beginning of its answer.")  # fmt: skip
@click.option("--raw", is_flag=True, help="Continue the text of the prompt, without the chat template.")
@click.option("--no-stream", is_flag=True, help="Print the answer when it is complete, not piece by piece.")
@click.option("--parallel", type=AtATime(min=0), is_flag=False, flag_value=NO_LIMIT, metavar="[N]",
              help="Each line of the input is a prompt: answer N of them at a time; without N, or with 0, as "
              "many as the engine takes. With --json, print one object on each line.")  # fmt: skip
@click.option("--stats", is_flag=True, help="At the end, print what the engine did: blocks, prefixes, steps.")
@chat_options
@sampling_options
@engine_options
@json_option
@debug_option
def generate(
    prompt: str | None,
    file: Path | None,
    system: str | None,
    beginning: str | None,
    raw: bool,
    no_stream: bool,
    parallel: int | None,
    stats: bool,
    as_json: bool,
    flags: ChatFlags,
    params: SamplingParams,
    engine: EngineOptions,
) -> None:
    """Answer PROMPT; with --raw, continue its text.

    Without PROMPT, or if it is "-", the prompt is read from standard input. The answer goes to standard output,
    everything else to standard error. With --parallel each line of the input is a prompt.
    """
    setting = Setting(system, beginning, flags)
    if raw and setting.flag() is not None:
        raise click.UsageError(f"{setting.flag()} needs the chat template that --raw leaves out")
    if no_stream and parallel is not None:
        raise click.UsageError("--no-stream has no meaning with --parallel, whose answers come whole")
    if parallel is not None and prompt is not None and file is not None:
        raise click.UsageError("with --parallel the prompts are given twice: as an argument and with -f")
    flags.as_options()  # errors are reported before the model is loaded
    text = read_prompt(prompt, file, needed=not beginning or parallel is not None)
    prompts = [] if parallel is None else split_prompts(text)
    progress = Progress()
    started = time.perf_counter()
    llm = load(engine, progress, **({} if parallel in (None, NO_LIMIT) else {"max_num_seqs": parallel}))
    load_seconds = time.perf_counter() - started
    if prompt not in (None, STDIN) and file is None and input_is_ignored():
        progress.note("note: standard input is not read beside a prompt; with `-f -` it comes before the prompt")
    around = None if raw else chat_setting(llm, setting, progress)
    if engine.max_model_len is None and llm.max_model_len < llm.config.max_positions:
        whole = llm.config.max_positions
        progress.note(f"note: --kv-memory holds {llm.max_model_len} tokens of the {whole} in context")

    def as_line(completion: Completion) -> str:
        return json_line(as_object(llm, completion, load_seconds, params.logprobs))

    if parallel is None:
        with start(llm, text, around, params) as stream:
            show(stream, progress, silent=as_json, whole=no_stream)
        if stream.error is not None:
            raise stream.error
        completion = stream.completion()
        if completion.logprobs is not None and not as_json:
            click.echo("\n".join(logprob_lines(completion.logprobs, llm.tokenizer.token_bytes)), err=True)
        click.echo(as_line(completion) if as_json else summary(completion), err=not as_json)
    else:
        answer_all(llm, prompts, around, params, progress, as_line if as_json else None)
    if stats:
        click.echo("\n".join(stats_lines(llm.stats())), err=True)


def chat_setting(llm: LLM, setting: Setting, progress: Progress) -> Setting | None:
    """The setting, if the prompt goes through a chat template. Without a template the text of the prompt is continued,
    and a note says so."""
    if llm.chat_templates:
        return setting
    if setting.flag() is not None:
        raise Unsupported(f"{llm.model_name} has no chat template, so that {setting.flag()} has no place")
    progress.note(f"note: {llm.model_name} has no chat template; the prompt is continued as it is")
    return None


def start(llm: LLM, text: str, setting: Setting | None, params: SamplingParams) -> TokenStream:
    """The stream of the answer to the prompt, which may be a chat of one turn."""
    if setting is None:
        return llm.stream(text, params)
    return llm.stream_chat(setting.messages(text), params, **setting.options())


def show(stream: TokenStream, progress: Progress, *, silent: bool, whole: bool) -> None:
    """Runs the stream to its end; its text is printed piece by piece, at the end, or not at all."""
    pieces: list[str] = []
    with progress.during("reading the prompt"):
        first = next(stream, None)  # None if the answer fails at once
    progress.end()
    for chunk in chain(() if first is None else (first,), stream):
        pieces.append(chunk.text)
        if chunk.text and not (silent or whole):
            say(chunk.text)
    if not silent:
        say("".join(pieces) + "\n" if whole else "\n")


def summary(completion: Completion) -> str:
    """Seed and speeds on one line."""
    usage, timings = completion.usage, completion.timings
    drafts = [f"{usage.accepted_tokens} of {usage.draft_tokens} drafts accepted"] if usage.draft_tokens else []
    return " · ".join(
        (
            f"seed {completion.seed}",
            f"{usage.prompt_tokens} prompt tokens at {timings.prefill_tok_s:.0f} tok/s",
            f"{usage.completion_tokens} tokens at {timings.decode_tok_s:.0f} tok/s",
            f"first token {timings.ttft_s:.2f} s",
            *drafts,
        )
    )


def as_object(llm: LLM, completion: Completion, load_seconds: float, count: int | None) -> dict[str, Any]:
    """The object that --json prints. `count`: of --logprobs."""
    usage, timings, spelling = completion.usage, completion.timings, llm.tokenizer.token_bytes
    return {
        "model": llm.model_name,
        "backend": llm.backend_name,
        "dtype": llm.dtype_name,
        "seed": completion.seed,
        "text": completion.text,
        "token_ids": list(completion.token_ids),
        "prompt_token_ids": list(completion.prompt_token_ids),
        "finish_reason": completion.finish_reason.value,
        **({} if completion.logprobs is None else {"logprobs": as_list(completion.logprobs, count, spelling)}),
        "usage": {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens},
        "timings": {
            "load_s": load_seconds,
            "ttft_s": timings.ttft_s,
            "prefill_tok_s": timings.prefill_tok_s,
            "decode_tok_s": timings.decode_tok_s,
            "peak_rss_bytes": peak_rss_bytes(),
        },
    }
