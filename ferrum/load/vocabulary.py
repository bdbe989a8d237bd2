"""The tokenizer and the chat template that come with a model.

Owns: where the two file formats keep them. Refuses to know: what they do (`ferrum.text`).
Specs: LOAD-50. Next: `ferrum.load.special_tokens`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ferrum.errors import TokenizerError
from ferrum.fields import Fields
from ferrum.load.gguf import GGUFFile
from ferrum.load.special_tokens import gguf_special_tokens
from ferrum.load.templates import folder_templates, gguf_templates
from ferrum.load.token_ids import TokenIds

if TYPE_CHECKING:
    from ferrum.load.tokenizer_config import TokenizerSettings
    from ferrum.text.chat import ChatTemplate
    from ferrum.text.template_names import ChatTemplates
    from ferrum.text.tokenizer import Tokenizer
    from ferrum.text.tokenizer_json import TokenizerFile


class Vocabulary(Protocol):
    """Reads the files of texts at their first use: a model can compute without a tokenizer."""

    def tokenizer(self, ids: TokenIds) -> Tokenizer: ...  # raises `TokenizerError` if there is none
    def chat_templates(self) -> ChatTemplates: ...
    def chat_template(self) -> ChatTemplate | None: ...  # for a conversation without tools; None if there is none


class FolderVocabulary:
    """tokenizer.json, tokenizer_config.json and chat_template.jinja of a Hugging Face directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._settings: TokenizerSettings | None = None
        self._tokenizer_file: TokenizerFile | None = None  # read for the settings, and used again for the tokenizer

    def tokenizer(self, ids: TokenIds) -> Tokenizer:
        from ferrum.text.tokenizer import Tokenizer

        file = self._file()
        self._tokenizer_file = None
        if file is None:
            raise TokenizerError(f"{self.folder} has no tokenizer.json; the model can take token ids only")
        settings = self.settings(file)
        return Tokenizer.from_json(
            file,
            bos_token_id=ids.bos_token_id,
            eos_token_ids=ids.eos_token_ids,
            eos_token=settings.names.get("eos_token"),
            added=settings.added,
            splits_special=settings.splits_special,
        )

    def chat_templates(self) -> ChatTemplates:
        from ferrum.text.template_names import ChatTemplates

        return ChatTemplates(folder_templates(self.folder), **self.settings(self._file()).names)

    def chat_template(self) -> ChatTemplate | None:
        return self.chat_templates().plain()

    def settings(self, file: TokenizerFile | None) -> TokenizerSettings:
        """The settings beside tokenizer.json; `file` is None if there is no tokenizer.json. Read once."""
        from ferrum.load.tokenizer_config import read_settings
        from ferrum.text.tokenizer_json import TokenizerFile

        if self._settings is None:
            self._settings = read_settings(self.folder, TokenizerFile("{}") if file is None else file)
        return self._settings

    def _file(self) -> TokenizerFile | None:
        from ferrum.text.tokenizer_json import TokenizerFile

        path = self.folder / "tokenizer.json"
        if self._tokenizer_file is None and path.exists():
            self._tokenizer_file = TokenizerFile(path)
        return self._tokenizer_file


class GGUFVocabulary:
    """The `tokenizer.*` metadata of a GGUF file."""

    def __init__(self, file: GGUFFile) -> None:
        self.fields = Fields(file.metadata, str(file.path), "tokenizer.")

    def tokenizer(self, ids: TokenIds) -> Tokenizer:
        from ferrum.load.tokenizer_keys import warn_of_metadata
        from ferrum.text.gguf_tokenizer import tokenizer_from_gguf

        if "ggml.model" not in self.fields:
            raise TokenizerError(f"{self.fields.where} has no tokenizer; the model can take token ids only")
        warn_of_metadata(self.fields)
        return tokenizer_from_gguf(self.fields.values, self.fields.where)

    def chat_templates(self) -> ChatTemplates:
        from ferrum.text.template_names import ChatTemplates

        return ChatTemplates(gguf_templates(self.fields), **gguf_special_tokens(self.fields))

    def chat_template(self) -> ChatTemplate | None:
        return self.chat_templates().plain()
