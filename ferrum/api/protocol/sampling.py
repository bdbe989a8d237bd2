"""The sampling fields of completions and chats, and fields of OpenAI's API that have no effect here.

Owns: the fields that both share. Numbers are explained by their declaration in `SamplingParams` and checked by it, so
that HTTP, Python and the command line refuse the same values with the same message. Refuses to know: prompts.
Specs: API-02, API-04, API-09, API-10. Source: OpenAI's API reference; vLLM's "extra parameters".
Next: `ferrum.api.protocol.usage`.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field

from ferrum.api.protocol.base import Body, Many, Off, label, unsupported
from ferrum.parameter import Number
from ferrum.sampling_params import NUMBERS

MOST_LOGPROBS = 20
MOST_CHOICES = 128


def number_field(
    name: str, more: str = "", *, default: str | None = None, ge: int | None = None, le: int | None = None
) -> Any:
    """A field for a numeric parameter, described by the declaration of the parameter in `SamplingParams` and by `more`.
    `default`: in words, if it is not that of the declaration. `ge`, `le`: limits that take the place of its range."""
    declared = NUMBERS[name]
    named = re.search(rf"\b{declared.metavar}\b", declared.help)
    value = f" {declared.metavar} is the value of this field." if named else ""
    default = f"{declared.default:g}" if default is None else default
    explained = f"{declared.help}{value} Default: {default}. {more}".rstrip()
    limited = ge is not None or le is not None
    return Field(
        None, ge=ge, le=le, description=explained, json_schema_extra=None if limited else _range_in_document(declared)
    )


def _range_in_document(declared: Number) -> dict[str, Any]:
    """The range as keywords of JSON Schema, which only describe it. A value between `also_off` and `least` fits them,
    and is refused."""
    if declared.choices:
        return {"enum": [*declared.choices, None]}
    least = declared.least if declared.also_off is None else declared.also_off
    limits = {"exclusiveMinimum" if declared.above_least and declared.also_off is None else "minimum": least}
    return limits if declared.most is None else {**limits, "maximum": declared.most}


def priority_field() -> Any:
    """How urgent a request is."""
    return Field(
        None, description="How urgent the request is; needs a server that was started with --scheduler priority."
    )


def speculate_field() -> Any:
    """What proposes tokens for a request."""
    return Field(
        None,
        max_length=16,
        description='What proposes tokens: "ngram", "ngram:N", "draft", "draft:N" or "off"; N is the largest number of '
        "proposals a step. Default: the setting of the server.",
    )


class StreamOptions(Body):
    """The contents of a stream beside its text."""

    include_usage: bool | None = Field(None, description="A last chunk has the counts of tokens.")
    continuous_usage_stats: bool | None = Field(None, description="Every chunk has the counts of tokens.")
    include_obfuscation: Off | None = unsupported("is not supported: nothing is obfuscated")


class JsonSchemaFormat(Body):
    """A JSON schema with a name."""

    name: str | None = Field(
        None, min_length=1, max_length=64, description="A name for the schema; it changes nothing."
    )
    schema_: dict[str, Any] | None = Field(None, alias="schema", description="The schema. Default: that of any object.")
    description: str | None = Field(None, description="An explanation of the schema for people; it changes nothing.")
    strict: bool | None = Field(None, description="No effect: the answer always fits its schema.")


class ResponseFormat(Body):
    """The form of the answer: any text, a JSON object, or JSON that matches a schema."""

    type: Literal["text", "json_object", "json_schema"] = Field(
        description="text: any text; json_object: a JSON object; json_schema: JSON that matches the schema in"
        " `json_schema`."
    )
    json_schema: JsonSchemaFormat | None = Field(None, description="The schema, for the type json_schema only.")
    schema_: dict[str, Any] | None = Field(None, alias="schema", description="A schema for json_object.")


class Structure(Body):
    """vLLM's `structured_outputs`: exactly one of the first four."""

    json_: dict[str, Any] | str | None = Field(
        None,
        alias="json",
        description="The answer is JSON that matches this JSON schema, which may be given as an object or as text.",
    )
    regex: str | None = Field(
        None, description="The whole answer matches this regular expression, in the syntax of Rust's regex library."
    )
    choice: Many[str] | None = Field(None, description="The answer is one of these texts.")
    grammar: str | None = Field(
        None, description="The answer matches this context-free grammar, in Lark's syntax or in llama.cpp's GBNF."
    )
    one_of_as_any_of: bool = Field(
        False, description="For schemas. True: more than one part of a `oneOf` may fit. Default: false."
    )
    strict_formats: bool = Field(
        False, description="For schemas. True: an unknown `format` is refused instead of ignored. Default: false."
    )


class SamplingBody(Body):
    """The fields that all requests for text share. Fields of the last group are labels for the caller and change no
    answer."""

    model: str | None = Field(None, description="A served model name; default: the first.")
    n: int | None = number_field("n", ge=1, le=MOST_CHOICES)
    max_tokens: int | None = number_field("max_tokens", "0 is allowed with `echo`.", ge=0)
    temperature: float | None = number_field("temperature")
    top_p: float | None = number_field("top_p")
    presence_penalty: float | None = number_field("presence_penalty")
    frequency_penalty: float | None = number_field("frequency_penalty")
    logit_bias: dict[str, float] | None = Field(None, description="Token id -> number that is added to its logit.")
    seed: int | None = Field(
        None,
        description="Start of the random numbers: the same seed, prompt and parameters give the same answer. "
        "Default: a number that is drawn.",
    )
    stop: str | Many[str] | None = Field(
        None, description="A text, or a list of texts, that ends the answer where it appears."
    )
    stream: bool | None = Field(
        None, description="True: the answer is sent in chunks, as server-sent events. Default: false."
    )
    stream_options: StreamOptions | None = Field(
        None, description="The contents of the stream beside its text; needs `stream`."
    )
    response_format: ResponseFormat | None = Field(
        None, description="The form that the answer must have. Default: any text."
    )

    # fields of vLLM's API
    top_k: int | None = number_field("top_k")
    min_p: float | None = number_field("min_p")
    repetition_penalty: float | None = number_field("repetition_penalty")
    min_tokens: int | None = number_field("min_tokens")
    stop_token_ids: Many[int] | None = Field(
        None, description="Tokens that end the answer, beside the model's own end tokens."
    )
    ignore_eos: bool | None = Field(
        None, description="True: the model's end tokens do not end the answer. Default: false."
    )
    include_stop_str_in_output: bool | None = Field(
        None,
        description="True: the text of the stop string or of the token that ended the answer belongs to the "
        "answer. Default: false.",
    )
    skip_special_tokens: bool | None = Field(
        None,
        description="False: special tokens have their text in the answer. Default: true; in a chat false, if "
        "special tokens mark the model's calls or thoughts.",
    )
    logprobs_mode: Literal["raw_logprobs", "processed_logprobs"] | None = Field(
        None,
        description="raw_logprobs: log probabilities are those of the model; processed_logprobs: those of the"
        " distribution from which the token was drawn. Default: raw_logprobs.",
    )
    prompt_logprobs: int | None = Field(
        None,
        ge=0,
        le=MOST_LOGPROBS,
        description="For each token of the prompt report its log probability and those of this many most likely tokens "
        "at its place; not in a stream.",
    )
    structured_outputs: Structure | None = Field(None, description="A grammar that the whole answer must match.")
    priority: Literal["low", "normal", "high", "critical"] | None = priority_field()
    return_token_ids: bool | None = Field(None, description="The answer also has the ids of its tokens.")

    # fields of llama.cpp's API
    top_n_sigma: float | None = number_field("top_n_sigma")
    typical_p: float | None = number_field("typical_p")
    mirostat: int | None = number_field("mirostat")
    mirostat_tau: float | None = number_field("mirostat_tau")
    mirostat_eta: float | None = number_field("mirostat_eta")

    # a field of this server alone
    speculate: str | None = speculate_field()

    # labels
    user: str | None = label()
    metadata: dict[str, str] | None = Field(None, description="Labels of the caller; they change nothing.")
    safety_identifier: str | None = label()
    prompt_cache_key: str | None = label()
    service_tier: Literal["auto", "default"] | None = unsupported('can only be "auto" or "default" here')
    store: Off | None = unsupported("can only be false: this server keeps nothing")
