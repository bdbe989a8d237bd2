"""`ferrum-ref bench serve --url …`: load and latency of any server with the OpenAI API.

Owns: the flags, Ctrl-C, and where the result goes. Refuses to know: how anything is measured.
Specs: BENCH-07, BENCH-23, BENCH-33 to BENCH-37. See: `docs/load-testing.md`. Next: `ferrum.cli.batch`.
"""

from __future__ import annotations

import json
import math
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from ferrum.cli.errors import FAILED, INTERRUPTED, complain
from ferrum.cli.options import debug_option, json_option
from ferrum.cli.terminal import Progress, printable
from ferrum.cli.terminal import as_json as json_text
from ferrum.errors import InvalidParameter, NotFound, quoted
from ferrum.files import replacing
from ferrum.load_test.goals import Goal, read_goal
from ferrum.load_test.plan import Plan, Setup
from ferrum.load_test.workload import RandomWords, Workload, read_prompts

REQUESTS = 100
_COUNT = click.IntRange(min=1)
_FILE = click.Path(dir_okay=False, path_type=Path)


class Positive(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click only
    """A finite number above 0."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = math.nan
        with suppress(ValueError):
            number = float(value)
        if not 0 < number < math.inf:
            self.fail(f"{quoted(value)} is not a number above 0", param, ctx)
        return number


class GoalType(click.ParamType):  # type: ignore[type-arg]
    """NAME:MS -> a goal."""

    name = "goal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Goal:
        try:
            return read_goal(str(value))
        except InvalidParameter as error:
            self.fail(str(error), param, ctx)


_FLAGS = (
    click.option("--url", required=True, metavar="URL", help="Address of the server, such as http://127.0.0.1:8000."),
    click.option("--endpoint", type=click.Choice(["chat", "completions"]), default="chat", show_default=True,
                 help="API that the requests use."),
    click.option("-m", "--model", metavar="NAME",
                 help="Model that the requests name.  [default: the first that the server lists]"),
    click.option("--api-key", envvar="OPENAI_API_KEY", show_envvar=True, metavar="KEY",
                 help="Key that the requests send."),
    click.option("-c", "--concurrency", type=_COUNT, metavar="N",
                 help="Number of clients, each of which sends its next request when it has its answer; with --rate, "
                 "most requests at a time.  [default: 1; with --rate, no limit]"),
    click.option("--rate", type=Positive(), metavar="R",
                 help="Send R requests per second on average, at random times, without waiting for answers."),
    click.option("--requests", type=_COUNT, metavar="N",
                 help=f"End after N requests.  [default: {REQUESTS}, unless --duration is given]"),
    click.option("--duration", type=Positive(), metavar="S",
                 help="Send requests for S seconds, then wait for the answers."),
    click.option("--warmup", type=click.IntRange(min=0), default=1, show_default=True, metavar="N",
                 help="Requests before the measurement, which are not counted."),
    click.option("--prompt-tokens", type=_COUNT, default=256, show_default=True, metavar="N",
                 help="Approximate length in tokens of a prompt, which is made of random words."),
    click.option("--shared-prefix", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
                 help="Approximate number of tokens at the beginning that all prompts share."),
    click.option("--prompts", type=_FILE, metavar="FILE",
                 help="Read prompts from a file: one on each line, or, in a .jsonl file, objects with messages or "
                 "prompt."),
    click.option("-n", "--max-tokens", type=_COUNT, default=128, show_default=True, metavar="N",
                 help="Longest answer in tokens."),
    click.option("--temperature", "--temp", "temperature", type=float, metavar="X",
                 help="Temperature that the requests name.  [default: none: the server decides]"),
    click.option("--ignore-eos", is_flag=True,
                 help="Ask for answers of --max-tokens tokens. Not every server knows this field."),
    click.option("--no-usage", is_flag=True,
                 help="Count the pieces of a stream as tokens. Use it for a server that refuses to send its own "
                 "count."),
    click.option("--slo", type=GoalType(), multiple=True, metavar="NAME:MS",
                 help="A goal in milliseconds, such as ttft:500, and print how many requests meet it. ttft: time to "
                 "the first token; tpot: time per further token; e2e: whole answer. May be repeated."),
    click.option("--timeout", type=Positive(), default=600.0, show_default=True, metavar="S",
                 help="Longest time for one answer, in seconds."),
    click.option("--seed", type=int, metavar="N",
                 help="Seed of the prompts and of the times of sending: the same seed repeats them.  [default: "
                 "drawn, and printed]"),
    click.option("-o", "--output", type=_FILE, metavar="FILE",
                 help="Write the result and the times of each request as JSON."),
    click.option("--plot", type=_FILE, metavar="FILE", help="Write a plot of the result to a .svg or .png file."),
)  # fmt: skip


def _flags(command: Callable[..., None]) -> Callable[..., None]:
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


@click.command()
@_flags
@json_option
@debug_option
def serve(as_json: bool, output: Path | None, plot: Path | None, **flags: Any) -> None:
    """Measure load and latency of any server with the OpenAI API."""
    import asyncio

    from ferrum.load_test.measurement import measure

    check_places(output, plot)
    setup = make_setup(**flags)
    progress = Progress()
    with progress.during(f"asking {setup.base}"):
        result = asyncio.run(measure(setup, progress.show, on_interrupt))
    requests = result.pop("each")
    show(result, as_json)
    write({**result, "each": requests}, output, plot)
    end(result)


def make_setup(
    url: str, slo: tuple[Goal, ...], no_usage: bool, seed: int | None, prompts: Path | None, **flags: Any
) -> Setup:
    """The measurement that the flags ask for. Raises InvalidParameter for what contradicts itself, NotFound and
    InvalidFormat for a file of prompts."""
    from ferrum.load_test.server import base_url

    seed = secrets.randbits(32) if seed is None else seed
    tokens, shared, requests, duration, concurrency, rate = (
        flags.pop(name) for name in ("prompt_tokens", "shared_prefix", "requests", "duration", "concurrency", "rate")
    )
    if shared > tokens:
        raise InvalidParameter("shared_prefix", f"of {shared} tokens is longer than a prompt of {tokens}")
    workload: Workload = RandomWords(tokens, shared, seed)
    if prompts is not None:
        workload = read_prompts(prompts, messages=flags["endpoint"] == "chat")
    plan = Plan(
        requests=REQUESTS if requests is None and duration is None else requests,
        duration=duration,
        concurrency=1 if concurrency is None and rate is None else concurrency,
        rate=rate,
        seed=seed,
    )
    return Setup(base_url(url), workload=workload, plan=plan, usage=not no_usage, goals=slo, **flags)


def check_places(output: Path | None, plot: Path | None) -> None:
    """Raises NotFound or Unsupported if a result file cannot be written."""
    for path in filter(None, (output, plot)):
        if not path.absolute().parent.is_dir():
            raise NotFound(f"{path.parent} does not exist, so that {path.name} cannot be written there")
    if plot is not None:
        from ferrum.load_test.picture import require_plot

        require_plot(plot)


@contextmanager
def on_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """While the block runs, the first Ctrl-C calls `stop`; a second one raises KeyboardInterrupt."""
    import asyncio

    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        stop()

    loop.add_signal_handler(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def show(result: dict[str, Any], as_json: bool) -> None:
    from ferrum.load_test.report import lines

    click.echo(json_text(result) if as_json else printable("\n".join(lines(result))))


def write(result: dict[str, Any], output: Path | None, plot: Path | None) -> None:
    """Writes the files that were asked for. Raises OSError."""
    if output is not None:
        with replacing(output) as file:
            file.write(json.dumps(result, indent=1).encode())
    if plot is not None:
        from ferrum.load_test.picture import draw

        draw(result, plot)


def end(result: dict[str, Any]) -> None:
    """Ends the command with the exit code of the result."""
    if result["interrupted"]:
        raise click.exceptions.Exit(INTERRUPTED)
    if not result["requests"]["succeeded"]:
        first = next(iter(result["failures"]), {"kind": "none was sent", "message": "the time was too short"})
        complain(f"no request succeeded: {first['kind']}: {first['message']}")
        raise click.exceptions.Exit(FAILED)
