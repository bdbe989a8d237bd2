"""Quantised safetensors that cannot be read: one sentence says which key or tensor, and what is wrong with it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.errors import FerrumError, InvalidFormat, ModelError, ModelWarning, Unsupported
from ferrum.fields import Fields
from ferrum.load.model import load_model, open_model
from ferrum.load.quantization_config import find_formats
from tests.load.quantised_folders import Tensors, awq_tensors, gptq_tensors, write_raw
from tests.load.test_load_quantised import AWQ, CASES, golden_tensors, gptq_config, source_of, weights


def method(name: str, **keys: Any) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": name, **keys}}


def compressed(form: str, **keys: Any) -> dict[str, Any]:
    return method("compressed-tensors", format=form, config_groups=weights(**keys))


MLX = {"group_size": 64, "bits": 4}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "method": (
        method("bitsandbytes"),
        r"quantization_config: quant_method 'bitsandbytes' is not supported; supported: awq",
    ),
    "method of a trainer": (method("auto-round", bits=4), "quant_method 'auto-round' is not supported"),
    "gptq bits": (gptq_config(3), "bits 3 is not supported; supported: 4, 8"),
    "gptq few bits": (gptq_config(2), "bits 2 is not supported"),
    "gptq layout": (
        gptq_config(checkpoint_format="marlin"),
        "checkpoint_format 'marlin' is not supported; supported: gptq",
    ),
    "gptq exceptions": (gptq_config(dynamic={"-:lm_head": {}}), "dynamic .* is not supported"),
    "awq bits": (method("awq", bits=8), "bits 8 is not supported; supported: 4"),
    "awq layout": (method("awq", bits=4, version="gemv"), "version 'gemv' is not supported"),
    "awq without zeros": (method("awq", bits=4, zero_point=False), "zero_point False is not supported"),
    "fp8 elements": (method("fp8", fmt="e5m2"), "fmt 'e5m2' is not supported; supported: e4m3"),
    "fp8 experts": (method("fp8", expert_dtype="fp4"), "expert_dtype 'fp4' is not supported"),
    "mlx bits": ({"quantization": {**MLX, "bits": 3}}, "quantization: bits 3 is not supported; supported: 4, 8"),
    "mlx bits of a module": (
        {"quantization": {**MLX, "m": {**MLX, "bits": 6}}},
        "quantization: m: bits 6 is not supported",
    ),
    "mlx mode": ({"quantization": {**MLX, "mode": "nvfp4"}}, "mode 'nvfp4' is not supported; supported: affine, mxfp4"),
    "compressed zeros": (
        compressed("int-quantized", num_bits=8, symmetric=False),
        "weights: symmetric False is not supported",
    ),
    "compressed float bits": (
        compressed("nvfp4-pack-quantized", type="float", num_bits=4),
        "num_bits 4 in format 'nvfp4-pack",
    ),
    "compressed bits": (compressed("pack-quantized", num_bits=2), "num_bits 2 is not supported; supported: 4, 8"),
    "compressed cache": (
        method("compressed-tensors", kv_cache_scheme={"num_bits": 8}),
        "kv_cache_scheme .* is not supported",
    ),
    "compressed rotation": (
        method("compressed-tensors", transform_config={"a": 1}),
        "transform_config .* is not supported",
    ),
    "compressed ways": (
        method("compressed-tensors", format="pack-quantized", config_groups={
            name: {"weights": {"type": "int", "num_bits": bits}} for name, bits in (("a", 4), ("b", 8))
        }),
        "config_groups .* supported: one way for each type of tensors",
    ),
}  # fmt: skip

MEANINGLESS: dict[str, tuple[dict[str, Any], str]] = {
    "a text": ({"quantization_config": "awq"}, "quantization_config must be an object, not 'awq'"),
    "nothing": ({"quantization_config": {}}, "quant_method is missing"),
    "bits": (gptq_config("4"), "bits must be a whole number"),  # type: ignore[arg-type]
    "no bits": (method("awq"), "bits is missing"),
    "no group size": (method("gptq", bits=4), "group_size is missing"),
    "group size 0": (gptq_config(size=0), "group_size must be a number of columns, or -1 for all of them, not 0"),
    "mlx group size": (
        {"quantization": {"bits": 4, "group_size": -1}},
        "group_size must be a whole number of at least 1",
    ),
    "block": (method("fp8", weight_block_size=[128]), "weight_block_size must be two numbers above 0"),
    "empty block": (method("fp8", weight_block_size=[128, 0]), "weight_block_size must be two numbers above 0"),
    "no groups": (method("compressed-tensors", config_groups={}), "config_groups must be an object"),
    "sym": (gptq_config(sym="yes"), "sym must be true or false"),
}  # fmt: skip


@pytest.mark.clause("LOAD-22", "LOAD-106")
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_served_is_refused_by_name(tmp_path: Path, case: str) -> None:
    config, says = REFUSED[case]
    folder = write_raw(tmp_path, {"w": ("F32", np.ones(1, np.float32))}, config)
    with pytest.raises(Unsupported, match=says):
        _ = open_model(folder).source


@pytest.mark.clause("LOAD-21", "LOAD-106")
@pytest.mark.parametrize("case", MEANINGLESS)
def test_what_has_no_meaning_is_an_error(case: str) -> None:
    config, says = MEANINGLESS[case]
    with pytest.raises(InvalidFormat, match=says):
        find_formats(Fields(config, "config.json"))


@pytest.mark.clause("LOAD-83", "LOAD-106")
def test_a_key_of_which_nothing_is_known_is_told(tmp_path: Path) -> None:
    with pytest.warns(ModelWarning, match="quantization_config: ignored: 'unheard_of', which are not known here"):
        find_formats(Fields(gptq_config(unheard_of=1, damp_percent=0.1), str(tmp_path)))


@pytest.mark.clause("LOAD-106")
@pytest.mark.parametrize("config", [{}, {"quantization_config": None}, {"quantization": None}])
def test_without_quantisation_nothing_is_looked_for(config: dict[str, Any]) -> None:
    assert find_formats(Fields(config, "config.json")) == ()


def small(kind: str) -> tuple[Tensors, dict[str, Any]]:
    """A good matrix "m" of that kind."""
    if kind in CASES:
        return golden_tensors(kind)[0], CASES[kind][1]
    random = np.random.default_rng(0)
    numbers = random.integers(0, 16, (8, 64)), random.integers(0, 16, (8, 2)), random.random((8, 2))
    if kind == "awq":
        return awq_tensors("m", *numbers), AWQ
    return gptq_tensors("m", *numbers, places=np.arange(64) // 32), gptq_config()


def without(stored: Tensors, name: str) -> Tensors:
    return {key: value for key, value in stored.items() if key != name}


PARTS = {
    "awq": ["m.qzeros", "m.scales"],
    "gptq": ["m.qzeros", "m.scales"],
    "mlx 8": ["m.scales", "m.biases"],
    "mlx mxfp4": ["m.scales"],
    "gpt-oss": ["m_scales"],
    "compressed 4": ["m.weight_scale", "m.weight_shape"],
}
EACH_PART = [(kind, name) for kind, names in PARTS.items() for name in names]


def name_of(source: Any) -> str:
    return next(name for name in source.names() if name in ("m", "m.weight"))


@pytest.mark.clause("LOAD-105")
@pytest.mark.parametrize(("kind", "part"), [*EACH_PART, ("fp8 blocks", "m.weight_scale_inv")])
def test_a_missing_part_is_named(tmp_path: Path, kind: str, part: str) -> None:
    stored, config = small(kind)
    source = source_of(tmp_path, without(stored, part), config)
    shown = part.replace("_scale_inv", "_scale")
    for read in (source.describe, source.weight, source.stack, source.vector):
        with pytest.raises(ModelError, match=rf"tensor {shown} is missing, without which \S+ has no meaning"):
            read(name_of(source))


@pytest.mark.clause("LOAD-105")
@pytest.mark.parametrize(("kind", "part"), EACH_PART)
@pytest.mark.parametrize("change", ["a row less", "no row", "turned", "one dimension more"])
def test_a_part_of_another_shape_is_named(tmp_path: Path, kind: str, part: str, change: str) -> None:
    stored, config = small(kind)
    element, array = stored[part]
    changed = {"a row less": array[:-1], "no row": array[:0], "turned": array.T, "one dimension more": array[None]}[
        change
    ]
    if changed.shape == array.shape:
        return
    source = source_of(tmp_path, {**stored, part: (element, changed)}, config)
    with pytest.raises(ModelError, match=rf"tensor {part} has shape \[.*\], but m\S* asks for \[") as caught:
        source.describe(name_of(source))
    assert "\n" not in str(caught.value)


@pytest.mark.clause("LOAD-105")
@pytest.mark.parametrize(("kind", "part"), EACH_PART)
def test_a_part_of_another_type_is_named(tmp_path: Path, kind: str, part: str) -> None:
    stored, config = small(kind)
    array = stored[part][1].astype(np.uint8)
    changed = ("I8" if stored[part][0] == "U8" else "U8", array)
    source = source_of(tmp_path, {**stored, part: changed}, config)
    with pytest.raises(Unsupported, match=rf"tensor {part} is stored as {changed[0]}, not as "):
        source.describe(name_of(source))


def nine(stored: Tensors, name: str, change: Any) -> Tensors:
    kind, array = stored[name]
    return {**stored, name: (kind, change(array))}


WRONG: dict[str, tuple[str, str, Any, str]] = {
    "group": ("gptq", "m.g_idx", lambda array: array + 1, "m.g_idx names a group that is none of 2"),
    "negative group": ("gptq", "m.g_idx", lambda array: array - 1, "m.g_idx names a group that is none of 2"),
    "places": ("gptq", "m.g_idx", lambda array: array[:-1], r"m.g_idx has shape \[63\], but m.qweight asks for \[64\]"),
    "shape": (
        "compressed 4", "m.weight_shape", lambda array: array + 1,
        r"weight_shape says otherwise than m.weight_packed",
    ),
    "no rows": ("awq", "m.qweight", lambda array: array[:0], r"m.qweight has shape \[0, 1\], which holds no matrix"),
    "a vector": ("gptq", "m.qweight", lambda array: array[0], r"m.qweight has shape \[8\], which holds no matrix"),
    "a stack": ("gptq", "m.qweight", lambda array: array[..., None], r"shape \[8, 8, 1\], which holds no matrix"),
    "a stack of words": ("awq", "m.qweight", lambda array: array[None], r"shape \[1, 64, 1\], which holds no matrix"),
    "columns": ("mlx 8", "m.weight", lambda array: array[:, :17], "holds 68 columns, which are no multiple of 64"),
    "columns of words": (
        "mlx mxfp4", "m.weight", lambda array: array[:, :5],
        "holds 40 columns, which are no multiple of 32",
    ),
    "bytes": ("gpt-oss", "m_blocks", lambda array: array[..., :8], "whose last dimension must be 16 bytes"),
    "two dimensions": ("gpt-oss", "m_blocks", lambda array: array[0, 0], "which holds no matrix"),
    "blocks": (
        "fp8 blocks", "m.weight_scale_inv", lambda array: array[:2],
        r"has shape \[2, 3\], but m.weight asks for",
    ),
}  # fmt: skip


@pytest.mark.clause("LOAD-105")
@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_together_is_said(tmp_path: Path, case: str) -> None:
    kind, name, change, says = WRONG[case]
    stored, config = small(kind)
    source = source_of(tmp_path, nine(stored, name, change), config)
    with pytest.raises(ModelError, match=says):
        source.describe(name_of(source))


@pytest.mark.clause("LOAD-105")
def test_a_matrix_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    stored, config = small("awq")
    with pytest.raises(InvalidFormat, match=r"tensor m\.weight is there twice, quantised and plain"):
        source_of(tmp_path, {**stored, "m.weight": ("F32", np.ones((8, 64), np.float32))}, config)


@pytest.mark.clause("LOAD-33", "LOAD-105")
def test_a_part_without_a_matrix_stays_and_is_refused_by_the_model(tmp_path: Path) -> None:
    stored, config = small("awq")
    source = source_of(tmp_path, without(stored, "m.qweight"), config)
    assert sorted(source.names()) == ["m.qzeros", "m.scales"]


@pytest.mark.clause("LOAD-14", "LOAD-105")
@pytest.mark.parametrize("kind", [*PARTS, "fp8 blocks"])
@given(data=st.data())
def test_altered_files_are_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("altered")
    stored, config = small(kind)
    path = write_raw(folder, stored, config) / "model.safetensors"
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    entry = header[data.draw(st.sampled_from(sorted(header)))]
    key = data.draw(st.sampled_from(["dtype", "shape"]))
    entry[key] = data.draw(
        st.sampled_from(["F32", "F16", "I32", "U8", "F8_E4M3", "U32", "I8"])
        if key == "dtype"
        else st.lists(st.sampled_from([0, 1, 2, 4, 8, 64, 2**40]), max_size=4)
    )
    length = int(np.prod([float(n) for n in entry["shape"]])) * {"F32": 4, "U32": 4, "I32": 4, "F16": 2, "BF16": 2}.get(
        entry["dtype"], 1
    )
    if data.draw(st.booleans()) and length < 10**5:  # the claim is kept
        entry["data_offsets"] = [entry["data_offsets"][0], entry["data_offsets"][0] + length]
        header = dict(sorted(header.items(), key=lambda item: item[1]["data_offsets"]))
        start = 0
        for each in header.values():
            count = each["data_offsets"][1] - each["data_offsets"][0]
            each["data_offsets"] = [start, start + count]
            start += count
        content = content[: 8 + size] + bytes(start)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])
    try:
        source = open_model(folder).source
        for name in source.names():
            source.describe(name)
            source.vector(name)
    except FerrumError as error:
        assert "\n" not in str(error)


@pytest.mark.clause("LOAD-22")
def test_a_model_with_an_unknown_method_is_not_run(tmp_path: Path) -> None:
    folder = write_raw(tmp_path, {"w": ("F32", np.ones(1, np.float32))}, method("hqq"))
    with pytest.raises(Unsupported, match="quant_method 'hqq' is not supported"):
        load_model(folder)
