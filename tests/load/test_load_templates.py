"""LOAD-51: where chat templates are stored, and under which names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ferrum.errors import InvalidFormat
from ferrum.fields import Fields
from ferrum.load.templates import folder_templates, gguf_templates

JINJA, CONFIG, PROCESSOR = "chat_template.jinja", "tokenizer_config.json", "chat_template.json"
MORE = "additional_chat_templates"


def written(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((content if isinstance(content, str) else json.dumps(content)).encode())
    return folder


@pytest.mark.clause("LOAD-51")
@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, {}),
        ({CONFIG: {}}, {}),
        ({CONFIG: {"chat_template": None}}, {}),
        ({CONFIG: {"chat_template": "a"}}, {"default": "a"}),
        ({CONFIG: {"chat_template": ""}}, {"default": ""}),
        ({CONFIG: {"chat_template": {"default": "a"}}}, {"default": "a"}),
        ({CONFIG: {"chat_template": {"default": "a", "tool_use": "b", "c": None}}}, {"default": "a", "tool_use": "b"}),
        ({CONFIG: {"chat_template": [{"name": "rag", "template": "a"}]}}, {"rag": "a"}),
        (
            {CONFIG: {"chat_template": [{"name": "rag", "template": "a"}, {"name": "tool_use", "template": "b"}]}},
            {"rag": "a", "tool_use": "b"},
        ),
        ({JINJA: "a\r\nb"}, {"default": "a\r\nb"}),  # Jinja reads any line end
        ({JINJA: ""}, {"default": ""}),
        ({JINJA: "a", CONFIG: {"chat_template": "b"}}, {"default": "a"}),
        ({JINJA: "a", CONFIG: {"chat_template": {"tool_use": "b"}}}, {"default": "a"}),
        ({JINJA: "a", f"{MORE}/tool_use.jinja": "b", f"{MORE}/note.txt": "c"}, {"default": "a", "tool_use": "b"}),
        ({f"{MORE}/tool_use.jinja": "b", CONFIG: {"chat_template": "a"}}, {"tool_use": "b"}),
        ({JINJA: "a", f"{MORE}/default.jinja": "b"}, {"default": "b"}),
        ({PROCESSOR: {"chat_template": "a"}}, {"default": "a"}),
        ({PROCESSOR: {"chat_template": "a"}, CONFIG: {"chat_template": "b"}}, {"default": "b"}),
        ({PROCESSOR: {"chat_template": "a"}, JINJA: "c"}, {"default": "c"}),
    ],
)
def test_templates_of_a_directory(tmp_path: Path, files: dict[str, Any], found: dict[str, str]) -> None:
    assert folder_templates(written(tmp_path, files)) == found


@pytest.mark.clause("LOAD-51")
@pytest.mark.parametrize("value", [3, True, [3], ["a"], [{"name": "a"}], [{"template": "a"}], {"default": 3}])
def test_what_is_no_template_is_named(tmp_path: Path, value: Any) -> None:
    for name in (CONFIG, PROCESSOR):
        with pytest.raises(InvalidFormat, match=rf"{name}: (chat_template|name|template)"):
            folder_templates(written(tmp_path, {name: {"chat_template": value}}))
        (tmp_path / name).unlink()


@pytest.mark.clause("LOAD-51")
@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({}, {}),
        ({"chat_template": "a"}, {"default": "a"}),
        (
            {"chat_template": "a", "chat_templates": ["tool_use"], "chat_template.tool_use": "b"},
            {"default": "a", "tool_use": "b"},
        ),
        ({"chat_templates": ["rag"], "chat_template.rag": "a"}, {"rag": "a"}),
    ],
)
def test_templates_of_gguf(values: dict[str, Any], found: dict[str, str]) -> None:
    fields = Fields({f"tokenizer.{key}": value for key, value in values.items()}, "model.gguf", "tokenizer.")
    assert gguf_templates(fields) == found


@pytest.mark.clause("LOAD-51")
@pytest.mark.parametrize("values", [{"chat_templates": ["rag"]}, {"chat_template": 3}, {"chat_templates": "rag"}])
def test_gguf_metadata_that_name_no_template(values: dict[str, Any]) -> None:
    fields = Fields({f"tokenizer.{key}": value for key, value in values.items()}, "model.gguf", "tokenizer.")
    with pytest.raises(InvalidFormat, match=r"model\.gguf: tokenizer\.chat_template"):
        gguf_templates(fields)
