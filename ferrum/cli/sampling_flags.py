"""The generation flags, and the `SamplingParams` that they become.

Owns: the flags. A parameter that is a number has its flag from its declaration in `SamplingParams`: name, type, range
and help; here are the defaults of the command line where they differ, and how other values are written. Refuses to
know: what the parameters do.
Specs: CLI-54, CLI-55. Next: `ferrum.cli.chat_flags`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from ferrum.cli.prompt_text import decode
from ferrum.errors import quoted
from ferrum.files import reason
from ferrum.sampling_params import (
    EDITS,
    FILTERS,
    MOST_STRUCTURE,
    NUMBERS,
    PRESETS,
    SamplingParams,
    StructuredOutputs,
)

Command = TypeVar("Command", bound=Callable[..., Any])

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


DEFAULTS: Mapping[str, float] = {"max_tokens": 512, "temperature": 0.8, "top_k": 40, "top_p": 0.95}
"""The defaults of flags, where they differ from those of `SamplingParams`."""


def number_flag(name: str, *names: str) -> Callable[[Command], Command]:
    """The flag of a numeric parameter, made from its declaration; `names` are other spellings of the flag."""
    declared = NUMBERS[name]
    return click.option(
        f"--{name.replace('_', '-')}", *names, name, type=declared.kind, default=DEFAULTS.get(name, declared.default),
        show_default=True, metavar=declared.metavar, help=declared.help,
    )  # fmt: skip


SAMPLING_FLAGS = (
    number_flag("max_tokens", "-n"),
    number_flag("min_tokens"),
    number_flag("temperature", "--temp"),
    *map(number_flag, FILTERS),
    number_flag("mirostat_tau"),
    number_flag("mirostat_eta"),
    *map(number_flag, EDITS),
    click.option("--logit-bias", type=TokenBias(), multiple=True, metavar="ID=X",
                 help="Add X to the logit of token ID: 100 practically forces the token, -100 excludes it; may be "
                 "repeated. `ferrum-ref tokenize` prints the ids of a text."),
    click.option("--seed", type=int, metavar="N",
                 help="Start of the random numbers: the same seed, prompt and parameters give the same answer.  "
                 "[default: drawn, and printed]"),
    click.option("--stop", multiple=True, metavar="TEXT",
                 help="End the answer where TEXT appears in it, and leave TEXT out; may be repeated."),
    click.option("--stop-token-ids", "--stop-token-id", type=int, multiple=True, metavar="ID",
                 help="End the answer at the token with this id; may be repeated."),
    click.option("--include-stop-str-in-output", "--include-stop", is_flag=True,
                 help="Print also the text that ended the answer (--stop, or the text of an end token)."),
    click.option("--ignore-eos", is_flag=True,
                 help="Do not end the answer at the model's end token: generate up to --max-tokens tokens."),
    click.option("--logprobs", type=int, metavar="N",
                 help="Print the log probability of each token of the answer, and of the N most likely tokens in its "
                 "place; -1: of all tokens."),
    click.option("--json-schema", type=TextOrFile(), metavar="SCHEMA",
                 help="The answer is JSON that matches this JSON schema; @FILE reads the schema from a file."),
    click.option("--regex", type=TextOrFile(), metavar="REGEX",
                 help="The whole answer matches this regular expression; @FILE reads it from a file."),
    click.option("--grammar", type=TextOrFile(), metavar="GRAMMAR",
                 help="The whole answer matches this grammar (Lark or GBNF); @FILE reads it from a file."),
    click.option("--one-of-as-any-of", is_flag=True,
                 help="In a schema, treat oneOf as anyOf: the answer may match several of the alternatives."),
    click.option("--strict-formats", is_flag=True,
                 help="Refuse a schema with an unknown `format`, instead of ignoring the format."),
    click.option("--preset", type=click.Choice(list(PRESETS)),
                 help="Set several of these parameters at once; a flag that is given beside it wins."),
)  # fmt: skip


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
        for name in DEFAULTS.keys() - {"max_tokens"}:  # a preset that does not name them means the parameters' defaults
            if context.get_parameter_source(name) is ParameterSource.DEFAULT:
                del values[name]
        for name, value in PRESETS[preset].items():
            if name not in values or context.get_parameter_source(name) is ParameterSource.DEFAULT:
                values[name] = value
    return SamplingParams(**values)
