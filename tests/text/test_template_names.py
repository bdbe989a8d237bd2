"""TEXT-76: which of a model's templates a conversation goes through."""

from __future__ import annotations

import pytest

from ferrum.errors import InvalidParameter, TokenizerError
from ferrum.text.template_names import MOST_COMPILED, ChatTemplates

ALL = {"default": "d", "tool_use": "t", "rag": "r{{ bos_token }}"}


def without(*names: str) -> ChatTemplates:
    return ChatTemplates({name: source for name, source in ALL.items() if name not in names}, bos_token="<s>")


@pytest.mark.clause("TEXT-76")
@pytest.mark.parametrize(
    ("missing", "plain", "with_tools"),
    [
        ((), "d", "t"),
        (("tool_use",), "d", "d"),
        (("rag", "tool_use"), "d", "d"),
        (("rag",), "d", "t"),
        (("default",), None, "t"),
        (("default", "tool_use"), None, None),
    ],
)
def test_the_template_if_none_is_named(missing: tuple[str, ...], plain: str | None, with_tools: str | None) -> None:
    templates = without(*missing)
    for tools, expected in ((False, plain), (True, with_tools)):
        if expected is None:
            with pytest.raises(TokenizerError, match="is called default: name one, "):
                templates.plain(tools)
        else:
            template = templates.plain(tools)
            assert template is not None and template.source == expected


@pytest.mark.clause("TEXT-76")
def test_a_template_is_named() -> None:
    assert [without().named(name).render([]) for name in ALL] == ["d", "t", "r<s>"]


@pytest.mark.clause("TEXT-76")
def test_a_model_without_templates() -> None:
    templates = ChatTemplates({}, bos_token="<s>")
    assert not templates and templates.plain() is None and templates.plain(with_tools=True) is None
    assert templates.named("{{ bos_token }}").render([]) == "<s>"
    with pytest.raises(InvalidParameter, match="it has none, and no Jinja"):
        templates.named("default")


@pytest.mark.clause("TEXT-76")
@pytest.mark.parametrize("name", ["", "tooluse", "template.jinja", "DEFAULT"])
def test_what_is_neither_a_name_nor_a_template(name: str) -> None:
    with pytest.raises(InvalidParameter, match=r"^chat_template .* is no name of the model's, \['default', 'rag', 'to"):
        without().named(name)


@pytest.mark.clause("TEXT-76")
@pytest.mark.parametrize("source", ["{% for %}", "{{", "{{ 1 | nothing }}", "{" * 70_000])
def test_a_malformed_template_of_the_caller_names_the_parameter(source: str) -> None:
    with pytest.raises(InvalidParameter, match=r"^chat_template cannot be used: the chat template is malformed"):
        without().named(source)


@pytest.mark.clause("TEXT-76")
def test_a_template_is_compiled_once_and_few_are_kept() -> None:
    templates = without()
    assert templates.plain() is templates.plain() is templates.named("default")
    first = templates.named("{{ 1 }}")
    for number in range(MOST_COMPILED):
        assert templates.named(f"{{{{ {number} + 5 }}}}").render([]) == str(number + 5)
    assert templates.named("{{ 1 }}") is not first
