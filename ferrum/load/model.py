"""A place on this machine -> a model: configuration, parameters, tokenizer, chat template.

Owns: telling the two file formats apart, and putting the parts together. Refuses to know: engines. Every array is
NumPy's and may be a view of the file.
Specs: LOAD-40, LOAD-41, LOAD-50, LOAD-101. Next: `ferrum.load.vocabulary`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ferrum.config import ModelConfig
from ferrum.errors import NotFound
from ferrum.fields import Fields
from ferrum.load.conversion import check_dtype
from ferrum.load.gguf import GGUFFile
from ferrum.load.gguf_parts import first_part, whole_file
from ferrum.load.layout import Description
from ferrum.load.params import build_params
from ferrum.load.resolve import Location, gguf_stem, resolve
from ferrum.load.source import GGUFSource, TensorSource
from ferrum.load.token_ids import TokenIds, json_token_ids
from ferrum.load.vocabulary import FolderVocabulary, GGUFVocabulary, Vocabulary
from ferrum.model.params import DecoderParams

if TYPE_CHECKING:
    from ferrum.text.chat import ChatTemplate
    from ferrum.text.template_names import ChatTemplates
    from ferrum.text.tokenizer import Tokenizer


class ModelFiles(ABC):
    """The files of a model, found but not read. Each part is read at its first use, and none needs another: the
    tokenizer can be read if the configuration is refused, and the configuration without the tensors."""

    def __init__(self, name: str, path: Path, vocabulary: Vocabulary) -> None:
        self.name = name
        self.path = path  # the .gguf file or the directory
        self.vocabulary = vocabulary

    @property
    @abstractmethod
    def architecture(self) -> str | None:
        """The name of the architecture in the files, supported or not."""

    @property
    @abstractmethod
    def token_ids(self) -> TokenIds:
        """The ids that begin and end a text."""

    @property
    @abstractmethod
    def source(self) -> TensorSource:
        """The tensors; none of them is read yet."""

    @property
    @abstractmethod
    def description(self) -> Description:
        """What the model computes. Raises `Unsupported` if that is not implemented."""

    @property
    def config(self) -> ModelConfig:
        return self.description.config


class _Folder(ModelFiles):
    """A Hugging Face directory. Imports are in the methods, here and in `_GGUF`: a start needs one format only."""

    def __init__(self, name: str, path: Path) -> None:
        super().__init__(name, path, FolderVocabulary(path))

    @cached_property
    def _fields(self) -> Fields:
        from ferrum.load import config_json

        return config_json.config_fields(self.path)

    @cached_property
    def _text(self) -> Fields:
        """The part of the configuration about text: all of it, except in vision models."""
        from ferrum.load.text_part import text_fields

        return text_fields(self._fields)

    @property
    def architecture(self) -> str | None:
        from ferrum.load import config_json

        return config_json.architecture(self._fields)

    @cached_property
    def token_ids(self) -> TokenIds:
        from ferrum.load import config_json

        inner = [] if self._text is self._fields else [self._text]
        return json_token_ids([self._fields, *inner, config_json.generation_fields(self.path)])

    @cached_property
    def source(self) -> TensorSource:
        from ferrum.load.quantized import open_safetensors
        from ferrum.load.text_part import TextSource, has_pictures

        source = open_safetensors(self.path, self._fields)
        return TextSource(source) if has_pictures(self._fields) else source

    @cached_property
    def description(self) -> Description:
        from ferrum.load import config_json
        from ferrum.load.pooling import read_pooling

        described = config_json.describe(self._text, self.token_ids)
        return replace(described, config=replace(described.config, pooling=read_pooling(self.path)))


class _GGUF(ModelFiles):
    """A .gguf file, possibly cut into parts."""

    def __init__(self, name: str, path: Path) -> None:
        self._first = first_part(path)
        super().__init__(name, path, GGUFVocabulary(self._first))

    @cached_property
    def _file(self) -> GGUFFile:
        return whole_file(self._first)

    @property
    def architecture(self) -> str | None:
        from ferrum.load import config_gguf

        return config_gguf.architecture(self._first)

    @cached_property
    def token_ids(self) -> TokenIds:
        from ferrum.load import config_gguf

        return config_gguf.token_ids(self._first)

    @cached_property
    def source(self) -> TensorSource:
        return GGUFSource(self._file)

    @cached_property
    def description(self) -> Description:
        from ferrum.load import config_gguf

        return config_gguf.describe(self._file, self.token_ids)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model ready for an engine. The tokenizer and the chat template are read at their first use."""

    files: ModelFiles
    params: DecoderParams

    @property
    def name(self) -> str:
        return self.files.name

    @property
    def path(self) -> Path:
        return self.files.path

    @property
    def config(self) -> ModelConfig:
        return self.files.config

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Raises `TokenizerError` if the model has none."""
        return self.files.vocabulary.tokenizer(self.files.token_ids)

    @cached_property
    def chat_templates(self) -> ChatTemplates:
        """Empty if the model has none."""
        return self.files.vocabulary.chat_templates()

    @property
    def chat_template(self) -> ChatTemplate | None:
        """The template of a conversation without tools; None if the model has none."""
        return self.chat_templates.plain()


def load_model(location: Location | Path, dtype: str = "auto") -> LoadedModel:
    """Everything about the model at a location. `dtype` is one of `ferrum.load.conversion.DTYPES`.

    Raises `NotFound`, `InvalidFormat`, `Unsupported`, `ModelError` or `InvalidParameter` with one clear sentence.
    """
    check_dtype(dtype)
    files = open_model(location)
    described = files.description
    return LoadedModel(files, build_params(files.source, described.config, dtype, described.layout, described.biases))


def open_model(location: Location | Path) -> ModelFiles:
    """Finds the files of a model. Raises `NotFound`, or `InvalidFormat` for a GGUF file that is damaged."""
    if isinstance(location, Path):
        location = resolve(location)
    path, name = location.path, location.name
    if path.suffix in _PARTS and not os.path.isdir(path):  # one file of a directory stands for the directory
        if not os.path.lexists(path.parent / "config.json"):
            raise NotFound(f"{path} is one file of a model, and there is no config.json beside it")
        path, name = path.parent, path.parent.resolve().name
    if not os.path.isdir(path):
        return _GGUF(name, path)
    if os.path.lexists(path / "config.json") and (_has_tensors(path) or not list(path.glob("*.gguf"))):
        return _Folder(name, path)
    return _GGUF(name, _only_gguf(path))


_PARTS = (".safetensors", ".json", ".jinja")
"""Ends of names of files in a Hugging Face directory."""


def _has_tensors(folder: Path) -> bool:
    """True if a directory holds files of tensors or an index of them. Beside a .gguf file, a config.json without
    tensors describes that file."""
    return any(folder.glob("*.safetensors")) or os.path.lexists(folder / "model.safetensors.index.json")


def _only_gguf(folder: Path) -> Path:
    files = sorted(folder.glob("*.gguf"))
    if len({gguf_stem(path) for path in files}) != 1:  # all parts of one file have the same stem
        content = f"{len(files)} .gguf files: name the one you mean" if files else "no config.json and no .gguf file"
        raise NotFound(f"{folder} holds {content}")
    return files[0]
