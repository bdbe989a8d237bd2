"""From texts to token ids, with an error for a prompt that is too long.

Owns: that error, in the form that clients know. Refuses to know: where texts come from.
Specs: API-03, API-08. Next: `ferrum.api.open_requests`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ferrum.api.errors import INVALID, ApiError
from ferrum.api.served import Served


def encoded(served: Served, text: str, *, add_special_tokens: bool) -> list[int]:
    """The token ids of a text."""
    return served.tokenizer.encode(text, add_special_tokens=add_special_tokens)


def check_length(served: Served, ids: Sequence[int], field: str) -> None:
    """Raises ApiError for a prompt that leaves no room for an answer. `field`: its place in the request."""
    longest = served.max_model_len
    if len(ids) >= longest:
        problem = f"the prompt has {len(ids)} tokens and leaves no room for an answer in a context of {longest}"
        facts = {"n_prompt_tokens": len(ids), "n_ctx": longest}
        raise ApiError(400, problem, INVALID, field, "context_length_exceeded", facts)


def shows_special(served: Served) -> bool:
    """True if marks of the answer's format are special tokens of the model. They must stay in the text, or the answer
    cannot be parsed."""
    tokenizer = served.tokenizer
    special = {tokenizer.token_text(token) for token in tokenizer.special_ids}
    return any(mark in special for mark in served.formats.marks)
