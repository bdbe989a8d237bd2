"""`/v1/embeddings`: texts as vectors.

Refuses to know: how a vector is made.
Specs: API-40. Source: OpenAI's API reference, "Embeddings". Next: `ferrum.api.protocol.tokens`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ferrum.api.protocol.base import Answer, Body, Many, label


class EmbeddingRequest(Body):
    """Texts or token ids, one or a list. `base64` encodes little-endian float32."""

    input: str | Many[int] | Many[str | Many[int]] = Field(
        union_mode="left_to_right",
        description="A text, a list of texts, a list of token ids, or a list that mixes texts and lists of token ids.",
    )
    model: str | None = Field(None, description="A served model name; default: the first.")
    encoding_format: Literal["float", "base64"] | None = Field(
        None,
        description="float: vectors are lists of numbers; base64: the text of the same numbers in little-"
        "endian float32. Default: float.",
    )
    dimensions: int | None = Field(None, ge=1, description="The number of leading elements of each vector.")
    pooling: Literal["auto", "mean", "last", "cls"] | None = Field(None, description="auto: as the model's files say.")
    normalize: bool | None = Field(None, description="Scales vectors to length 1; default true.")
    truncate: bool | None = Field(None, description="Cuts a text that is too long, instead of refusing it.")
    user: str | None = label()


class EmbeddingItem(Answer):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Answer):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Answer):
    """The answer: one item per text, in order."""

    object: Literal["list"]
    data: list[EmbeddingItem]
    model: str
    usage: EmbeddingUsage
