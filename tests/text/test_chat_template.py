"""TEXT-17 to TEXT-20: chat templates."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.errors import TokenizerError
from ferrum.text.chat import ChatTemplate

ROOT = Path(__file__).resolve().parents[2]
GOLDENS: dict[str, Any] = json.loads((ROOT / "tests/goldens/chat_templates.json").read_text(encoding="utf-8"))
MESSAGES = [{"role": "user", "content": "Hello"}]


def render(source: str, messages: Any = MESSAGES, **variables: Any) -> str:
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>").render(messages, **variables)


@pytest.mark.clause("TEXT-17")
@pytest.mark.parametrize("case", GOLDENS["cases"], ids=lambda case: case["name"])
def test_renders_as_transformers_does(case: dict[str, str]) -> None:
    variables = dict(GOLDENS["variables"])
    tokens = {name: variables.pop(name) for name in ("bos_token", "eos_token")}
    template = ChatTemplate(case["template"], **tokens)
    assert template.render(GOLDENS["messages"], **variables) == case["text"]


@pytest.mark.clause("TEXT-17")
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_tojson_is_plain_json(value: Any) -> None:
    assert render("{{ value | tojson }}", value=value) == json.dumps(value, ensure_ascii=False)


@pytest.mark.clause("TEXT-17")
def test_tokens_and_defaults() -> None:
    assert render("{{ bos_token }}{{ eos_token }}{{ tools }}{{ add_generation_prompt }}") == "<s></s>NoneTrue"
    bare = ChatTemplate("{{ bos_token is defined }}{{ eos_token is defined }}", bos_token=None, eos_token=None)
    assert bare.render(MESSAGES) == "FalseFalse"
    assert render("{{ bos_token }}", bos_token="<other>") == "<other>"
    assert render("{{ add_generation_prompt }}", add_generation_prompt=False) == "False"
    assert render("{{ strftime_now('%Y') }}") in {str(datetime.now().year), str(datetime.now().year - 1)}


@pytest.mark.clause("TEXT-17")
def test_any_mapping_is_a_message() -> None:
    messages = (MappingProxyType({"role": "user", "content": "a"}), {"role": "user", "content": "b"})
    source = "{% for m in messages + [messages[1]] %}{{ m | tojson }}{% endfor %}"
    assert render(source, messages) == "".join(json.dumps({"role": "user", "content": text}) for text in "abb")


@pytest.mark.clause("TEXT-18")
@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ strftime_now.__globals__['json'] }}",
        "{{ dict.mro() }}",
        "{{ dict.update(messages[0], role='system') }}",
        "{{ dict.update(tools[0].nested, role='system') }}",
        "{{ namespace(__class__=1) }}",
        "{% set ns = namespace() %}{% set ns.__init__ = 1 %}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{{ messages[0].clear() }}",
        "{{ tools[0].pop('name') }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ range(10 ** 9) | list }}",
    ],
)
def test_the_sandbox_holds(source: str) -> None:
    messages, tools = copy.deepcopy(MESSAGES), [{"name": "f", "nested": {}}]
    with pytest.raises(TokenizerError):
        render(source, messages, tools=tools)
    assert (messages, tools) == (MESSAGES, [{"name": "f", "nested": {}}])


@pytest.mark.clause("TEXT-18")
def test_indenting_a_list_does_not_change_it() -> None:
    """Jinja's filter appends to what it is given before it finds out that it is no text."""
    messages: Any = [{"role": "user", "content": ["a"]}]
    with pytest.raises(TokenizerError, match="only text can be indented"):
        render("{{ messages[0].content | indent }}", messages)
    assert messages == [{"role": "user", "content": ["a"]}]


@pytest.mark.clause("TEXT-18")
@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}",
        "{{ messages | attr('__class__') }}",
        "{{ raise_exception.__globals__ }}",
        "{{ '{0.__class__}'.format('') }}",
    ],
)
def test_private_names_are_undefined(source: str) -> None:
    assert render(source) == ""


@pytest.mark.clause("TEXT-19")
@pytest.mark.parametrize("source", ["{% for m in %}", "{{ a", "{% endif %}", "{% nonsense %}", "{{ 1 | nonsense }}"])
def test_a_malformed_template_is_one_line(source: str) -> None:
    with pytest.raises(TokenizerError, match="the chat template is malformed at line 2: ") as caught:
        ChatTemplate("\n" + source, bos_token=None, eos_token=None)
    assert "\n" not in str(caught.value)


@pytest.mark.clause("TEXT-19")
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ raise_exception('roles must\nalternate') }}", "roles must alternate"),
        ("{{ missing.attribute }}", "'missing' is undefined"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages[0].content + 1 }}", "str"),
        ("{{ messages | tojson('x', 'y', 'z', 'a', 'b') }}", "argument"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ raise_exception('x' * 5000) }}", "x…"),
    ],
)
def test_a_failing_template_is_one_line(source: str, reason: str) -> None:
    with pytest.raises(TokenizerError, match="the chat template failed: ") as caught:
        render(source)
    message = str(caught.value)
    assert reason in message and "\n" not in message and len(message) < 400


@pytest.mark.clause("TEXT-20")
def test_jinja_is_imported_with_the_first_template() -> None:
    program = (
        "import sys\nfrom ferrum.text.chat import ChatTemplate\nbefore = 'jinja2' in sys.modules\n"
        "ChatTemplate('', bos_token=None, eos_token=None)\nprint(before, 'jinja2' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ran.stdout.split() == ["False", "True"]
