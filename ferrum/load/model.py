"""A place on this machine -> a model: configuration, parameters, tokenizer, chat template.

Owns: telling the two file formats apart and putting the parts together. Refuses to know: engines; every array is NumPy
and may be a view of the file.
Specs: LOAD-40, LOAD-41, LOAD-50. Next: `ferrum.load.vocabulary`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ferrum.config import ModelConfig
from ferrum.errors import NotFound
from ferrum.load import config_gguf
from ferrum.load.config_json import read_config_json
from ferrum.load.conversion import check_dtype
from ferrum.load.families import Layout
from ferrum.load.gguf import GGUFFile
from ferrum.load.params import build_params
from ferrum.load.resolve import Location, resolve
from ferrum.load.source import GGUFSource, TensorSource
from ferrum.load.vocabulary import FolderVocabulary, GGUFVocabulary, Vocabulary
from ferrum.model.params import DecoderParams

if TYPE_CHECKING:
    from ferrum.text.chat import ChatTemplate
    from ferrum.text.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class ModelFiles:
    """A model whose files are open and whose configuration is read; no tensor is. Enough to describe it."""

    name: str
    path: Path  # the .gguf file or the directory
    config: ModelConfig
    source: TensorSource
    layout: Layout
    biases: frozenset[str] | None  # linears with a bias; None: those for which the file has one
    vocabulary: Vocabulary


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model ready for an engine. The tokenizer and the chat template are read when first asked for."""

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
        """Raises `TokenizerError` where the model has none."""
        return self.files.vocabulary.tokenizer(self.config)

    @cached_property
    def chat_template(self) -> ChatTemplate | None:
        """None where the model has none."""
        return self.files.vocabulary.chat_template()


def load_model(location: Location | Path, dtype: str = "auto") -> LoadedModel:
    """Everything about the model at a location. `dtype` is one of `ferrum.load.conversion.DTYPES`.

    Raises `NotFound`, `InvalidFormat`, `Unsupported`, `ModelError` or `InvalidParameter` with one clear sentence.
    """
    check_dtype(dtype)
    files = open_model(location)
    return LoadedModel(files, build_params(files.source, files.config, dtype, files.layout, files.biases))


def open_model(location: Location | Path) -> ModelFiles:
    """Opens the files of a model and reads its configuration. Raises as `load_model` does."""
    if isinstance(location, Path):
        location = resolve(location)
    path = location.path
    is_folder = os.path.isdir(path)
    if is_folder and os.path.lexists(path / "config.json"):
        return _open_folder(location.name, path)
    return _open_gguf(location.name, _only_gguf(path) if is_folder else path)


def _only_gguf(folder: Path) -> Path:
    files = sorted(folder.glob("*.gguf"))
    if len(files) != 1:
        found = f"{len(files)} .gguf files: name the one you mean" if files else "no .gguf file"
        raise NotFound(f"{folder} holds no config.json and {found}")
    return files[0]


def _open_folder(name: str, path: Path) -> ModelFiles:
    from ferrum.load.safetensors import SafetensorsSource

    config, family, biases = read_config_json(path)
    return ModelFiles(name, path, config, SafetensorsSource(path), family.layout, biases, FolderVocabulary(path))


def _open_gguf(name: str, path: Path) -> ModelFiles:
    file = GGUFFile(path)
    config, family = config_gguf.parse_config(file)
    return ModelFiles(name, path, config, GGUFSource(file), family.layout, None, GGUFVocabulary(file))
