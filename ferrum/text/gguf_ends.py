"""Tokens of GGUF vocabularies that end an answer, by the metadata and by their text.

The metadata of many files names the token for the end of the text but not the one for the end of a turn; without it the
model would go on with the user's next turn. So tokens are also recognised by the texts that published models use for
the end of a turn and for the end of a piece of code.

Owns: the texts, the roles, and which tokens are special for them. Refuses to know: how a tokenizer is built.
Source: llama.cpp's `src/llama-vocab.cpp`, whose end tokens these are. Specs: TEXT-12, TEXT-53.
Next: `ferrum.text.gguf_tokens`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ferrum.fields import Fields
from ferrum.text.gguf_tokens import TokenType, token_id


def _words(texts: str) -> tuple[str, ...]:
    return tuple(texts.split())


_ENDS = _words(
    "<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s> "
    "<|eom_id|> <EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response> "
    "<｜end▁of▁sentence｜> [e~["
)
_CODE_ENDS = {  # end the code filled in between two pieces, or a file
    "fim_pad": _words("<|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD]"),
    "fim_rep": _words("<|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame>"),
    "fim_sep": _words("<|file_sep|>"),
}
_CODE_MARKS = {  # special tokens that end no answer
    "fim_pre": _words(
        "<|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> <|prefix|>"
    ),
    "fim_suf": _words(
        "<|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> <|suffix|>"
    ),
    "fim_mid": _words("<|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|>"),
}
_VISIBLE = _words("<|channel|> <|message|> <|start|> <|constrain|>")
"""Marks between the parts of an answer; the parser of answers needs their text."""
_TELLING = _words("<|call|> <|calls|> <|return|> <|flush|> <|tool_response> <|plamo:eos|>")
"""End tokens that show to which family a vocabulary belongs, and so what "<|end|>" and "</s>" mean in it."""
_NAMED = ("eos", "eot", "eom")  # end of sequence, of turn, of message
_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "llama": {"bos": 1, "eos": 2},
    "t5": {"eos": 1},
    "bert": {"bos": 101, "eos": 102},
}
"""Ids of the roles that the metadata does not name, by the tokenizer's model. They count only for control tokens."""
_OTHER_NAMES: Mapping[str, Mapping[str, str]] = {"bert": {"bos": "cls_token_id", "eos": "seperator_token_id"}}


@dataclass(frozen=True)
class KnownTokens:
    """The ids of tokens with a role."""

    bos: int | None
    eos: int | None
    ends: tuple[int, ...]  # all tokens that end an answer, `eos` first
    special: frozenset[int]  # matched in text before it is cut, and left out by decoding
    visible: frozenset[int]  # matched in text before it is cut, and decoded
    plain: frozenset[int]  # neither, whatever their type says


def known_tokens(fields: Fields, size: int, types: np.ndarray, find: Callable[[str], int | None]) -> KnownTokens:
    """The tokens with a role in a vocabulary of `size` tokens. `types`: the `TokenType` of each, integers [tokens], or
    empty; `find` returns the id of a token's text, or None."""
    defaults = default_ids(fields, types)
    by_role = {role: token_id(fields, f"{role}_token_id", size, defaults.get(role)) for role in ("bos", *_NAMED)}
    by_text = [token for text in _ENDS if (token := find(text)) is not None]
    code_ends = {token for role in _CODE_ENDS if (token := _of_code(fields, size, find, role)) is not None}
    marks = {token for role in _CODE_MARKS if (token := _of_code(fields, size, find, role)) is not None}
    ends = dict.fromkeys(token for role in _NAMED if (token := by_role[role]) is not None)
    ends |= dict.fromkeys(sorted({*by_text, *code_ends}))
    special = {*by_role.values(), *by_text, *code_ends, *marks} - {None}
    visible = {token for text in _VISIBLE if (token := find(text)) is not None}
    plain: set[int] = set()
    texts = {text for text in _TELLING if find(text) in ends}
    if texts & {"<|call|>", "<|calls|>"} and texts & {"<|return|>", "<|flush|>"}:
        visible |= _removed(ends, find("<|end|>"))  # in these vocabularies it ends one part of an answer
    if texts & {"<|tool_response>", "<|plamo:eos|>"}:
        plain |= _removed(ends, find("</s>"))  # in these vocabularies it is a tag of HTML
    return KnownTokens(
        by_role["bos"],
        by_role["eos"],
        tuple(ends),
        frozenset(token for token in special if token is not None) - visible - plain,
        frozenset(visible),
        frozenset(plain),
    )


def default_ids(fields: Fields, types: np.ndarray) -> dict[str, int]:
    """The ids by role ("bos", "eos") for roles that the metadata does not name; only those of control tokens. For the
    model "bert", the roles have other keys in the metadata."""
    model = fields.text("model")
    defaults: dict[str, int | None] = dict(_DEFAULTS.get(model, {}))
    for role, key in _OTHER_NAMES.get(model, {}).items():
        defaults[role] = token_id(fields, key, len(types), defaults[role])
    valid = {role: token for role, token in defaults.items() if token is not None and token < len(types)}
    return {role: token for role, token in valid.items() if types[token] == TokenType.CONTROL}


def _of_code(fields: Fields, size: int, find: Callable[[str], int | None], role: str) -> int | None:
    """The token with a role in code: the one that the metadata names, else the smallest id with one of the texts."""
    by_text = [token for text in (_CODE_ENDS | _CODE_MARKS)[role] if (token := find(text)) is not None]
    return token_id(fields, f"{role}_token_id", size, min(by_text, default=None))


def _removed(ends: dict[int, None], token: int | None) -> set[int]:
    """Removes a token from `ends` and returns it; returns the empty set for a token that is not there."""
    if token is None or token not in ends:
        return set()
    del ends[token]
    return {token}
