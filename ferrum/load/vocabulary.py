"""The tokenizer and the chat template that come with a model.

Owns: where the two file formats keep them. Refuses to know: what they do (`ferrum.text`).
Specs: LOAD-50, LOAD-51. Source: transformers' tokenizer_config.json and chat_template.jinja; the GGUF format
document, section on tokenizers. Next: `ferrum.load.families`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ferrum.config import ModelConfig
from ferrum.errors import TokenizerError, quoted
from ferrum.fields import Fields, read_json
from ferrum.files import read_text
from ferrum.load.gguf import GGUFFile

if TYPE_CHECKING:
    from ferrum.text.chat import ChatTemplate
    from ferrum.text.tokenizer import Tokenizer


LARGEST_TEMPLATE = 1 << 20
"""Bytes of a file with a chat template; the longest in use have some tens of thousands."""


class Vocabulary(Protocol):
    """Reads text files only when asked: a model can compute without knowing any text."""

    def tokenizer(self, config: ModelConfig) -> Tokenizer: ...  # raises `TokenizerError` where there is none
    def chat_template(self) -> ChatTemplate | None: ...  # None where there is none


class FolderVocabulary:
    """tokenizer.json, tokenizer_config.json and chat_template.jinja of a Hugging Face directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def tokenizer(self, config: ModelConfig) -> Tokenizer:
        from ferrum.text.tokenizer import Tokenizer

        path = self.folder / "tokenizer.json"
        if not path.exists():
            raise TokenizerError(f"{self.folder} has no tokenizer.json; the model can take token ids only")
        return Tokenizer.from_json(path, bos_token_id=config.bos_token_id, eos_token_ids=config.eos_token_ids)

    def chat_template(self) -> ChatTemplate | None:
        from ferrum.text.chat import ChatTemplate

        path = self.folder / "tokenizer_config.json"
        fields = read_json(path) if path.exists() else Fields({}, str(path))
        source = self._template(fields)
        if source is None:
            return None
        return ChatTemplate(
            source, bos_token=_token_text(fields, "bos_token"), eos_token=_token_text(fields, "eos_token")
        )

    def _template(self, fields: Fields) -> str | None:
        """The file chat_template.jinja goes before the key; of several named templates it is the one called default."""
        path = self.folder / "chat_template.jinja"
        if path.exists():
            return read_text(path, LARGEST_TEMPLATE)
        templates = fields.get("chat_template")
        if not isinstance(templates, list):
            return fields.text("chat_template") if "chat_template" in fields else None
        named = {Fields(_entry(fields, t), fields.where).text("name"): t for t in templates}
        if "default" not in named:
            raise TokenizerError(f"{fields.where}: none of its chat templates is called default: {quoted(list(named))}")
        return Fields(named["default"], fields.where).text("template")


class GGUFVocabulary:
    """The `tokenizer.*` metadata of a GGUF file."""

    def __init__(self, file: GGUFFile) -> None:
        self.fields = Fields(file.metadata, str(file.path), "tokenizer.")

    def tokenizer(self, config: ModelConfig) -> Tokenizer:
        from ferrum.text.gguf_tokenizer import tokenizer_from_gguf

        if "ggml.model" not in self.fields:
            raise TokenizerError(f"{self.fields.where} has no tokenizer; the model can take token ids only")
        return tokenizer_from_gguf(self.fields.values, self.fields.where)

    def chat_template(self) -> ChatTemplate | None:
        from ferrum.text.chat import ChatTemplate

        if "chat_template" not in self.fields:
            return None
        source = self.fields.text("chat_template")
        return ChatTemplate(source, bos_token=self._token("bos"), eos_token=self._token("eos"))

    def _token(self, name: str) -> str | None:
        key = f"ggml.{name}_token_id"
        if key not in self.fields or "ggml.tokens" not in self.fields:
            return None
        tokens = self.fields.texts("ggml.tokens")
        return tokens[self.fields.index(key, len(tokens))]


def _entry(fields: Fields, template: Any) -> dict[str, Any]:
    if not isinstance(template, dict):
        raise fields.wrong("chat_template", "text or a list of named templates")
    return template


def _token_text(fields: Fields, key: str) -> str | None:
    """A special token's text, given bare or as an object with its content."""
    value = fields.get(key)
    if isinstance(value, dict):
        return fields.inner(key).text("content")
    return fields.text(key) if value is not None else None
