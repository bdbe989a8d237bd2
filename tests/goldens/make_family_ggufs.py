"""Makes tests/goldens/families/gguf/: how llama.cpp's converter writes the models of tests/goldens/families/ as GGUF.

    python -m tests.goldens.make_family_ggufs LLAMA_CPP [NAME ...]

LLAMA_CPP is a checkout of llama.cpp with `convert_hf_to_gguf.py`. A result is a recipe, not a file: the metadata
without the vocabulary, and for each tensor which rows of which tensors of the model it is made of. The rows are found
by converting the model once with weights that are numbered: each number tells its own place. `write_gguf` of
tests/model/families.py follows the recipe. Before it is kept, llama.cpp (llama-cpp-python) reads the converted file,
and its logits have to be those of transformers.
Needs transformers, gguf and llama-cpp-python (extras `oracle` and `bench`).
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from tests.model.families import FAMILIES, RECIPES, Arrays, Golden, from_recipe, write_model, write_weights

STEP = 4
"""The numbered weights are multiples of it; what the converter adds to one stays readable."""
NEAR = 2e-3
"""How far llama.cpp's logits may be from those of transformers, relative L2 over all tokens."""
KEPT = {"general.architecture", "general.file_type", "general.quantization_version"}
TAKEN_WHOLE = ("rope_freqs", "rope_factors_long", "rope_factors_short")
"""Tensors that are computed from the configuration: their numbers are kept."""


class Differs(Exception):
    """llama.cpp computes something else than transformers."""


def open_converter(checkout: Path) -> Any:
    """llama.cpp's module of converters, which brings its own package gguf."""
    sys.path[:0] = [str(checkout / "gguf-py"), str(checkout)]
    logging.disable(logging.WARNING)
    return importlib.import_module("conversion")


def convert(converters: Any, folder: Path, raw: bool) -> Path:
    """The model in a directory as a GGUF file of float32 numbers. The converter reads config.json itself (`raw`), as it
    did before it asked transformers, or with transformers, which fills in what the file leaves out."""
    import gguf
    import torch

    told = json.loads((folder / "config.json").read_text())
    hparams = told if raw else converters.ModelBase.load_hparams(folder, False)
    found = converters.get_model_class(converters.get_model_architecture(hparams, converters.ModelType.TEXT))
    without_vocabulary(converters.TextModel, told["vocab_size"])
    with torch.inference_mode():
        found(folder, gguf.LlamaFileType.ALL_F32, folder / "model.gguf", eager=True, hparams=hparams).write()
    return folder / "model.gguf"


def without_vocabulary(base: Any, vocab_size: int) -> None:
    """Makes every converter write how many tokens there are instead of the tokens."""

    def set_vocab(self: Any) -> None:
        self._set_vocab_none()
        if not any(f"{self.gguf_writer.arch}.vocab_size" in part for part in self.gguf_writer.kv_data):
            self.gguf_writer.add_vocab_size(vocab_size)

    for converter in base.__subclasses__():
        without_vocabulary(converter, vocab_size)
        if "set_vocab" in vars(converter):
            converter.set_vocab = set_vocab
    base.set_vocab = set_vocab


def read(path: Path) -> tuple[dict[str, Any], Arrays]:
    """Metadata as key -> (type, value), and tensors."""
    import gguf

    reader = gguf.GGUFReader(path)
    metadata = {key: typed(field) for key, field in reader.fields.items()}
    tensors = {x.name: np.array(x.data) for x in reader.tensors}
    return metadata, tensors


def typed(field: Any) -> list[Any]:
    names = [kind.name.lower() for kind in field.types]
    value = field.contents()
    return ["array", value, names[1]] if names[0] == "array" else [names[0], value]


def numbered(golden: Golden) -> Arrays:
    """The model's tensors with the numbers 0, STEP, 2 STEP, … in them."""
    place, arrays = 0, {}
    for name, (_, shape) in sorted(golden.tensors.items()):
        count = int(np.prod(shape))
        arrays[name] = (STEP * np.arange(place, place + count)).astype(np.float32).reshape(shape)
        place += count
    assert place * STEP < 2**24, "numbers that float32 cannot hold"
    return arrays


def recipe_of(tensor: np.ndarray, sources: Arrays) -> dict[str, Any]:
    """Where the numbers of a converted tensor come from."""
    codes = tensor.astype(np.int64)
    plus = int(codes.flat[0] % STEP)
    assert np.array_equal(codes, tensor) and (codes % STEP == plus).all(), "not the model's numbers"
    places = codes // STEP
    recipe: dict[str, Any] = {"shape": list(tensor.shape)}
    rows = whole_rows(places.reshape(-1, tensor.shape[-1]), sources) if tensor.ndim > 1 else None
    if rows is None:
        recipe["unit"] = 1
        rows = [single(int(place), sources) for place in places.flat]
    recipe["parts"] = list(parts(rows, sources, recipe.get("unit") or tensor.shape[-1]))
    return {**recipe, "plus": plus} if plus else recipe


Row = tuple[str, bool, int]
"""A tensor, whether its last two axes are swapped, and a row of it."""


def source_of(place: int, sources: Arrays) -> tuple[str, int]:
    for name, array in sources.items():
        if place < array.size:
            return name, place
        place -= array.size
    raise AssertionError("a place beyond the last tensor")


def single(place: int, sources: Arrays) -> Row:
    name, place = source_of(place, sources)
    return name, False, place


def whole_rows(places: np.ndarray, sources: Arrays) -> list[Row] | None:
    """None where a row is not a row of the model's tensors."""
    rows: list[Row] = []
    width = places.shape[1]
    for row in places:
        name, first = source_of(int(row[0]), sources)
        shape = sources[name].shape
        steps = set(np.diff(row).tolist())
        if steps == {1} and shape[-1] == width and first % width == 0:
            rows.append((name, False, first // width))
        elif len(shape) > 1 and steps == {shape[-1]} and shape[-2] == width:
            block, inner = divmod(first, width * shape[-1])
            rows.append((name, True, block * shape[-1] + inner))
        else:
            return None
    return rows


def parts(rows: list[Row], sources: Arrays, unit: int) -> Iterator[list[Any]]:
    """[tensor, rows], and True where its last two axes are swapped."""
    for (name, turned), group in groupby(rows, key=lambda row: row[:2]):
        numbers = [row[2] for row in group]
        step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
        told: Any = numbers
        if numbers == list(range(sources[name].size // unit)):
            told = ":"
        elif step > 0 and numbers == list(range(numbers[0], numbers[-1] + 1, step)):
            told = f"{numbers[0]}:{numbers[-1] + 1}" + (f":{step}" if step > 1 else "")
        yield [name, told, True] if turned else [name, told]


def make_recipe(converters: Any, golden: Golden, raw: bool) -> dict[str, Any]:
    sources = numbered(golden)
    with tempfile.TemporaryDirectory() as name:
        folder = write_model(golden, Path(name))
        metadata, expected = read(convert(converters, folder, raw))
        error = distance(llama_cpp_logits(folder / "model.gguf", golden.tokens), golden.logits)
        if error > NEAR:
            raise Differs(f"llama.cpp is {error:.1e} from transformers")
        write_weights(sources, folder / "model.safetensors")
        _, traced = read(convert(converters, folder, raw))
    tensors = {
        name: {"shape": list(x.shape), "numbers": x.ravel().tolist()}
        if name.startswith(TAKEN_WHOLE)
        else recipe_of(x, sources)
        for name, x in traced.items()
    }
    weights = golden.weights()
    for name, recipe in tensors.items():
        assert np.array_equal(from_recipe(recipe, weights), expected[name]), f"{name} is not what the converter wrote"
    kept = {key: value for key, value in metadata.items() if is_kept(key)}
    return {"llama_cpp": float(f"{error:.1e}"), "metadata": kept, "tensors": tensors}


def is_kept(key: str) -> bool:
    return key in KEPT or not key.startswith(("GGUF.", "general.", "tokenizer."))


def llama_cpp_logits(path: Path, tokens: list[int]) -> np.ndarray:
    """float32 [tokens, vocab], with keys and values in float32."""
    from llama_cpp import Llama

    model = Llama(
        str(path), n_ctx=len(tokens), n_batch=512, n_threads=1, n_gpu_layers=0, logits_all=True, type_k=0, type_v=0,
        flash_attn=False, yarn_attn_factor=-1.0, yarn_beta_fast=-1.0, yarn_beta_slow=-1.0, verbose=False,
    )  # fmt: skip
    model.eval(tokens)
    return np.array(model.scores[: len(tokens)])


def distance(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.linalg.norm(x - y) / np.linalg.norm(y))


def as_json(recipe: dict[str, Any]) -> str:
    """One key, one tensor a line."""

    def lines(entries: dict[str, Any]) -> str:
        return (
            "{\n" + ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in entries.items()) + "\n }"
        )

    head = f' "llama_cpp": {recipe["llama_cpp"]}'
    return f'{{\n{head},\n "metadata": {lines(recipe["metadata"])},\n "tensors": {lines(recipe["tensors"])}\n}}\n'


def main(checkout: str, names: list[str]) -> None:
    converters = open_converter(Path(checkout))
    RECIPES.mkdir(exist_ok=True)
    for name, golden in FAMILIES.items():
        if names and name not in names:
            continue
        target = RECIPES / f"{name}.json"
        target.unlink(missing_ok=True)
        recipe, problems = None, []
        for raw in (True, False):
            try:
                recipe = recipe or make_recipe(converters, golden, raw)
            except Exception as problem:  # told, and looked at: what llama.cpp cannot do has no recipe
                problems.append(f"{type(problem).__name__}: {problem}")
        if recipe is None:
            print(f"{name}: {' | '.join(dict.fromkeys(problems))}")
            continue
        target.write_text(as_json(recipe))
        print(name, recipe["llama_cpp"], target.stat().st_size, "bytes")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
