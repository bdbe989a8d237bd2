"""The configuration of a directory, without its tensors."""

from __future__ import annotations

from pathlib import Path

from ferrum.load.config_json import config_fields, describe, generation_fields
from ferrum.load.layout import Description
from ferrum.load.token_ids import json_token_ids


def read_config_json(folder: Path) -> Description:
    """config.json, and the ids of generation_config.json beside it."""
    fields = config_fields(folder)
    return describe(fields, json_token_ids([fields, generation_fields(folder)]))
