"""Parts of a tokenizer.json for the tests of those that do harm."""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.text.small_tokenizers import byte_level_json


def changed(**parts: Any) -> str:
    """`byte_level` with other parts; a `model` without a type changes only what it names."""
    described = json.loads(byte_level_json())
    model = parts.get("model", {})
    described |= parts
    described["model"] = model if "type" in model else json.loads(byte_level_json())["model"] | model
    return json.dumps(described)


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(steps)}


def rules(content: bytes) -> dict[str, Any]:
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(content).decode()}


def replace(pattern: str, content: str, kind: str = "String") -> dict[str, Any]:
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def split(expression: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
