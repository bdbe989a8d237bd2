"""Tokens of GGUF vocabularies that end an answer, by the metadata and by their text.

Metadata of many files names the end of the text and forgets the end of a turn, so that the model would talk to itself.
The texts that models use for it are few and known, and so are those that end a piece of code.

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
_CODE_ENDS = {  # of what is filled in between two pieces of code, and of a file
    "fim_pad": _words("<|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD]"),
    "fim_rep": _words("<|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame>"),
    "fim_sep": _words("<|file_sep|>"),
}
_CODE_MARKS = {  # which are special, and end nothing
    "fim_pre": _words(
        "<|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> <|prefix|>"
    ),
    "fim_suf": _words(
        "<|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> <|suffix|>"
    ),
    "fim_mid": _words("<|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|>"),
}
_VISIBLE = _words("<|channel|> <|message|> <|start|> <|constrain|>")
"""Marks between the parts of an answer that readers of it need."""
_TELLING = _words("<|call|> <|calls|> <|return|> <|flush|> <|tool_response> <|plamo:eos|>")
"""Ends that tell what others mean."""
_NAMED = ("eos", "eot", "eom")  # end of sequence, of turn, of message
_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "llama": {"bos": 1, "eos": 2},
    "t5": {"eos": 1},
    "bert": {"bos": 101, "eos": 102},
}
"""Ids where the metadata names none, by the model of the tokenizer; control tokens only."""
_OTHER_NAMES: Mapping[str, Mapping[str, str]] = {"bert": {"bos": "cls_token_id", "eos": "seperator_token_id"}}


@dataclass(frozen=True)
class KnownTokens:
    """`ends`: all that end an answer, the one of the sequence first. `special`, `visible`: matched in text before it is
    cut; readers of an answer see the visible ones. `plain`: not special, whatever their type."""

    bos: int | None
    eos: int | None
    ends: tuple[int, ...]
    special: frozenset[int]
    visible: frozenset[int]
    plain: frozenset[int]


def known_tokens(fields: Fields, size: int, types: np.ndarray, find: Callable[[str], int | None]) -> KnownTokens:
    """Of a vocabulary of `size` tokens of these `types`; `find` gives the id of a text."""
    defaults = default_ids(fields, types)
    named = {role: token_id(fields, f"{role}_token_id", size, defaults.get(role)) for role in ("bos", *_NAMED)}
    by_text = [token for text in _ENDS if (token := find(text)) is not None]
    code_ends = {token for role in _CODE_ENDS if (token := _of_code(fields, size, find, role)) is not None}
    marks = {token for role in _CODE_MARKS if (token := _of_code(fields, size, find, role)) is not None}
    ends = dict.fromkeys(token for role in _NAMED if (token := named[role]) is not None)
    ends |= dict.fromkeys(sorted({*by_text, *code_ends}))
    special = {*named.values(), *by_text, *code_ends, *marks} - {None}
    visible = {token for text in _VISIBLE if (token := find(text)) is not None}
    plain: set[int] = set()
    texts = {text for text in _TELLING if find(text) in ends}
    if texts & {"<|call|>", "<|calls|>"} and texts & {"<|return|>", "<|flush|>"}:
        visible |= _taken_out(ends, find("<|end|>"))  # beside these, it ends one part of several
    if texts & {"<|tool_response>", "<|plamo:eos|>"}:
        plain |= _taken_out(ends, find("</s>"))  # in these vocabularies it is a tag of HTML
    return KnownTokens(
        named["bos"],
        named["eos"],
        tuple(ends),
        frozenset(token for token in special if token is not None) - visible - plain,
        frozenset(visible),
        frozenset(plain),
    )


def default_ids(fields: Fields, types: np.ndarray) -> dict[str, int]:
    """The tokens that have a role where the metadata names none, by role: "bos", "eos". What "bert" puts around a text
    may have another name."""
    model = fields.text("model")
    found: dict[str, int | None] = dict(_DEFAULTS.get(model, {}))
    for role, key in _OTHER_NAMES.get(model, {}).items():
        found[role] = token_id(fields, key, len(types), found[role])
    known = {role: token for role, token in found.items() if token is not None and token < len(types)}
    return {role: token for role, token in known.items() if types[token] == TokenType.CONTROL}


def _of_code(fields: Fields, size: int, find: Callable[[str], int | None], role: str) -> int | None:
    """The token that has a role in code: as the metadata says, else the first that has one of the texts."""
    known = [token for text in (_CODE_ENDS | _CODE_MARKS)[role] if (token := find(text)) is not None]
    return token_id(fields, f"{role}_token_id", size, min(known, default=None))


def _taken_out(ends: dict[int, None], token: int | None) -> set[int]:
    if token is None or token not in ends:
        return set()
    del ends[token]
    return {token}
