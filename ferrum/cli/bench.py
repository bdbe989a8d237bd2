"""`ferrum-ref bench`: the speed of one model on one backend.

Owns: what is measured. Prefill: the time from submitting prompts of random tokens until each has its first new token.
Decode: the time of as many further steps as tokens are to be generated; every sequence gets one token in each. Both go
through the engine as any request does. Refuses to know: why it is fast.
Specs: CLI-40 to CLI-46, BENCH-37. Next: `ferrum.cli.bench_serve`.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ferrum.cli.errors import Program
from ferrum.cli.loading import load, load_random
from ferrum.cli.options import EngineOptions, debug_option, engine_options, json_option
from ferrum.cli.statistics import peak_rss_bytes, why_not
from ferrum.cli.terminal import Progress, human_bytes
from ferrum.errors import InvalidParameter
from ferrum.load.shapes import SHAPES
from ferrum.sampling_params import SamplingParams

if TYPE_CHECKING:
    from ferrum.engine.llm import LLM
    from ferrum.engine.request import Request

_COUNT = click.IntRange(min=1)


class Bench(Program):
    """`bench` is a command itself; its subcommand `serve` is imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["serve"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "serve":
            return None
        from ferrum.cli.bench_serve import serve

        return serve


@click.group(cls=Bench, invoke_without_command=True)
@click.option(
    "-p",
    "--prompt-len",
    type=_COUNT,
    default=512,
    show_default=True,
    metavar="N",
    help="Length of each prompt in tokens.",
)
@click.option(
    "-n", "--gen-len", type=_COUNT, default=64, show_default=True, metavar="N", help="Length of each answer in tokens."
)
@click.option(
    "-b", "--batch", type=_COUNT, default=1, show_default=True, metavar="N", help="Sequences at the same time."
)
@click.option(
    "-r",
    "--repeats",
    type=_COUNT,
    default=3,
    show_default=True,
    metavar="N",
    help="Measure N times and print the median.",
)
@click.option(
    "--shape",
    metavar="NAME",
    help=f"Use random weights with the sizes of a known model, without a download: {', '.join(SHAPES)}.  "
    "[--dtype auto: q4_0]",
)
@engine_options
@json_option
@debug_option
def bench(
    prompt_len: int, gen_len: int, batch: int, repeats: int, shape: str | None, as_json: bool, engine: EngineOptions
) -> None:
    """Measure how fast a model reads prompts (prefill) and generates tokens (decode)."""
    context = click.get_current_context()
    if context.invoked_subcommand:
        check_nothing_given(context)
        return
    progress = Progress()
    if shape is None:
        llm = load(engine, progress, max_num_seqs=batch)
    else:
        check_no_model()
        llm = load_random(engine, shape, progress, max_num_seqs=batch)
    check_room(llm, prompt_len, gen_len, batch)
    prefill, decode = [], []
    for repeat in range(repeats + 1):
        with progress.during(f"repeat {repeat} of {repeats}" if repeat else "warming up"):
            rates = measure(llm, prompts(llm, prompt_len, batch, repeat), gen_len)
            llm.scheduler.manager.gc()  # or memory would grow with every repeat
        if repeat:  # the first one compiles, and touches memory for the first time
            prefill.append(rates[0])
            decode.append(rates[1])
    steps = llm.stats().decode
    result = {
        "model": llm.model_name,
        "backend": llm.backend_name,
        "dtype": llm.dtype_name,
        "threads": llm.runner.ops.threads,
        "prompt_len": prompt_len,
        "gen_len": gen_len,
        "batch": batch,
        "prefill_tok_s": statistics.median(prefill),
        "decode_tok_s": statistics.median(decode),
        "peak_rss_bytes": peak_rss_bytes(),
        "decode_steps": steps.total,
        "replayed_steps": steps.replayed,
    }
    if steps.replayed < steps.total:
        message = f"{steps.total - steps.replayed} of {steps.total} decode steps were not replayed, which takes longer"
        progress.note(f"warning: {message}{why_not(steps)}")
    click.echo(json.dumps(result) if as_json else "\n".join(lines(result)))


def check_nothing_given(context: click.Context) -> None:
    """Raises UsageError for flags before the name of the subcommand, which would be ignored."""
    for parameter in context.command.params:
        if context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{parameter.opts[-1]} does not go with {context.invoked_subcommand}", context)


def check_no_model() -> None:
    """Raises InvalidParameter for a model beside --shape: one of the two would be ignored."""
    source = click.get_current_context().get_parameter_source("model")
    if source not in (None, ParameterSource.DEFAULT):
        raise InvalidParameter("shape", "stands for random weights: it cannot go with -m/--model")


def prompts(llm: LLM, length: int, count: int, seed: int) -> list[list[int]]:
    """Prompts of random tokens, which depend on the seed only."""
    generator = random.Random(seed)
    return [[generator.randrange(llm.config.vocab_size) for _ in range(length)] for _ in range(count)]


def measure(llm: LLM, prompt_ids: list[list[int]], gen_len: int) -> tuple[float, float]:
    """Tokens per second of prefill and of decode, of all sequences together. With speculation a step may add several
    tokens to a sequence."""
    started = time.perf_counter()
    step_until_all_started(llm, submit(llm, prompt_ids, max_tokens=1))
    prefill_seconds = time.perf_counter() - started

    requests = submit(llm, prompt_ids, max_tokens=gen_len + slack(llm, prompt_ids))
    try:
        step_until_all_started(llm, requests)
        before, started = generated(requests), time.perf_counter()
        while llm.engine.has_work and generated(requests) - before < len(requests) * gen_len:
            llm.engine.step()
        decode_seconds = time.perf_counter() - started
        made = generated(requests) - before
    finally:
        for request in requests:
            llm.engine.cancel(request)
    return len(prompt_ids) * len(prompt_ids[0]) / prefill_seconds, made / decode_seconds


def submit(llm: LLM, prompt_ids: list[list[int]], max_tokens: int) -> list[Request]:
    params = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)
    return [llm.engine.submit(prompt, params) for prompt in prompt_ids]


def generated(requests: list[Request]) -> int:
    """The tokens of all sequences so far."""
    return sum(len(request.generations[0].chunks) for request in requests)


def step_until_all_started(llm: LLM, requests: list[Request]) -> None:
    """Runs the engine until every sequence has generated a token."""
    while not all(request.generations[0].chunks for request in requests):
        llm.engine.step()


def slack(llm: LLM, prompt_ids: list[list[int]]) -> int:
    """Tokens that the first sequence gets while the last prompt is still being read: one per step."""
    per_step = llm.engine_config.max_num_batched_tokens - len(prompt_ids)
    return 1 + len(prompt_ids) * len(prompt_ids[0]) // max(per_step, 1)


def check_room(llm: LLM, prompt_len: int, gen_len: int, batch: int) -> None:
    """Raises InvalidParameter if not all sequences can run at the same time."""
    longest = prompt_len + gen_len + slack(llm, [[0] * prompt_len] * batch)
    if longest > llm.max_model_len:
        context = llm.max_model_len
        raise InvalidParameter("prompt_len", f"and gen_len need {longest} positions, but the context has {context}")
    blocks = -(-longest // llm.engine_config.block_size)
    if batch * blocks > llm.scheduler.manager.device.total:
        raise InvalidParameter("batch", f"of {batch} sequences of {longest} tokens does not fit: raise --kv-memory")


def lines(result: dict[str, Any]) -> list[str]:
    """The result as lines of text."""
    r = result
    return [
        f"{r['model']}, {r['dtype']}, on {r['backend']} with {r['threads']} threads",
        f"prefill {r['prefill_tok_s']:10.1f} tok/s   {r['batch']} × {r['prompt_len']} tokens",
        f"decode  {r['decode_tok_s']:10.1f} tok/s   {r['batch']} × {r['gen_len']} tokens",
        f"memory  {human_bytes(r['peak_rss_bytes']):>10} at most",
    ]
