"""The sampling fields of completions and chats, and fields of OpenAI's API that have no effect here.

Owns: the fields that both share. Numbers are checked by `SamplingParams`, so that HTTP, Python and the command line
refuse the same values with the same message. Refuses to know: prompts.
Specs: API-02, API-04, API-10. Source: OpenAI's API reference; vLLM's "extra parameters".
Next: `ferrum.api.protocol.usage`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ferrum.api.protocol.base import Body, Many, Off, unsupported

MOST_LOGPROBS = 20
MOST_CHOICES = 128


class StreamOptions(Body):
    """The contents of a stream beside its text."""

    include_usage: bool | None = Field(None, description="A last chunk has the counts of tokens.")
    continuous_usage_stats: bool | None = Field(None, description="Every chunk has the counts of tokens.")
    include_obfuscation: Off | None = unsupported("is not supported: nothing is obfuscated")


class JsonSchemaFormat(Body):
    """A JSON schema with a name."""

    name: str | None = Field(None, min_length=1, max_length=64)
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    description: str | None = None
    strict: bool | None = Field(None, description="No effect: the answer always fits its schema.")


class ResponseFormat(Body):
    """The form of the answer: any text, a JSON object, or JSON that matches a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema", description="A schema for json_object.")


class Structure(Body):
    """vLLM's `structured_outputs`: exactly one of the first four."""

    json_: dict[str, Any] | str | None = Field(None, alias="json")
    regex: str | None = None
    choice: Many[str] | None = None
    grammar: str | None = None
    one_of_as_any_of: bool = False
    strict_formats: bool = False


class SamplingBody(Body):
    """The fields that all requests for text share. Fields of the last group are labels for the caller and change no
    answer."""

    model: str | None = Field(None, description="A served model name; default: the first.")
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    max_tokens: int | None = Field(None, ge=0)
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = Field(None, description="Token id -> number that is added to its logit.")
    seed: int | None = None
    stop: str | Many[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None

    # vLLM's fields
    top_n_sigma: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    stop_token_ids: Many[int] | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    logprobs_mode: Literal["raw_logprobs", "processed_logprobs"] | None = None
    prompt_logprobs: int | None = Field(
        None, ge=0, le=MOST_LOGPROBS, description="What is known of the prompt's tokens; not in a stream."
    )
    structured_outputs: Structure | None = None
    priority: Literal["low", "normal", "high", "critical"] | None = Field(
        None, description="How urgent the request is; needs a server that was started with --scheduler priority."
    )
    speculate: str | None = Field(
        None, max_length=16, description='What proposes tokens: "ngram", "ngram:N", "draft", "draft:N" or "off".'
    )
    return_token_ids: bool | None = Field(None, description="The answer also has the ids of its tokens.")

    # labels
    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: Literal["auto", "default"] | None = unsupported('can only be "auto" or "default" here')
    store: Off | None = unsupported("can only be false: this server keeps nothing")
