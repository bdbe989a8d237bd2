"""The chat template that comes with a model.

Owns: where the two file formats keep it, and which of several is meant. Refuses to know: what it does (`ferrum.text`).
Specs: LOAD-51. Source: transformers' chat_template.jinja and tokenizer_config.json. Next: `ferrum.load.token_ids`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ferrum.errors import TokenizerError, quoted
from ferrum.fields import Fields, read_json
from ferrum.files import read_text

LARGEST_TEMPLATE = 1 << 20
"""Bytes of a file with a chat template; the longest in use have some tens of thousands."""


def folder_template(folder: Path) -> str | None:
    """The template of a Hugging Face directory, None where there is none. The file chat_template.jinja goes before the
    key of tokenizer_config.json; of several named templates it is the one called default."""
    path = folder / "chat_template.jinja"
    if path.exists():
        return read_text(path, LARGEST_TEMPLATE)
    path = folder / "tokenizer_config.json"
    fields = read_json(path) if path.exists() else Fields({}, str(path))
    templates = fields.get("chat_template")
    if not isinstance(templates, list):
        return fields.text("chat_template") if "chat_template" in fields else None
    named = {Fields(_entry(fields, t), fields.where).text("name"): t for t in templates}
    if "default" not in named:
        raise TokenizerError(f"{fields.where}: none of its chat templates is called default: {quoted(list(named))}")
    return Fields(named["default"], fields.where).text("template")


def _entry(fields: Fields, template: Any) -> dict[str, Any]:
    if not isinstance(template, dict):
        raise fields.wrong("chat_template", "text or a list of named templates")
    return template
