"""How the matrices of a directory are quantised: `quantization_config` of config.json, and `quantization` of MLX.

Owns: the known methods and their keys: each key is read, refused by name unless neutral, or known to be harmless.
Refuses to know: tensors.
Specs: LOAD-103, LOAD-106. Source: transformers' `quantization_config.py`, the packages AutoGPTQ, GPTQModel, AutoAWQ,
compressed-tensors and mlx-lm.

Other engines round activations to eight bits with some methods. Here activations stay exact: scales of activations and
of caches are ignored. Next: `ferrum.load.features`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ferrum.errors import Unsupported, quoted
from ferrum.fields import Fields
from ferrum.load.known_keys import Neutral, check_keys, words
from ferrum.load.packed import (
    MLX_MXFP4,
    MXFP4,
    Format,
    awq,
    compressed_int4,
    gptq,
    mlx_affine,
    scaled_elements,
)

ACTIVATION_SCALES = (".input_scale", "activation_scale", ".k_scale", ".v_scale", ".q_scale", ".output_scale")
"""Ends of names of tensors with scales of activations, keys and values."""

_HARMLESS = words("""
    batch_size block_name_to_quantize cache_block_outputs damp_auto_increment damp_percent dataset desc_act
    exllama_config fmt ignore ignored_layers lm_head max_input_length meta model_file_base_name model_name_or_path
    model_seqlen module_name_preceding_first_block modules_in_block_to_quantize modules_to_convert
    modules_to_not_convert mse pad_token_id quantization_status quantizer scale_fmt static_groups tokenizer
    true_sequential use_cuda_fp16 use_exllama disable_exllama version global_compression_ratio
    activation_scale_ub activation_scheme dequantize observer observer_kwargs config_groups
    do_fuse fuse_max_seq_len modules_to_fuse backend hyb_act act_group_aware pack_impl
""")
"""Keys about how a model was quantised or is run. Which modules are quantised is known from their tensors."""


def find_formats(config: Fields) -> tuple[Format, ...]:
    """The formats in which a directory may store matrices; none if nothing is quantised. Raises `Unsupported` for an
    unknown method, number of bits or key, `InvalidFormat` for a value that is not valid."""
    if "quantization" in config:
        return _mlx(_inner(config, "quantization"))
    if "quantization_config" not in config:
        return ()
    fields = _inner(config, "quantization_config")
    if "quant_method" not in fields and "group_size" in fields and "bits" in fields:
        return _mlx(fields)
    method = fields.text("quant_method")
    if method not in _METHODS:
        raise fields.refused("quant_method", _METHODS)
    return _METHODS[method](fields)


def _inner(config: Fields, key: str) -> Fields:
    inner = config.inner(key)
    return Fields(inner.values, inner.where)


def _bits(fields: Fields, key: str, served: Sequence[int]) -> int:
    bits = fields.integer(key)
    if bits not in served:
        raise fields.refused(key, map(str, served))
    return bits


def _group_size(fields: Fields, default: int | None = None) -> int:
    """Columns that share a scale; -1 means all columns."""
    size = fields.integer("group_size", default, low=-1)
    if size == 0:
        raise fields.wrong("group_size", "a number of columns, or -1 for all of them")
    return size


def _gptq(fields: Fields) -> tuple[Format, ...]:
    neutral: Neutral = {"dynamic": ({},), "is_marlin_format": (False,), "pack_dtype": ("int32",), "method": ("gptq",)}
    check_keys(fields, words("quant_method bits group_size sym checkpoint_format format"), neutral, _HARMLESS)
    versions = {"gptq": 1, "gptq_v2": 0}  # how much the stored zero points are too small
    key = "checkpoint_format" if "checkpoint_format" in fields else "format"  # GPTQModel 5 writes both keys
    version = fields.text(key, "gptq")
    if version not in versions:
        raise fields.refused(key, versions)
    return (gptq(_bits(fields, "bits", (4, 8)), _group_size(fields), versions[version], fields.flag("sym", True)),)


def _awq(fields: Fields) -> tuple[Format, ...]:
    neutral: Neutral = {"version": ("gemm", "GEMM"), "zero_point": (True,)}
    check_keys(fields, words("quant_method bits group_size"), neutral, _HARMLESS - neutral.keys())
    _bits(fields, "bits", (4,))
    return (awq(_group_size(fields, 128)),)


def _fp8(fields: Fields) -> tuple[Format, ...]:
    neutral: Neutral = {"expert_dtype": ("fp8",), "kv_cache_quant_method": ()}
    harmless = (_HARMLESS - {"fmt"}) | {"kv_cache_scheme"}
    check_keys(fields, words("quant_method weight_block_size fmt"), neutral, harmless)
    if fields.text("fmt", "e4m3") not in ("e4m3", "float8_e4m3fn"):
        raise fields.refused("fmt", ["e4m3"])
    return (_float8(_block(fields)),)


def _block(fields: Fields) -> tuple[int, int] | None:
    """Rows and columns that share a scale."""
    if "weight_block_size" not in fields:
        return None
    sizes = fields.integers("weight_block_size")
    if len(sizes) != 2 or sizes.min() < 1:
        raise fields.wrong("weight_block_size", "two numbers above 0")
    return int(sizes[0]), int(sizes[1])


def _float8(block: tuple[int, int] | None) -> Format:
    return scaled_elements("FP8", "F8_E4M3", block)


def _fbgemm_fp8(fields: Fields) -> tuple[Format, ...]:
    check_keys(fields, words("quant_method"), {}, _HARMLESS)
    return (_float8(None),)


def _mxfp4(fields: Fields) -> tuple[Format, ...]:
    check_keys(fields, words("quant_method"), {}, _HARMLESS)
    return (MXFP4,)


def _compressed(fields: Fields) -> tuple[Format, ...]:
    """Each group of modules has its own scheme."""
    neutral: Neutral = {"sparsity_config": ({}, {"format": "dense"}), "transform_config": ({},), "kv_cache_scheme": ()}
    check_keys(fields, words("quant_method config_groups format"), neutral, _HARMLESS - {"config_groups"})
    groups = fields.inner("config_groups")
    if not groups.values:
        raise fields.wrong("config_groups", "an object that says how modules are quantised")
    schemes = [groups.inner(name).inner("weights") for name in groups.values]
    formats = [_scheme(scheme, fields) for scheme in schemes]
    if len({form.main + form.types[0] for form in formats}) != len(formats) and len(set(_decisive_fields(schemes))) > 1:
        raise fields.refused("config_groups", ["one way for each type of tensors"])
    return tuple(formats)


def _decisive_fields(schemes: Sequence[Fields]) -> list[str]:
    """The fields of schemes that decide the meaning of tensors."""
    return [repr([scheme.get(key) for key in ("num_bits", "group_size", "block_structure")]) for scheme in schemes]


def _scheme(scheme: Fields, fields: Fields) -> Format:
    neutral: Neutral = {"symmetric": (True,), "dynamic": (False,), "zp_dtype": (), "scale_dtype": ()}
    read_keys = words("num_bits type strategy group_size block_structure actorder")
    check_keys(scheme, read_keys, neutral, _HARMLESS)
    kind, bits = scheme.text("type", "int"), scheme.integer("num_bits", 8)
    form = scheme.text("format", "") or fields.text("format", "")
    if (kind, bits) == ("float", 8) and form in ("float-quantized", "naive-quantized"):
        sizes = scheme.integers("block_structure") if "block_structure" in scheme else None
        block = None if sizes is None or len(sizes) != 2 or sizes.min() < 1 else (int(sizes[0]), int(sizes[1]))
        return _float8(block)
    if kind == "int" and form == "pack-quantized":
        return compressed_int4(_bits(scheme, "num_bits", (4, 8)), _group_size(scheme, -1))
    if (kind, bits) == ("int", 8) and form in ("int-quantized", "naive-quantized"):
        size = _group_size(scheme, -1)
        return scaled_elements("INT8", "I8", None if size == -1 else (1, size))
    served = "float-quantized and int-quantized with 8 bits, pack-quantized with 4 or 8"
    raise Unsupported(f"{scheme.where}: num_bits {bits} in format {quoted(form)} is not supported; supported: {served}")


def _mlx(fields: Fields) -> tuple[Format, ...]:
    """Bits and group size of all modules, and of single modules."""
    mode = fields.text("mode", "affine")
    modules = {key: value for key, value in fields.values.items() if isinstance(value, Mapping)}
    plain = {key for key, value in fields.values.items() if value is False}
    check_keys(fields, words("bits group_size mode") | modules.keys() | plain, {}, _HARMLESS)
    if mode == "mxfp4":
        return (MLX_MXFP4,)
    if mode != "affine":
        raise fields.refused("mode", ["affine", "mxfp4"])
    common = _mlx_settings(fields)
    single = {name: _mlx_settings(Fields(value, f"{fields.where}: {name}")) for name, value in modules.items()}
    return (mlx_affine(lambda module: single.get(module, common)),)


def _mlx_settings(fields: Fields) -> tuple[int, int]:
    return _bits(fields, "bits", (4, 8)), fields.integer("group_size")


_METHODS: dict[str, Callable[[Fields], tuple[Format, ...]]] = {
    "awq": _awq,
    "compressed-tensors": _compressed,
    "fbgemm_fp8": _fbgemm_fp8,
    "fp8": _fp8,
    "gptq": _gptq,
    "mxfp4": _mxfp4,
}
"""The reader of each `quant_method`."""
