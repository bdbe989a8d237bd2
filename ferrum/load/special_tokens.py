"""The special tokens that a model's files name: the texts that stand for the beginning, the end, padding and the like.

Owns: where the two file formats keep them. Refuses to know: what they are for.
Specs: LOAD-52. Source: transformers' tokenizer_config.json; the GGUF format document, section on tokenizers.
Next: `ferrum.load.templates`.
"""

from __future__ import annotations

from pathlib import Path

from ferrum.fields import Fields, read_json

NAMES = ("bos_token", "eos_token")


def folder_special_tokens(folder: Path) -> dict[str, str]:
    """Texts by name ("bos_token", …) of a Hugging Face directory; what is not named is left out."""
    path = folder / "tokenizer_config.json"
    fields = read_json(path) if path.exists() else Fields({}, str(path))
    found = {name: _token_text(fields, name) for name in NAMES}
    return {name: text for name, text in found.items() if text is not None}


def gguf_special_tokens(fields: Fields) -> dict[str, str]:
    """The same of GGUF metadata; the keys of `fields` begin with "tokenizer."."""
    found = {f"{name}_token": _gguf_token(fields, name) for name in ("bos", "eos")}
    return {name: text for name, text in found.items() if text is not None}


def _token_text(fields: Fields, key: str) -> str | None:
    """A special token's text, given bare or as an object with its content."""
    value = fields.get(key)
    if isinstance(value, dict):
        return fields.inner(key).text("content")
    return fields.text(key) if value is not None else None


def _gguf_token(fields: Fields, name: str) -> str | None:
    key = f"ggml.{name}_token_id"
    if key not in fields or "ggml.tokens" not in fields:
        return None
    tokens = fields.texts("ggml.tokens")
    return tokens[fields.index(key, len(tokens))]
