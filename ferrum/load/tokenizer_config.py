"""The files beside tokenizer.json: special tokens by name, and tokens to be added to its own.

There are three. tokenizer_config.json is the newest. If it lists no added tokens, special_tokens_map.json has priority
over it, and added_tokens.json is read. Last come the defaults of the class that the files name.

Owns: reading the three files as transformers does. Refuses to know: what the tokens are for, and config.json's token
ids, which transformers does not read for them.
Specs: LOAD-52, LOAD-54, LOAD-55, TEXT-50. Source: transformers' `PreTrainedTokenizerBase._from_pretrained` and
`TokenizersBackend`. Next: `ferrum.load.tokenizer_classes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ferrum.errors import InvalidFormat, quoted
from ferrum.fields import Fields, read_json
from ferrum.load.special_tokens import NAMES
from ferrum.load.tokenizer_classes import class_tokens
from ferrum.load.tokenizer_keys import FOLLOWED, warn_of_settings
from ferrum.text.added_tokens import AddedText
from ferrum.text.tokenizer_json import TokenizerFile

_EXTRA = "extra_special_tokens"
_OLD_EXTRA = "additional_special_tokens"
_OWN = "model_specific_special_tokens"
_LISTED = "added_tokens_decoder"


@dataclass(frozen=True)
class TokenizerSettings:
    """`names`: the texts of special tokens by name ("bos_token", …). `added`: tokens to add to those of tokenizer.json,
    in this order. `splits_special`: True if special tokens within a text are read as ordinary text."""

    names: Mapping[str, str]
    added: tuple[AddedText, ...]
    splits_special: bool


def read_settings(folder: Path, file: TokenizerFile) -> TokenizerSettings:
    """The settings of a Hugging Face directory, whose tokenizer.json is `file`. Raises `InvalidFormat`, with file and
    key."""
    fields = _optional(folder / "tokenizer_config.json")
    warn_of_settings(fields, file)
    values = _with_own_names({key: value for key, value in fields.values.items() if key not in FOLLOWED})
    if _LISTED in fields:
        listed = _listed(fields)
    else:
        values |= _special_tokens_map(folder, values)
        if isinstance(values.get(_EXTRA), dict):
            values[_OWN] = {**(values.get(_OWN) or {}), **values.pop(_EXTRA)}
        listed = _added_tokens_json(folder, values, file)
    settings = Fields(_defaults(folder, fields, file) | values, fields.where)
    special = _special_tokens(settings)
    return TokenizerSettings(
        {name: token.content for name, token in special.items()},
        _in_order(listed, special, _extra(settings), file),
        fields.flag("split_special_tokens", False),
    )


def _optional(path: Path) -> Fields:
    return read_json(path) if path.exists() else Fields({}, str(path))


def _with_own_names(values: dict[str, Any]) -> dict[str, Any]:
    """The values, with the special tokens that only this model has, such as "image_token", collected under one key."""
    if not values.get(_EXTRA) and _OLD_EXTRA in values:
        values[_EXTRA] = values.pop(_OLD_EXTRA)
    own_names = {key: text for key, text in values.items() if _is_own(key) and isinstance(text, str)}
    if isinstance(values.get(_EXTRA), dict):
        own_names |= values[_EXTRA]
        del values[_EXTRA]
    return values | {_OWN: own_names} if own_names else values


def _is_own(key: str) -> bool:
    return key.endswith("_token") and key not in NAMES


# ---- the three files
def _listed(fields: Fields) -> list[AddedText]:
    """The tokens that tokenizer_config.json lists by their ids."""
    inner = fields.inner(_LISTED)
    return [_token(inner, key, file_id=_whole(inner, key)) for key in inner.values]


def _whole(inner: Fields, key: str) -> int:
    try:
        return int(key)
    except ValueError:
        raise InvalidFormat(f"{inner.where} must have ids as its keys, not {quoted(key)}") from None


def _special_tokens_map(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of special_tokens_map.json. Its list of additional tokens is appended to the one in `values`."""
    fields = _optional(folder / "special_tokens_map.json")
    special: dict[str, Any] = {
        key: replace(_token(fields, key), special=True) if isinstance(value, dict) and key != _EXTRA else value
        for key, value in fields.values.items()
    }
    if isinstance(special.get(_EXTRA), list):
        extra = [{**token, "special": True} if isinstance(token, dict) else token for token in special[_EXTRA]]
        special[_EXTRA] = [*(values.get(_EXTRA) or []), *extra]
    return special


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and "content" in value


def _added_tokens_json(folder: Path, values: Mapping[str, Any], file: TokenizerFile) -> list[AddedText]:
    """The tokens of tokenizer.json, then those of added_tokens.json, which are special if they are named as special
    tokens."""
    fields = _optional(folder / "added_tokens.json")
    by_id = {token.file_id: token for token in file.added_tokens}
    special = {_text(value) for value in (*map(values.get, NAMES), *_list(Fields(values, fields.where), _EXTRA))}
    listed: dict[int | None, AddedText] = {}
    for text in fields.values:
        is_special = text in special
        file_id = fields.integer(text, low=0)
        listed[file_id] = AddedText(
            _readable(fields, text, text), special=is_special, normalized=not is_special, file_id=file_id
        )
    return list((listed | by_id).values())


def _text(value: Any) -> Any:
    return value.content if isinstance(value, AddedText) else value if isinstance(value, str) else None


def _defaults(folder: Path, fields: Fields, file: TokenizerFile) -> dict[str, Any]:
    """Special tokens that no file names: those of the class, and the padding of tokenizer.json."""
    config = _optional(folder / "config.json")
    names = (fields.get("tokenizer_class"), config.get("tokenizer_class"))
    padding = {} if file.pad_token is None else {"pad_token": file.pad_token}
    return padding | dict(class_tokens(names, config.get("model_type"), lambda: file.is_byte_level))


# ---- tokens
def _special_tokens(fields: Fields) -> dict[str, AddedText]:
    """Special tokens by name: first those that all models have, then those that only this model has."""
    special = {name: _token(fields, name) for name in NAMES if name in fields}
    special |= {key: _token(fields, key) for key, value in fields.values.items() if _is_own(key) and _is_token(value)}
    own_fields = fields.inner(_OWN)
    return special | {key: _token(own_fields, key) for key in own_fields.values}


def _is_token(value: Any) -> bool:
    return isinstance(value, (str, AddedText)) or (_is_object(value) and "__type" in value)


def _extra(fields: Fields) -> list[AddedText]:
    """Special tokens without a name."""
    key = _EXTRA if _EXTRA in fields.values or _OLD_EXTRA not in fields else _OLD_EXTRA
    return [_token(Fields({key: value}, fields.where), key) for value in _list(fields, key)]


def _list(fields: Fields, key: str) -> list[Any]:
    values = fields.value(key, [])
    if not isinstance(values, list):
        raise fields.wrong(key, "a list of tokens, or an object with named ones")
    return values


def _token(fields: Fields, key: str, file_id: int | None = None) -> AddedText:
    """A token. It is given by its text alone, and is then special, or as an object that says how it is matched."""
    value = fields.value(key)
    if isinstance(value, AddedText):
        return value
    if isinstance(value, str):
        return AddedText(_readable(fields, key, value), special=True)
    if not isinstance(value, dict):
        raise fields.wrong(key, "the text of a token, or an object with its content")
    inner = fields.inner(key)
    special = inner.flag("special", False)
    flags = {name: inner.flag(name, False) for name in ("lstrip", "rstrip", "single_word")}
    return AddedText(
        _readable(inner, "content", inner.text("content")),
        special,
        inner.flag("normalized", not special),
        **flags,
        file_id=file_id,
    )


def _readable(fields: Fields, key: str, text: str) -> str:
    """The same text, if it is valid: JSON can write half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidFormat(f"{fields.where}: {quoted(key)} holds half of a surrogate pair, which is no text") from None
    return text


def _in_order(
    listed: list[AddedText], special: Mapping[str, AddedText], extra: list[AddedText], file: TokenizerFile
) -> tuple[AddedText, ...]:
    """The listed tokens by their ids, then the tokens that are only named, then the others. A named token is
    special."""
    listed = sorted(listed, key=lambda token: token.file_id or 0)
    known_texts = {token.content for token in (*listed, *file.added_tokens)}
    texts = {token.content for token in special.values()}
    added = list(listed)
    for token in (*special.values(), *extra):
        if token.content not in known_texts:
            known_texts.add(token.content)
            added.append(token)
    return tuple(replace(token, special=True) if token.content in texts else token for token in added)
