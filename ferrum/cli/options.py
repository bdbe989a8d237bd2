"""Flags that several commands share, and the objects made of their values.

Owns: names, defaults and help of the shared flags. Values are checked where they are used (`SamplingParams`,
`EngineConfig`), so that the command line and Python refuse the same things in the same words.
Refuses to know: how an engine is made. Specs: CLI-20 to CLI-23. Next: `ferrum.cli.logprobs`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from ferrum.cli.chat_flags import CHAT_FLAGS, ChatFlags
from ferrum.cli.errors import DEBUG
from ferrum.cli.sampling_flags import SAMPLING_FLAGS, make_params
from ferrum.kv.eviction import POLICIES

DEFAULT_MODEL = "smollm2-135m-instruct"
MODEL_HELP = "An alias that `ferrum-ref models` lists, a directory, a .gguf file, or org/name[@revision] on the hub."


model_option = click.option("-m", "--model", default=DEFAULT_MODEL, show_default=True, help=MODEL_HELP)


@dataclass(frozen=True)
class EngineOptions:
    """The values of the flags of model and engine; None for a flag that was not given."""

    model: str
    backend: str
    dtype: str
    compute: str
    threads: int | None
    max_model_len: int | None
    block_size: int
    kv_memory: str
    host_kv_memory: str
    scheduler: str
    eviction: str
    prefix_caching: bool
    deterministic: bool
    offline: bool
    kv_dtype: str = "auto"
    gpu_memory_utilization: float | None = None
    speculate: str | None = None
    draft_model: str | None = None


_ENGINE = (
    model_option,
    click.option("--backend", default="auto", show_default=True,
                 help="What computes: numba (CPU), cupy (NVIDIA GPU), numpy (the slow reference), "
                 "package.module:Class, or auto: cupy if there is a GPU, else numba."),
    click.option("--dtype", default="auto", show_default=True,
                 help="Number type of the weights: auto (as stored), float32, bfloat16, float16, q8_0, q4_0 or "
                 "q4_1. Fewer bits need less memory and are faster, and the answers are slightly worse."),
    click.option("--compute", default="float32", show_default=True,
                 help="Arithmetic of matrix products. float32: exact. int8: faster with quantised weights, rounds "
                 "the activations. bfloat16: faster for many tokens at a time, rounds both operands."),
    click.option("-t", "--threads", type=int, metavar="N",
                 help="Threads of the CPU backend.  [default: all cores that this process may use]"),
    click.option("--max-model-len", type=int, metavar="N",
                 help="Most tokens of a prompt and its answer together; a smaller number needs less memory.  "
                 "[default: the model's limit]"),
    click.option("--block-size", type=int, default=16, show_default=True, metavar="N",
                 help="Tokens per block of the memory for keys and values. A smaller block wastes less memory; a "
                 "larger block is faster."),
    click.option("--kv-memory", default="1GiB", show_default=True, metavar="SIZE",
                 help="Memory for the keys and values of all sequences, such as 512MiB. It limits how many "
                 "sequences run at a time and how long they are."),
    click.option("--host-kv-memory", default="0", show_default=True, metavar="SIZE",
                 help="Additional memory on the host: blocks that have no room are moved there instead of being "
                 "dropped."),
    click.option("--kv-dtype", default="auto", show_default=True,
                 help="Number type of keys and values: auto, float32, float16, bfloat16, or q8_0, which takes about "
                 "a quarter of the memory of float32."),
    click.option("--speculate", metavar="HOW",
                 help="Guess several tokens at a time and check them in one step, which is faster where the guesses "
                 "are right. ngram or ngram:N: copy up to N tokens that followed the same words earlier in the "
                 "text."),
    click.option("--draft-model", metavar="MODEL",
                 help="A smaller model with the same vocabulary, which makes the guesses; --speculate draft:N sets "
                 "how many."),
    click.option("--gpu-memory-utilization", type=float, metavar="X",
                 help="In place of --kv-memory, on a GPU: share of its memory for the program, from 0 to 1; keys "
                 "and values get what the weights leave."),
    click.option("--scheduler", default="fifo", show_default=True,
                 help="Order in which requests run: fifo (order of arrival) or priority (critical, high, normal, low; "
                 "a request that waits rises)."),
    click.option("--eviction", default="lru", show_default=True,
                 help="Which unused block of the prefix cache is dropped first when memory is full: "
                 f"{', '.join(POLICIES)}."),
    click.option("--no-prefix-caching", "prefix_caching", is_flag=True, flag_value=False, default=True,
                 help="Compute each prompt completely. Otherwise the keys and values of a beginning that was "
                 "computed before are used again."),
    click.option("--deterministic", is_flag=True,
                 help="Give the same answer, bit for bit, whatever other requests run at the same time. Prompts are "
                 "slower on a GPU; on numba only operations without a kernel are."),
)  # fmt: skip

offline_option = click.option(
    "--offline", is_flag=True, help="Download nothing: use only files that are on this machine."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object, for programs.")


def _remember_debug(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    context.meta[DEBUG] = value


debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_remember_debug, help="Show the Python traceback of an error."
)


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the flags of model and engine; the command receives `engine: EngineOptions`."""
    return _gather(command, "engine", EngineOptions, (*_ENGINE, offline_option))


def sampling_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the generation flags; the command receives `params: SamplingParams`."""
    return _gather(command, "params", make_params, SAMPLING_FLAGS)


def chat_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the flags of the chat template; the command receives `flags: ChatFlags`."""
    return _gather(command, "flags", ChatFlags, CHAT_FLAGS)


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the flags of a server; the command receives `server: ServerFlags`."""
    from ferrum.cli.server_flags import SERVER_FLAGS, ServerFlags

    return _gather(command, "server", ServerFlags, SERVER_FLAGS)


def service_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the flags of a model that answers requests; the command receives `service: ServiceFlags`."""
    from ferrum.cli.service_flags import SERVICE_FLAGS, ServiceFlags

    return _gather(command, "service", ServiceFlags, SERVICE_FLAGS)


def ray_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the flags of a command that can run on several machines; the command receives `ray: RayFlags`."""
    from ferrum.cli.service_flags import RAY_FLAGS, RayFlags

    return _gather(command, "ray", RayFlags, RAY_FLAGS)


def _gather(
    command: Callable[..., Any],
    name: str,
    make: Callable[..., object],
    options: tuple[Callable[[Callable[..., Any]], Callable[..., Any]], ...],
) -> Callable[..., Any]:
    """Adds `options` to the command, which receives their values as one argument, `name`, made by `make`."""

    @functools.wraps(command)
    def gathered(**values: Any) -> Any:
        flag_values = {field: values.pop(field) for field in fields}
        return command(**{name: make(**flag_values)}, **values)

    decorated: Callable[..., Any] = gathered
    inherited = len(getattr(gathered, "__click_params__", ()))
    for option in reversed(options):
        decorated = option(decorated)
    added: list[click.Parameter] = decorated.__click_params__[inherited:]  # type: ignore[attr-defined]
    fields = [parameter.name for parameter in added if parameter.name]
    return decorated
