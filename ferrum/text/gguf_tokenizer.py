"""The tokenizer that a GGUF file carries in its metadata.

Owns: which kind of tokenizer it is, the byte-level kind, and the tokens that are special.
Refuses to know: SentencePiece (`gguf_sentencepiece`), WordPiece (`gguf_wordpiece`), the file itself; `ferrum.load`
hands over its metadata.
Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (tokenizer).
Specs: TEXT-09 to TEXT-12, TEXT-54. Next: `ferrum.text.gguf_ends`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from ferrum.errors import TokenizerError, Unsupported, quoted, warn
from ferrum.fields import Fields
from ferrum.text.gguf_ends import KnownTokens, known_tokens
from ferrum.text.gguf_sentencepiece import (
    sentencepiece_bpe,
    sentencepiece_text,
    sentencepiece_tokens,
    sentencepiece_unigram,
)
from ferrum.text.gguf_tokens import PREFIX, TokenType, require, token_texts, token_types, vocabulary
from ferrum.text.gguf_wordpiece import wordpiece, wordpiece_tokens
from ferrum.text.native import ask
from ferrum.text.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer
from ferrum.text.sentencepiece_text import SentencePieceText
from ferrum.text.token_bytes import SENTENCEPIECE_SPACE
from ferrum.text.tokenizer import Tokenizer

_PHI = ("phi-3", "phi3")  # parts of the names of models whose added tokens take the white space behind them
_PHI_WITHOUT = ("<unk>", "<s>", "<|endoftext|>")  # their added tokens that do not


def tokenizer_from_gguf(metadata: Mapping[str, Any], where: str = "the GGUF file") -> Tokenizer:
    """Builds the tokenizer that GGUF metadata describes: byte-level BPE, SentencePiece or WordPiece. `where` names the
    file in errors and warnings.

    Control and unknown tokens and those named as BOS or end are special; user-defined tokens are matched in text but
    decode as ordinary text. Raises `Unsupported` for another tokenizer model or an unknown `tokenizer.ggml.pre`,
    `TokenizerError` for metadata that is incomplete or contradicts itself, `InvalidFormat` for values of a wrong type.
    """
    fields = Fields(metadata, where, PREFIX)
    kind = _kind(fields)
    tokens = kind.tokens
    types = token_types(fields, len(tokens))
    roles = known_tokens(fields, len(tokens), types, _finder(kind))
    _add_tokens(kind.backend, tokens, types, roles, _takes_blanks(metadata))
    first = _added(fields, "add_bos_token", kind.adds_bos, roles.bos)
    last = _added(fields, "add_eos_token", kind.adds_eos, roles.eos)
    if first is not None or last is not None:
        kind.backend.post_processor = _surround(tokens, first, last)
    return Tokenizer(kind.backend, bos_token_id=roles.bos, eos_token_ids=roles.ends, text=kind.text)


@dataclass(frozen=True, eq=False)
class _Kind:
    """A tokenizer without special tokens, and whether BOS and end go around a raw prompt where the file is silent."""

    backend: tokenizers.Tokenizer
    tokens: list[str]  # by id
    adds_bos: bool
    adds_eos: bool
    text: SentencePieceText | None = None  # normalizes the text first, if the library does not


def _finder(kind: _Kind) -> Callable[[str], int | None]:
    """A function from a token's text to its id. A "▁" in the text matches a space too, as in user-defined tokens."""
    token_to_id = kind.backend.token_to_id

    def find(text: str) -> int | None:
        token = token_to_id(text)
        return token_to_id(text.replace(SENTENCEPIECE_SPACE, " ")) if token is None else token

    return find


def _kind(fields: Fields) -> _Kind:
    """The tokenizer by the name of its model."""
    require(fields, "model")
    match model := fields.text("model"):
        case "gpt2":
            rules = _rules(fields)
            tokens = token_texts(fields)
            return _Kind(_byte_level(fields, tokens, rules), tokens, rules.adds_bos, False)
        case "llama":
            tokens, text = sentencepiece_tokens(fields), sentencepiece_text(fields)
            return _Kind(sentencepiece_bpe(fields, tokens, text), tokens, True, False, text)
        case "t5":
            tokens, text = sentencepiece_tokens(fields), sentencepiece_text(fields)
            return _Kind(sentencepiece_unigram(fields, tokens, text), tokens, False, True, text)
        case "bert":
            tokens = wordpiece_tokens(fields)
            return _Kind(wordpiece(fields, tokens), tokens, True, fields.flag("add_sep_token", True))
        case _:
            raise Unsupported(
                f"the GGUF tokenizer model {quoted(model)} is not supported; byte-level BPE ('gpt2'), SentencePiece "
                "('llama', 't5') and WordPiece ('bert') are"
            )


def _byte_level(fields: Fields, tokens: list[str], rules: PreTokenizer) -> tokenizers.Tokenizer:
    """The tokenizer of the model "gpt2", without special tokens."""
    require(fields, "merges")
    backend = tokenizers.Tokenizer(_merges(tokens, fields.texts("merges"), rules, fields.where))
    if rules.normalizes_nfc:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = build_pre_tokenizer(rules)
    backend.decoder = decoders.ByteLevel()
    return backend


def build_pre_tokenizer(rules: PreTokenizer) -> pre_tokenizers.Sequence:
    """The cuts of `rules`, then each piece in the byte alphabet."""
    splits = [pre_tokenizers.Split(tokenizers.Regex(split), "isolated") for split in rules.splits]
    return pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _rules(fields: Fields) -> PreTokenizer:
    """The pre-tokenizer that the file names. An unknown name is refused: a wrong guess would change the token ids of
    some texts without any sign. A file without a name is from the time before names; it is read as in llama.cpp."""
    pre = fields.text("pre", "") or "default"
    if not fields.get("pre"):
        warn(
            f"{fields.where} does not name its pre-tokenizer ({fields.prefix}pre): text is cut as llama.cpp cuts it "
            "then, which may not be how the model was trained"
        )
    if pre not in PRE_TOKENIZERS:
        raise Unsupported(f"the GGUF pre-tokenizer {quoted(pre)} is not supported")
    return PRE_TOKENIZERS[pre]


class _Pairs(Sequence[Any]):
    """Merges ("left right") as pairs, made one by one while the library reads them: a list of all pairs would take as
    much time and memory as the library's own table."""

    def __init__(self, merges: Sequence[str]) -> None:
        self._merges = merges

    def __len__(self) -> int:
        return len(self._merges)

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        # no byte-level token holds a space, so the one space separates the halves
        return map(tuple, map(str.split, self._merges, repeat(" ")))

    def __getitem__(self, index: Any) -> tuple[str, ...]:
        return tuple(self._merges[index].split(" "))


def _merges(tokens: list[str], merges: Sequence[str], rules: PreTokenizer, where: str) -> models.BPE:
    """The BPE model of `tokens` (by id) and `merges` ("left right", best first). Leaves out merges that make no token,
    with a warning."""
    ids = vocabulary(tokens)
    ranked = list(dict.fromkeys(merges))  # a merge that is listed twice has its first rank

    def build() -> models.BPE:
        pairs: Any = _Pairs(ranked)  # the stubs ask for a list, the library for a sequence
        return ask(_do_not_fit, models.BPE, vocab=ids, merges=pairs, ignore_merges=rules.ignore_merges)

    try:
        return build()
    except TokenizerError:  # the library refuses all merges for one that is not two tokens that make a third
        listed = len(ranked)
        odd = [merge for merge in ranked if not _makes_a_token(merge, ids)]
        ranked = [merge for merge in ranked if _makes_a_token(merge, ids)]
        model = build()
    warn(
        f"{where}: {len(odd)} of {listed} merges are ignored, such as {quoted(odd[0])}: they are not two tokens that "
        "make a third, and text is cut without them"
    )
    return model


def _makes_a_token(merge: str, ids: Mapping[str, int]) -> bool:
    return merge.count(" ") == 1 and all(part in ids for part in (*merge.split(" "), merge.replace(" ", "")))


def _do_not_fit(reason: str) -> TokenizerError:
    return TokenizerError(f"the GGUF tokenizer's merges do not fit its tokens: {reason}")


def _takes_blanks(metadata: Mapping[str, Any]) -> Callable[[str], bool]:
    """A predicate: true for the text of an added token that takes the white space behind it. GGUF has no field for
    this; as in llama.cpp, the one family with such tokens is recognised by the name of the model."""
    name = metadata.get("general.name")
    is_phi = isinstance(name, str) and any(part in name.lower() for part in _PHI)
    return lambda token: is_phi and token not in _PHI_WITHOUT


def _add_tokens(
    backend: tokenizers.Tokenizer,
    tokens: list[str],
    types: np.ndarray,
    roles: KnownTokens,
    takes_blanks: Callable[[str], bool],
) -> None:
    """Adds the tokens that are matched in text before it is cut: special ones, which decoding leaves out, and
    user-defined ones. `roles` has precedence over `types`."""

    def added(index: int, special: bool) -> tokenizers.AddedToken:
        text = tokens[index]
        return tokenizers.AddedToken(text, special=special, normalized=False, rstrip=takes_blanks(text))

    special = set(np.flatnonzero(np.isin(types, (TokenType.CONTROL, TokenType.UNKNOWN))).tolist())
    special = (special | roles.special) - roles.visible - roles.plain
    plain = (set(np.flatnonzero(types == TokenType.USER_DEFINED).tolist()) | roles.visible) - special - roles.plain
    special_tokens = [added(token, True) for token in sorted(special)]
    user_defined = [added(token, False) for token in sorted(plain)]
    ask(_not_addable, backend.add_special_tokens, special_tokens)
    ask(_not_addable, backend.add_tokens, user_defined)


def _not_addable(reason: str) -> TokenizerError:
    return TokenizerError(f"the GGUF tokenizer's special and user-defined tokens cannot be matched in text: {reason}")


def _added(fields: Fields, key: str, default: bool, role: int | None) -> int | None:
    """The token to put around a raw prompt, or None. `default`: what the model's kind does if the file does not say."""
    is_added = fields.flag(key, default)
    if is_added and role is None and key in fields:
        warn(f"{fields.where} sets {fields.prefix}{key} and names no such token: none is added")
    return role if is_added else None


def _surround(tokens: list[str], first: int | None, last: int | None) -> processors.TemplateProcessing:
    """A step that puts the token `first` before and `last` after a text that is encoded with special tokens."""
    # The library's template syntax gives ":" and " " a meaning, so the template uses the names BOS and EOS, not texts.
    ids = {"BOS": first, "EOS": last}
    special: list[Any] = [
        {"id": name, "ids": [role], "tokens": [tokens[role]]} for name, role in ids.items() if role is not None
    ]
    single = [*(["BOS"] if first is not None else []), "$A", *(["EOS"] if last is not None else [])]
    return processors.TemplateProcessing(single=single, pair=[*single, "$B:1"], special_tokens=special)
