"""TEXT-17, TEXT-70, TEXT-71, TEXT-75: conversations of every shape through templates of every style, as
`apply_chat_template` of transformers renders them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from ferrum.errors import FerrumError, InvalidParameter
from ferrum.text.chat import ChatTemplate

FOLDER = Path(__file__).resolve().parents[1] / "goldens"
GOLDENS: dict[str, Any] = json.loads((FOLDER / "chat_template_styles.json").read_text(encoding="utf-8"))
REFUSED = "!"
FAILED = "the chat template failed: "


def rendered(template: ChatTemplate, messages: list[dict[str, Any]], given: dict[str, Any]) -> str:
    try:
        text = template.render(messages, **given)
    except InvalidParameter as error:
        assert error.field == "continue_final_message"
        return REFUSED
    except FerrumError as error:
        return REFUSED + str(error).removeprefix(FAILED)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


@pytest.mark.clause("TEXT-17", "TEXT-70", "TEXT-71", "TEXT-75")
@pytest.mark.parametrize("style", GOLDENS["results"])
def test_conversations_through_templates_of_all_styles(style: str) -> None:
    source = (FOLDER / f"chat_template_styles/{style}.jinja").read_text(encoding="utf-8")
    template = ChatTemplate(source, **GOLDENS["special_tokens"])
    for (name, messages), rows in zip(GOLDENS["conversations"].items(), GOLDENS["results"][style], strict=True):
        before = json.dumps(messages)
        for (given, arguments), expected in zip(GOLDENS["arguments"].items(), rows, strict=True):
            assert rendered(template, messages, arguments) == expected, (name, given)
        assert json.dumps(messages) == before, name
