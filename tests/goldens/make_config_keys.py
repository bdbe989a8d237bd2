"""Makes config_keys.json: every key that transformers and llama.cpp's converter know in the files of a model.

    python tests/goldens/make_config_keys.py

Needs transformers and gguf (extra `oracle`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import gguf
from transformers import GenerationConfig, LlamaConfig, MistralConfig, PreTrainedConfig
from transformers.modeling_rope_utils import RopeParameters

OUT = Path(__file__).parent / "config_keys.json"


def gguf_keys(group: type = gguf.Keys) -> Iterator[str]:
    """All names of gguf-py's constants; {arch} stands for the architecture."""
    for name, value in vars(group).items():
        if isinstance(value, type) and not name.startswith("_"):
            yield from gguf_keys(value)
        elif isinstance(value, str) and not name.startswith("_"):
            yield value


def main() -> None:
    classes = (PreTrainedConfig, LlamaConfig, MistralConfig)
    config = {field.name for kind in classes for field in dataclasses.fields(kind)}
    config |= {key for kind in classes for key in kind().to_dict()} | set(PreTrainedConfig.__annotations__)
    config -= {"sub_configs_defaults", "attribute_map", "base_config_key", "extra_files", "extra_config_files"}
    keys = {
        "config": sorted(config),
        "generation": sorted(vars(GenerationConfig())),
        "rope": sorted(RopeParameters.__annotations__),
        "gguf": sorted(set(gguf_keys())),
    }
    OUT.write_text(json.dumps(keys, indent=0) + "\n")


if __name__ == "__main__":
    main()
