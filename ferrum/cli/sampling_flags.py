"""From the generation flags to `SamplingParams`: values that need more than a number, and presets.

Owns: how such a value is written on a command line. Refuses to know: what it does.
Specs: CLI-54, CLI-55. Next: `ferrum.cli.chat_flags`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ferrum.cli.prompt_text import decode
from ferrum.errors import quoted
from ferrum.files import reason
from ferrum.sampling_params import MOST_STRUCTURE, PRESETS, SamplingParams, StructuredOutputs

MOST_BYTES = 4 * MOST_STRUCTURE
"""Of a file with a schema, an expression or a grammar: a character has four bytes at most."""
_STRUCTURES = {"json_schema": "json", "regex": "regex", "grammar": "grammar"}
_SCHEMA_FLAGS = ("one_of_as_any_of", "strict_formats")


class TokenBias(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click only
    """ID=X -> (token id, what is added to its logit)"""

    name = "bias"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, float]:
        token, _, bias = str(value).partition("=")
        try:
            return int(token), float(bias)
        except ValueError:
            self.fail(f"{quoted(value)} is not of the form ID=X, such as 198=-5", param, ctx)


class TextOrFile(click.ParamType):  # type: ignore[type-arg]
    """The text itself, or @FILE for what is in a file; a text that begins with @ begins with @@ here."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not str(value).startswith("@"):
            return str(value)
        if str(value).startswith("@@"):
            return str(value)[1:]
        path = Path(str(value)[1:])
        try:
            with path.open("rb") as source:  # a pipe, too: `@<(command)`
                content = source.read(MOST_BYTES + 1)
        except (OSError, ValueError) as error:
            self.fail(f"{quoted(str(path))[1:-1]} cannot be read: {reason(error)}", param, ctx)
        if len(content) > MOST_BYTES:
            self.fail(f"{path} has more than {MOST_BYTES} bytes: that is no structure", param, ctx)
        return decode(content, str(path))


def given_fields() -> set[str]:
    """The fields of `SamplingParams` that this command line says something of."""
    context = click.get_current_context()
    given = {flag for flag in context.params if context.get_parameter_source(flag) is ParameterSource.COMMANDLINE}
    fields = {"structured_outputs" if flag in (*_STRUCTURES, *_SCHEMA_FLAGS) else flag for flag in given}
    return fields | set(PRESETS[context.params["preset"]]) if "preset" in given else fields


def make_params(preset: str | None, **values: Any) -> SamplingParams:
    """The parameters that the flags ask for. A preset takes the place of what was not given; what it says nothing of is
    off, unless it was given. Raises UsageError for two structures, InvalidParameter for a value that cannot be."""
    given = {flag: values.pop(flag) for flag in _STRUCTURES}
    structures = {field: given[flag] for flag, field in _STRUCTURES.items() if given[flag] is not None}
    if len(structures) > 1:
        raise click.UsageError("only one of --json-schema, --regex and --grammar can be followed")
    ways: dict[str, Any] = {flag: True for flag in _SCHEMA_FLAGS if values.pop(flag)}
    if ways and not structures:
        raise click.UsageError(f"--{next(iter(ways)).replace('_', '-')} is for --json-schema or --grammar")
    if structures:
        values["structured_outputs"] = StructuredOutputs(**structures, **ways)
    values["logit_bias"] = dict(values["logit_bias"])
    if preset is not None:
        context = click.get_current_context()
        for name in ("temperature", "top_k", "top_p"):  # whose defaults here are not the neutral ones
            if context.get_parameter_source(name) is ParameterSource.DEFAULT:
                del values[name]
        for name, value in PRESETS[preset].items():
            if name not in values or context.get_parameter_source(name) is ParameterSource.DEFAULT:
                values[name] = value
    return SamplingParams(**values)
