"""The chat templates that come with a model.

Owns: where the two file formats keep them, and under which names. Refuses to know: what they do, and which is chosen
(`ferrum.text`).
Specs: LOAD-51. Source: transformers' chat_template.jinja, additional_chat_templates and tokenizer_config.json; the GGUF
format document. Next: `ferrum.load.token_ids`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ferrum.fields import Fields, read_json
from ferrum.files import read_text

LARGEST_TEMPLATE = 1 << 20
"""Bytes of a file with a chat template. The longest in use have some tens of thousands."""
KEY = "chat_template"
DEFAULT = "default"


def folder_templates(folder: Path) -> dict[str, str]:
    """The templates of a Hugging Face directory by name; empty if there are none. Separate files have priority over the
    key of tokenizer_config.json. chat_template.json, which is written for image processors, is read if there is nothing
    else."""
    return _in_files(folder) or _in_json(folder / "tokenizer_config.json") or _in_json(folder / "chat_template.json")


def _in_files(folder: Path) -> dict[str, str]:
    paths = {path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    if (folder / "chat_template.jinja").exists():
        paths = {DEFAULT: folder / "chat_template.jinja"} | paths
    return {name: read_text(path, LARGEST_TEMPLATE) for name, path in paths.items()}


def _in_json(path: Path) -> dict[str, str]:
    """A text is the default template. There may be an object of several, or a list of objects with a name and a
    template."""
    fields = read_json(path) if path.exists() else Fields({}, str(path))
    templates = fields.get(KEY)
    if isinstance(templates, list):
        entries = [Fields(_entry(fields, template), fields.where) for template in templates]
        return {template.text("name"): template.text("template") for template in entries}
    if isinstance(templates, dict):
        inner = fields.inner(KEY)
        return {name: inner.text(name) for name in templates if name in inner}
    if templates is None or isinstance(templates, str):
        return {} if templates is None else {DEFAULT: templates}
    raise fields.wrong(KEY, "text, or a list or object of named templates")


def _entry(fields: Fields, template: Any) -> dict[str, Any]:
    if not isinstance(template, dict):
        raise fields.wrong(KEY, "text, or a list or object of named templates")
    return template


def gguf_templates(fields: Fields) -> dict[str, str]:
    """The same from GGUF metadata; the keys of `fields` begin with "tokenizer."."""
    names = [str(name) for name in fields.texts("chat_templates")] if "chat_templates" in fields else []
    templates = {name: fields.text(f"{KEY}.{name}") for name in names}
    return ({DEFAULT: fields.text(KEY)} if KEY in fields else {}) | templates
