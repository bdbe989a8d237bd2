"""From the fields of a request to `SamplingParams`.

Owns: which field is which parameter, and the one grammar that an answer can have. Refuses to know: prompts.
Specs: API-04, API-10, API-13. Next: `ferrum.api.answering`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ferrum.api.errors import invalid
from ferrum.api.protocol.sampling import ResponseFormat, SamplingBody, Structure
from ferrum.errors import InvalidParameter, quoted
from ferrum.sampling_params import EDITS, FILTERS, SamplingParams, StructuredOutputs
from ferrum.types import Priority

SAME = (
    "n", "temperature", *FILTERS, "mirostat_tau", "mirostat_eta", *EDITS, "seed", "stop", "stop_token_ids",
    "min_tokens", "ignore_eos", "include_stop_str_in_output", "skip_special_tokens", "logprobs_mode", "speculate",
)  # fmt: skip
"""Fields that are parameters of the same name."""


def sampling_params(body: SamplingBody, structure: StructuredOutputs | None = None, **more: Any) -> SamplingParams:
    """The parameters of a request. `structure` is the form of the answer (from `one_structure`), `more` are further
    parameters by name. Raises InvalidParameter and ApiError that name the field."""
    given = {name: value for name in SAME if (value := getattr(body, name)) is not None}
    if body.logit_bias:
        given["logit_bias"] = {_token(text): value for text, value in body.logit_bias.items()}
    return SamplingParams(**{**given, **more}, structured_outputs=structure)


def one_structure(body: SamplingBody, forced: StructuredOutputs | None = None) -> StructuredOutputs | None:
    """The form of the answer, by response_format, structured_outputs or tool_choice (`forced`), of which only one may
    be given."""
    given = {
        "tool_choice": forced,
        "response_format": None if body.response_format is None else _of_format(body.response_format),
        "structured_outputs": None if body.structured_outputs is None else _of_structure(body.structured_outputs),
    }
    found = {name: value for name, value in given.items() if value is not None}
    if len(found) > 1:
        names = " and ".join(found)
        raise invalid(f"{names} each ask for a form of the whole answer: give one of them", [*found][-1], "conflict")
    return next(iter(found.values()), None)


@contextmanager
def form_named(body: SamplingBody) -> Iterator[None]:
    """Errors about the form of the answer name the request's field that gave it."""
    try:
        yield
    except InvalidParameter as error:
        if error.field != "structured_outputs" or body.structured_outputs is not None:
            raise
        formed = body.response_format is not None and body.response_format.type != "text"
        raise InvalidParameter("response_format" if formed else "tools", " ".join(map(str, error.args[1:]))) from error


def priority(body: SamplingBody, scheduler: str) -> Priority:
    """The priority of the request. Raises ApiError if one is given and the scheduler does not use it."""
    if body.priority is None:
        return Priority.NORMAL
    if scheduler == "fifo":
        problem = "is given, but this server answers in the order of arrival: start it with --scheduler priority"
        raise invalid(f"priority {problem}", "priority", "unsupported_parameter")
    return Priority[body.priority.upper()]


def checked_stream(body: SamplingBody) -> None:
    """Raises ApiError for options of a stream without a stream, and for options that a stream does not support."""
    if body.stream and body.prompt_logprobs is not None:
        raise invalid("prompt_logprobs is not told in a stream", "prompt_logprobs", "unsupported_parameter")
    if body.stream_options is not None and not body.stream:
        raise invalid("stream_options needs stream to be true", "stream_options", "invalid_value")


def _token(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise invalid(f"logit_bias must have token ids as keys, not {quoted(text)}", "logit_bias", "invalid_value")
    return int(text)


def _of_format(form: ResponseFormat) -> StructuredOutputs | None:
    if (form.json_schema is None) != (form.type != "json_schema"):
        problem = "is missing" if form.json_schema is None else f"is given, but the type is {form.type}"
        raise invalid(f"response_format.json_schema {problem}", "response_format.json_schema", "invalid_value")
    if form.schema_ is not None and form.type != "json_object":
        raise invalid("response_format.schema belongs to json_object", "response_format.schema", "invalid_value")
    if form.type == "text":
        return None
    schema = form.schema_ if form.json_schema is None else form.json_schema.schema_
    try:
        return StructuredOutputs(json={"type": "object"} if schema is None else schema)
    except InvalidParameter as error:
        raise InvalidParameter("response_format", " ".join(map(str, error.args[1:]))) from error


def _of_structure(structure: Structure) -> StructuredOutputs:
    choice = None if structure.choice is None else tuple(structure.choice)
    return StructuredOutputs(
        structure.json_,
        structure.regex,
        choice,
        structure.grammar,
        structure.one_of_as_any_of,
        structure.strict_formats,
    )
