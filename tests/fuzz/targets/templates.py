"""Chat templates: compiled and rendered.

Owns: pieces of Jinja that reach for Python, for all of the memory or for all of the time. Refuses to know: tokenizers.
Next: `tests.fuzz.targets.prefixes`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from ferrum.text.chat import ChatTemplate
from tests.fuzz.mutate import STRANGE, mutate_text, mutate_value
from tests.fuzz.target import Target, Wrong

GOLDENS = Path(__file__).resolve().parents[2] / "goldens" / "chat_templates.json"
ADDRESS = re.compile(r"(?: at |\()0x[0-9a-f]{6,}")
HOSTILE = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ messages|attr('__class__') }}", "{{ ''|attr('format')(messages) }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
    "{{ ['{0.__class__}']|map('format', messages)|list }}", "{{ '%s'|format(strftime_now) }}", "{{ self.__init__ }}",
    "{{ self._TemplateReference__context }}", "{{ namespace.__init__.__globals__ }}", "{{ lipsum.__globals__ }}",
    "{{ joiner }}", "{{ cycler(1) }}", "{{ ''.format }}", "{{ messages.append }}", "{% import 'os' as os %}",
    "{% include '/etc/passwd' %}", "{% extends 'x' %}", "{{ none[0] }}", "{{ 1 / 0 }}", "{{ 10 ** 10 ** 8 }}",
    "{{ 2 ** 2 ** 2 ** 2 ** 9 }}", "{{ 'a' * 10 ** 10 }}", "{{ [0] * 10 ** 9 }}", "{{ range(10 ** 9)|list }}",
    "{{ range(10 ** 5)|join }}", "{{ '%0999999999d' % 1 }}", "{{ '{:999999999}'.format(1) }}",
    "{{ 'a'.rjust(10 ** 10) }}", "{{ 'a'|center(10 ** 10) }}", "{{ 'a'.ljust(10 ** 9)|length }}",
    "{{ 'aaaa'.replace('', 'b' * 10 ** 5) }}", "{{ ('a' * 10**6)|wordwrap(1) }}",
    "{% for a in range(10 ** 5) %}{% for b in range(10 ** 5) %}{% endfor %}{% endfor %}",
    "{% for x in range(99999) %}{{ x }}{% endfor %}",
    "{% set ns = namespace(a=[1]) %}{% for i in range(25000) %}{% set ns.a = ns.a|map('string') %}"
    "{% endfor %}{{ ns.a|list }}",
    "{% set ns = namespace(a=[1]) %}{% for i in range(25000) %}{% set ns.a = ns.a|select %}"
    "{% endfor %}{{ ''.join(ns.a) }}",
    "{% set ns = namespace(a=[]) %}{% for i in range(50000) %}{% set ns.a = [ns.a] %}{% endfor %}{{ ns.a }}",
    "{% set ns = namespace(a='a') %}{% for i in range(50) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}{{ ns.a|length }}",
    "{% set ns = namespace(a={}) %}{% for i in range(9999) %}{% set ns.a = dict(a=ns.a) %}"
    "{% endfor %}{{ ns.a == ns.a }}{{ ns.a|tojson }}",
    "{% set ns = namespace(a=[1]) %}{% for i in range(30) %}{% set ns.a = ns.a + ns.a %}{% endfor %}{{ ns.a|sum }}",
    "{{ messages|tojson(indent=10**9) }}", "{% macro f(x) %}{{ f(x + 1) }}{% endmacro %}{{ f(0) }}",
    "{% for x in messages recursive %}{{ loop(messages) }}{% endfor %}", "{% set x %}{% endset %}{{ x|safe }}",
    "{% call(x) f() %}{% endcall %}", "{% filter upper %}a{% endfilter %}",
    "{{ messages|sort(attribute='x.y.z')|groupby('role')|list }}", "{{ messages|map(attribute='__class__')|list }}",
    "{{ [messages]|sum(start=[]) }}", "{{ dict(messages) }}", "{{ messages[0].__setitem__('a', 1) }}",
    "{{ messages[0].update(a=1) }}", "{{ messages[0].pop('role') }}", "{{ messages.clear() }}",
    "{{ raise_exception(messages) }}", "{{ raise_exception('\x1b[2J' * 1000) }}", "{{ strftime_now('%' * 1000) }}",
    "{{ strftime_now('%9999999d') }}", "{{ strftime_now('%s\ud800') }}", "{{ undefined.a.b }}",
    "{{ " + "(" * 500 + "1" + ")" * 500 + " }}", "{{ " + "not " * 2000 + "1 }}", "{{ " + "-" * 3000 + "1 }}",
    "{{ 1" + " + 1" * 3000 + " }}", "{% if 1 %}" * 200 + "{% endif %}" * 200,
    "{% for x in y %}" * 30 + "{% endfor %}" * 30, "{{ 'a'|" + "upper|" * 2000 + "upper }}",
    "{{ [" * 300 + "]" * 300 + " }}", "{{ '" + "\\u0000" * 1000 + "' }}", "{{ 1e999 }}", "{{ 1e999|int }}",
    "{{ '1' * 5000 }}{{ ('1' * 5000)|int }}", "{{ 10 ** 5000 }}", "{{ (10 ** 4000)|string|length }}", "{% raw %}",
    "{#", "{{ x.y('", "{% break %}", "{% continue %}", "{% generation %}{% endgeneration %}",
    "{{ messages|map('tojson')|list }}", "{{ messages|batch(10**9, 1)|list }}", "{{ messages|slice(10**8)|list }}",
    "{{ messages|xmlattr }}", "{{ 'a b'|urlize }}", "{{ '<a>'|striptags|escape }}", "{{ messages|pprint }}",
    "{{ ('(' * 50000)|urlize }}", "{{ ('<' * 99999)|striptags }}", "{{ messages|random }}",
    "{{ lipsum(999, min=999) }}", "{{ 'a'.encode() }}", "{{ 'a'.translate({97: 'b' * 10**6}) }}",
    "{{ 'a'.join('b' * 10**6) }}", "{{ ('a' * 10**6).split('') }}",
]  # fmt: skip
"""From reports of sandboxes that leaked and renderings without end; each is put into good templates too."""
PIECES = [
    "{{", "}}", "{%", "%}", "{%-", "-%}", "{#", "#}", "messages", "[0]", "['role']", ".content", "|", "|tojson",
    "|trim", "|list", "|map('string')", "|join", "|sort", "|reverse", "loop.index0", " for m in messages ",
    "{% for m in messages %}", "{% endfor %}", "{% if ", "{% endif %}", "{% else %}", "{% set x = ", "namespace(",
    "range(9999)", "add_generation_prompt", "~", " + ", " * ", "**", "not ", " in ", " is defined",
    "raise_exception('no')", "strftime_now('%Y')", "tools", "none", "true", "'a'", "1", "99999999", "(", ")", "[", "]",
    "{", "}", ",", ":", "{% macro f(a) %}", "{% endmacro %}", "f(1)", ".items()", ".split('a')", ".strip()", "[::-1]",
    "__class__", "dict(",
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A template, and the variables it is rendered with."""

    source: str
    messages: list[Any]
    extra: dict[str, Any]


class Templates(Target):
    """Templates of known models and hostile ones, cut and put together."""

    @cached_property
    def goldens(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(GOLDENS.read_text())
        return found

    @cached_property
    def sources(self) -> list[str]:
        return [case["template"] for case in self.goldens["cases"]]

    def make(self, random: Random) -> Case:
        kind, good, bad = random.randrange(4), random.choice(self.sources), random.choice(HOSTILE)
        source = mutate_text(random, good, PIECES)
        if kind == 0:
            source = bad
        elif kind == 1:
            source = mutate_text(random, bad, PIECES)
        elif kind == 2:
            place = random.choice([found.start() for found in re.finditer("{", good)] or [0])
            source = mutate_text(random, good[:place] + bad + good[place:], [*PIECES, *HOSTILE])
        messages = json.loads(json.dumps(self.goldens["messages"]))
        extra = {}
        if random.random() < 0.3:
            changed = mutate_value(random, messages)
            messages = [m for m in changed if isinstance(m, dict)] if isinstance(changed, list) else []
            extra = {random.choice(["tools", "documents", "x", "enable_thinking"]): random.choice(STRANGE)}
            extra = {} if not isinstance(extra.get("tools", []), list) else extra
            extra = {} if not all(isinstance(tool, dict) for tool in extra.get("tools", [])) else extra
        return Case(source, messages, extra)

    def run(self, case: Case) -> None:
        before = repr(case.messages)
        template = ChatTemplate(case.source, bos_token="<s>", eos_token="</s>")
        text = template.render(case.messages, **case.extra)
        if not isinstance(text, str):
            raise Wrong(f"a rendering is a {type(text).__name__}")
        if ADDRESS.search(text) and not ADDRESS.search(case.source + before):
            raise Wrong(f"an address of the process is in the prompt: {ADDRESS.search(text)}")
        if repr(case.messages) != before:
            raise Wrong("rendering has changed the messages")

    def show(self, case: Case) -> str:
        return f"{case.source[:2000]!r}, messages {repr(case.messages)[:300]}, extra {repr(case.extra)[:100]}"
