"""Flags that several commands share, and the objects they become.

Owns: names, defaults and help of the shared flags. Values are checked where they are used (`SamplingParams`,
`EngineConfig`), so that the command line and Python refuse the same things in the same words.
Refuses to know: how an engine is made. Specs: CLI-20 to CLI-23. Next: `ferrum.cli.logprobs`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from ferrum.cli.chat_flags import CHAT_FLAGS, ChatFlags
from ferrum.cli.errors import DEBUG
from ferrum.cli.sampling_flags import SAMPLING_FLAGS, make_params
from ferrum.kv.eviction import POLICIES

DEFAULT_MODEL = "smollm2-135m-instruct"
MODEL_HELP = "An alias, a directory, a .gguf file or a hub id (org/name[@revision])."

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]


model_option = click.option("-m", "--model", default=DEFAULT_MODEL, show_default=True, help=MODEL_HELP)


@dataclass(frozen=True)
class EngineOptions:
    """What the model and engine flags say; None where nothing was said."""

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
                 help="auto (a GPU where there is one, else the CPU), numpy, numba, cupy or package.module:Class."),
    click.option("--dtype", default="auto", show_default=True,
                 help="Type of the weights: auto (as stored), float32, bfloat16, float16, q8_0, q4_0 or q4_1."),
    click.option("--compute", default="float32", show_default=True,
                 help="Arithmetic of products: float32 is exact; int8 rounds activations that meet quantised weights, "
                 "bfloat16 the operands of many tokens."),
    click.option("-t", "--threads", type=int, metavar="N",
                 help="Threads of the CPU backend.  [default: as many as this process may keep busy]"),
    click.option("--max-model-len", type=int, metavar="N", help="Longest context.  [default: the model's]"),
    click.option("--block-size", type=int, default=16, show_default=True, metavar="N", help="Positions per KV block."),
    click.option("--kv-memory", default="1GiB", show_default=True, metavar="SIZE", help="Memory for keys and values."),
    click.option("--host-kv-memory", default="0", show_default=True, metavar="SIZE",
                 help="More of it on the host, for what has to give way."),
    click.option("--kv-dtype", default="auto", show_default=True,
                 help="Type of keys and values: auto, float32, float16, bfloat16 or q8_0 (a quarter of the memory)."),
    click.option("--speculate", metavar="HOW",
                 help="Propose tokens and compute several a step: ngram or ngram:N looks them up in the text itself."),
    click.option("--draft-model", metavar="MODEL",
                 help="A smaller model of the same vocabulary that proposes them; --speculate draft:N says how many."),
    click.option("--gpu-memory-utilization", type=float, metavar="X",
                 help="Instead of --kv-memory: keys and values take what is left of this share of the GPU's memory."),
    click.option("--scheduler", default="fifo", show_default=True, help="Who comes first: fifo or priority."),
    click.option("--eviction", default="lru", show_default=True,
                 help=f"Which cached block is given up first: {', '.join(POLICIES)}."),
    click.option("--no-prefix-caching", "prefix_caching", is_flag=True, flag_value=False, default=True,
                 help="Compute every prompt in full."),
    click.option("--deterministic", is_flag=True,
                 help="Tokens depend, bit for bit, on nothing but their own prompt and parameters."),
)  # fmt: skip

offline_option = click.option("--offline", is_flag=True, help="Use only what is on this machine already.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def _remember_debug(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    context.meta[DEBUG] = value


debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_remember_debug, help="Show tracebacks of errors."
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
        own = {field: values.pop(field) for field in fields}
        return command(**{name: make(**own)}, **values)

    decorated: Callable[..., Any] = gathered
    inherited = len(getattr(gathered, "__click_params__", ()))
    for option in reversed(options):
        decorated = option(decorated)
    added: list[click.Parameter] = decorated.__click_params__[inherited:]  # type: ignore[attr-defined]
    fields = [parameter.name for parameter in added if parameter.name]
    return decorated
