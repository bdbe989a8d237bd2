"""How a model makes one vector of a text, where its files say it.

Owns: the files that sentence-transformers puts beside a model, and GGUF's numbers for the same. An unknown step is
refused: without it the vectors would be wrong. Refuses to know: how vectors are pooled.
Specs: LOAD-141. Source: the `models` of https://github.com/UKPLab/sentence-transformers; llama.cpp's `llama.h`.
Next: `ferrum.load.limits`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ferrum.errors import InvalidFormat, Unsupported, quoted
from ferrum.fields import LARGEST_JSON, Fields, read_json
from ferrum.files import read_text
from ferrum.types import Pooling

_GGUF = {1: Pooling.MEAN, 2: Pooling.CLS, 3: Pooling.LAST}
"""llama.cpp's numbers; 0 means none."""

_MODES = {
    "pooling_mode_mean_tokens": Pooling.MEAN,
    "pooling_mode_cls_token": Pooling.CLS,
    "pooling_mode_lasttoken": Pooling.LAST,
}
_NAMES = {"mean": Pooling.MEAN, "cls": Pooling.CLS, "lasttoken": Pooling.LAST}
_KNOWN = ("Transformer", "Pooling", "Normalize")
"""The known modules. Normalize is a parameter of each call here."""


def read_pooling(folder: Path) -> Pooling | None:
    """None if the files say nothing. Raises `Unsupported` for an unknown way of making vectors, `InvalidFormat` for
    files that are not valid."""
    path = folder / "modules.json"
    if not os.path.lexists(path):
        return None
    places = [_place(path, module) for module in _modules(path)]
    pooling = [place for kind, place in places if kind == "Pooling"]
    unknown = [kind for kind, _ in places if kind not in _KNOWN]
    if unknown:
        raise Unsupported(f"{path}: module {quoted(unknown[0])} is not supported; supported: {', '.join(_KNOWN)}")
    return _mode(read_json(folder / pooling[0] / "config.json")) if pooling else None


def gguf_pooling(model: Fields) -> Pooling | None:
    """The same from the metadata of a GGUF file. Raises `Unsupported` for any other number; 4 means that texts are
    scored."""
    number = model.integer("pooling_type", 0, low=-1)
    if number not in (-1, 0, *_GGUF):
        raise model.refused("pooling_type", map(str, _GGUF))
    return _GGUF.get(number)


def _modules(path: Path) -> list[Any]:
    try:
        modules = json.loads(read_text(path, LARGEST_JSON))
    except (ValueError, RecursionError) as error:
        raise InvalidFormat(f"{path} is not valid JSON: {error}") from None
    if not isinstance(modules, list):
        raise InvalidFormat(f"{path} must hold a list of modules")
    return modules


def _place(path: Path, module: Any) -> tuple[str, str]:
    """The class of a module, without its package, and its folder, which must lie in the folder of the model."""
    if not isinstance(module, dict):
        raise InvalidFormat(f"{path} must hold a list of modules")
    fields = Fields(module, str(path))
    place = fields.text("path", "")
    if place and (Path(place).is_absolute() or ".." in Path(place).parts):
        raise InvalidFormat(f"{path}: the path {quoted(place)} leads out of the folder")
    return fields.text("type").rpartition(".")[2], place


def _mode(fields: Fields) -> Pooling:
    """The one mode that is switched on."""
    if "pooling_mode" in fields:
        name = fields.text("pooling_mode")
        if name not in _NAMES:
            raise fields.refused("pooling_mode", _NAMES)
        return _NAMES[name]
    switched_on = [key for key in fields.values if key.startswith("pooling_mode_") and fields.flag(key, False)]
    for key in switched_on:
        if key not in _MODES or len(switched_on) > 1:
            raise fields.refused(key, _MODES)
    return _MODES[switched_on[0]] if switched_on else Pooling.MEAN
