"""`/tokenize`, `/detokenize`, `/tokenizer_info`, and the list of models.

Refuses to know: tokenizers.
Specs: API-42. Source: vLLM's tokenizer API; llama.cpp's names (`content`, `add_special`, `with_pieces`) are accepted as
well. Next: `ferrum.api.served`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ferrum.api.protocol.base import Answer, Body, Many
from ferrum.api.protocol.chat import ChatMessage
from ferrum.api.protocol.tools import ToolSpec


class TokenizeRequest(Body):
    """A text (`prompt`, or `content`), or `messages` for the chat template."""

    model: str | None = Field(None, description="A served model name; default: the first.")
    prompt: str | None = Field(None, description="The text, by its name in vLLM's API.")
    content: str | None = Field(None, description="The text, by its name in llama.cpp's API.")
    messages: Many[ChatMessage] | None = Field(
        None, min_length=1, description="A conversation, to which the chat template is applied."
    )
    tools: Many[ToolSpec] | None = Field(
        None, description="Functions that the chat template describes; for `messages`."
    )
    add_generation_prompt: bool | None = Field(
        None,
        description="True: the prompt ends with the beginning of an assistant's message; for `messages`. "
        "Default: true.",
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="Variables of the chat template, by name; for `messages`."
    )
    add_special_tokens: bool | None = Field(None, description="For `prompt`; default true.")
    add_special: bool | None = Field(None, description="For `content`; default false.")
    return_token_strs: bool | None = Field(
        None, description="True: return also the text of each token. Default: false."
    )
    with_pieces: bool | None = Field(None, description="Returns each token as an object with its id and its text.")


class TokenPiece(Answer):
    """A token and its text; its bytes if they are not valid text."""

    id: int
    piece: str | list[int]


class TokenList(Answer):
    count: int
    max_model_len: int
    tokens: list[int] | list[TokenPiece]
    token_strs: list[str] | None = None


class DetokenizeRequest(Body):
    model: str | None = Field(None, description="A served model name; default: the first.")
    tokens: Many[int] = Field(description="The token ids. Special tokens have their text, too.")


class DetokenizedText(Answer):
    """The text, under the names of both APIs."""

    prompt: str
    content: str


class TokenizerInfo(Answer):
    """The facts that a program needs to prepare prompts itself."""

    tokenizer_class: str
    vocab_size: int
    model_max_length: int
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    chat_template: str | None


class ModelCard(Answer):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int | None = None


class ModelList(Answer):
    object: Literal["list"]
    data: list[ModelCard]
