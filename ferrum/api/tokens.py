"""`/tokenize`, `/detokenize`, `/tokenizer_info`: the tokenizer, for programs that prepare prompts themselves.

Refuses to know: HTTP.
Specs: API-13, API-42. Next: `ferrum.api.service`.
"""

from __future__ import annotations

from typing import Any

from ferrum.api.conversation import render
from ferrum.api.errors import invalid
from ferrum.api.prompts import encoded
from ferrum.api.protocol.tokens import (
    DetokenizedText,
    DetokenizeRequest,
    TokenizeRequest,
    TokenizerInfo,
    TokenList,
    TokenPiece,
)
from ferrum.api.served import Served
from ferrum.errors import InvalidParameter, quoted

NEEDS = {
    "add_special_tokens": ("prompt", "messages"),
    "add_special": ("content",),
    "tools": ("messages",),
    "add_generation_prompt": ("messages",),
    "chat_template_kwargs": ("messages",),
}
"""The fields that only some inputs may have."""


def tokenize(served: Served, body: TokenizeRequest) -> TokenList:
    """Raises ApiError unless exactly one of prompt, content and messages is given, with only the fields that belong to
    it."""
    given = [name for name in ("prompt", "content", "messages") if getattr(body, name) is not None]
    if len(given) != 1:
        problem = " and ".join(given) + " are given" if given else "nothing is given"
        raise invalid(
            f"the request needs one of prompt, content and messages: {problem}", given[-1] if given else "prompt"
        )
    for name, kinds in NEEDS.items():
        if getattr(body, name) is not None and given[0] not in kinds:
            raise invalid(f"{name} belongs to {' and '.join(kinds)}, and {given[0]} is given", name, "invalid_value")
    ids = _ids(served, body)
    told_ids: list[Any] = (
        [TokenPiece(id=token, piece=_piece(served, token)) for token in ids] if body.with_pieces else ids
    )
    more: dict[str, Any] = {}
    if body.return_token_strs:
        more["token_strs"] = [served.tokenizer.token_text(token) for token in ids]
    return TokenList(count=len(ids), max_model_len=served.max_model_len, tokens=told_ids, **more)


def detokenize(served: Served, body: DetokenizeRequest) -> DetokenizedText:
    """The text of tokens, special ones included."""
    for token in body.tokens:
        if not 0 <= token < served.vocab_size:
            raise InvalidParameter("tokens", f"holds {quoted(token)}; ids go from 0 to {served.vocab_size - 1}")
    text = served.tokenizer.decode(body.tokens, skip_special_tokens=False)
    return DetokenizedText(prompt=text, content=text)


def tokenizer_info(served: Served) -> TokenizerInfo:
    tokenizer = served.tokenizer
    ends = [tokenizer.token_text(token) for token in tokenizer.eos_token_ids]
    bos = tokenizer.bos_token_id
    sources = served.templates.sources
    return TokenizerInfo(
        tokenizer_class=type(tokenizer).__name__,
        vocab_size=served.vocab_size,
        model_max_length=served.max_model_len,
        bos_token=None if bos is None else tokenizer.token_text(bos),
        eos_token=ends[0] if ends else None,
        pad_token=ends[0] if ends else None,
        chat_template=sources.get("default", next(iter(sources.values()), None)),
    )


def _ids(served: Served, body: TokenizeRequest) -> list[int]:
    if body.messages is not None:
        prompt = render(
            served,
            body.messages,
            body.tools or (),
            variables=body.chat_template_kwargs,
            add_generation_prompt=body.add_generation_prompt,
        )
        return encoded(served, prompt, add_special_tokens=bool(body.add_special_tokens))
    if body.content is not None:
        return encoded(served, body.content, add_special_tokens=bool(body.add_special))
    return encoded(served, body.prompt or "", add_special_tokens=body.add_special_tokens is not False)


def _piece(served: Served, token: int) -> str | list[int]:
    spelled = served.tokenizer.token_bytes(token)
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        return list(spelled)
