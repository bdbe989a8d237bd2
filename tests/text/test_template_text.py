"""TEXT-23 to TEXT-25: what a template writes, how deep it computes lazily, and that it always writes the same."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

from ferrum.errors import TokenizerError
from ferrum.text.chat import ChatTemplate

ROOT = Path(__file__).resolve().parents[2]
MESSAGES = [{"role": "user", "content": "Hello"}]


def render(source: str, **variables: Any) -> str:
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>").render(MESSAGES, **variables)


WITHOUT_TEXT = [
    "strftime_now",
    "namespace",
    "range",
    "dict",
    "dict.fromkeys",
    "cycler",
    "cycler(1)",
    "cycler(1).next",
    "joiner(',')",
    "''.format",
    "('a' | safe).format",
    "messages[0].items",
    "messages.index",
    "f",
    "self",
    "loop",
    "loop.cycle",
    "([1] | map('string'))",
    "([1] | reverse)",
    "({} | items)",
]
WRITTEN = [
    "{{ X }}",
    "{{ [1, {'a': X}] }}",
    "{{ {'a': X}.items() }}",
    "{{ namespace(a=[X]) }}",
    "{{ 'a' ~ X }}",
    "{{ '%s' % X }}",
    "{{ '%r' % [X] }}",
    "{{ ('%s' | safe) % X }}",
    "{{ '{}'.format(X) }}",
    "{{ '{!r}'.format([X]) }}",
    "{{ ('{}' | safe).format(X) }}",
    "{{ ('-' | safe).join([X]) }}",
    "{{ [X] | join }}",
    "{{ [1, 2] | join(X) }}",
    "{{ X | string }}",
    "{{ X | e }}",
    "{{ X | upper }}",
    "{{ X | trim }}",
    "{{ [X] | pprint }}",
    "{{ 'abc' | replace('b', X) }}",
    "{{ '%s' | format(X) }}",
    "{{ [X] | map('string') | list }}",
    "{{ [X] | tojson }}",
    "{{ {'a': X} | xmlattr }}",
    "{{ {'a': X} | urlencode }}",
    "{{ raise_exception(X) }}",
    "{% filter upper %}{{ X }}{% endfilter %}",
    "{% set y %}{{ X }}{% endset %}{{ y }}",
    "{% autoescape true %}{{ X }}{% endautoescape %}",
]


@pytest.mark.clause("TEXT-23")
@pytest.mark.parametrize("use", WRITTEN)
def test_what_has_no_text_is_not_written(use: str) -> None:
    for expression in WITHOUT_TEXT:
        body = use.replace("X", expression)
        source = "{% macro f() %}{% endmacro %}{% for i in [1] %}" + body + "{% endfor %}"
        with pytest.raises(TokenizerError, match=r"which has none|is not JSON serializable") as caught:
            render(source)
        assert "0x" not in str(caught.value), expression


@pytest.mark.clause("TEXT-23")
def test_what_has_no_text_can_be_used() -> None:
    assert render("{{ strftime_now is defined }}{{ cycler is callable }}{{ [strftime_now] | length }}") == "TrueTrue1"
    assert (
        render("{% macro f(g) %}{{ g('a') }}{% endmacro %}{% macro h(x) %}<{{ x }}>{% endmacro %}{{ f(h) }}") == "<a>"
    )
    assert (
        render("{% set c = cycler(1, 2) %}{{ c.next() }}{{ c.next() }}{{ nothing | default(c) is defined }}")
        == "12True"
    )
    assert render("{% set j = joiner('-') %}{{ j() }}a{{ j() }}b") == "a-b"
    assert render("{{ {'a': strftime_now}.a is callable }}{{ nothing }}{{ [nothing] }}") == "True[Undefined]"


@pytest.mark.clause("TEXT-23")
@pytest.mark.parametrize("source", ["{{ {}[f].x }}", "{{ [1] | map(f) | list }}", "{{ [1] | select(f) | list }}"])
def test_no_error_shows_an_address(source: str) -> None:
    with pytest.raises(TokenizerError) as caught:
        render(source.replace("f", "strftime_now"))
    assert "0x" not in str(caught.value)


def chain(step: str, use: str, rounds: int = 25_000) -> str:
    start = "{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(" + str(rounds) + ") %}"
    return start + "{% set ns.a = " + step + " %}{% endfor %}" + use


STEPS = [
    "ns.a | map('string')",
    "ns.a | select",
    "ns.a | rejectattr('x')",
    "[ns.a] | map('first')",
    "(ns.a, 1) | reject('none')",
    "{'k': ns.a} | items",
    "{'k': [ns.a]}.values() | map('first')",
    "[1] | map('default', ns.a)",
    "[1] | select('in', ns.a)",
    "[[ns.a] | map('first')] | map('list')",
]
USES = [
    "{{ ns.a | list }}",
    "{{ ''.join(ns.a) }}",
    "{{ dict(ns.a) }}",
    "{% for x in ns.a if x %}{% endfor %}",
    "{% for x in ns.a %}{% endfor %}",
    "{{ ns.a | first }}",
    "",
]


@pytest.mark.clause("TEXT-24")
def test_no_chain_ends_the_process() -> None:
    """At several depths of the stack, in the main thread and in another; what is no lazy chain may render or not."""
    others = ["cycler(ns.a)", "joiner(ns.a)", "[ns.a].index", "cycler(ns.a).next", "[ns.a].foo", "[ns.a] | reverse"]
    others += ["[namespace(x=ns.a)] | map(attribute='x') | map('first')", "namespace(a=ns.a)"]
    sources = [chain(step, use) for step, use in zip(STEPS, itertools.cycle(USES))]
    sources += [chain(step, "{{ ns.a | list }}", 4000) for step in others]
    sources += [
        "{% set ns = namespace(a=[1]) %}{% for i in range(4000) %}{% for x in ns.a | map('string') %}"
        "{% set ns.a = loop %}{% break %}{% endfor %}{% endfor %}{% for x in ns.a %}{% endfor %}",
        "{% macro f(g) %}{% macro h() %}{{ g() }}{% endmacro %}{% set ns.a = h %}{% endmacro %}"
        "{% macro z() %}{% endmacro %}{% set ns = namespace(a=z) %}"
        "{% for i in range(4000) %}{{ f(ns.a) }}{% endfor %}{{ ns.a() }}",
    ]
    program = f"""
import sys, threading
from ferrum.errors import TokenizerError
from ferrum.text.chat import ChatTemplate
def run(source, deeper):
    if deeper:
        return run(source, deeper - 1)
    try:
        ChatTemplate(source, bos_token=None, eos_token=None).render([])
    except TokenizerError:
        pass
def run_all():
    for index, source in enumerate({sources!r}):
        run(source, index % 2)
run_all()
other = threading.Thread(target=run_all)
other.start()
other.join()
print("alive")
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "alive\n", "")


@pytest.mark.clause("TEXT-24")
def test_filters_compute_at_once_and_return_an_iterator() -> None:
    source = "{% set ns = namespace(a=1) %}{% set x = [1] | map('default') %}{% set y = [0] | select %}"
    assert render(source + "{{ x | list }}{{ x | list }}{{ 'true' if y else 'false' }}") == "[1][]true"
    assert render("{{ ([1] | map('string')) is iterable }}{{ ([] | select) is sequence }}") == "TrueFalse"
    with pytest.raises(TokenizerError, match="has no len"):
        render("{{ ['a', 5] | map('length') | first }}")


@pytest.mark.clause("TEXT-25")
@pytest.mark.parametrize("source", ["{{ [1, 2] | random }}", "{{ [[1, 2]] | map('random') | list }}"])
def test_nothing_is_chosen_at_random(source: str) -> None:
    with pytest.raises(TokenizerError, match="a prompt is the same every time"):
        render(source)


@pytest.mark.clause("TEXT-25")
@pytest.mark.parametrize("left", ["{'a': 1}.keys()", "{'a': 1}.items()", "['a']"])
def test_no_set_is_made(left: str) -> None:
    with pytest.raises(TokenizerError, match="it makes a set, whose order differs from run to run"):
        render("{{ " + left + " - {'echo': 1}.keys() }}")
    assert render("{{ 5 - 2 }}") == "3"


@pytest.mark.clause("TEXT-25")
@pytest.mark.parametrize("source", ["{{ none[0:1] }}", "{{ 1[:] }}", "{{ none[0] }}", "{{ 1() }}", "{{ (1, 2)[0:1] }}"])
def test_compiling_warns_of_nothing(source: str) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        ChatTemplate(source, bos_token=None, eos_token=None)
    assert not seen


@pytest.mark.clause("TEXT-24")
def test_a_chain_of_the_greatest_depth_is_freed_in_a_thread() -> None:
    found: list[str] = []
    source = chain("ns.a | map('string')", "{{ ns.a | list }}", 98)
    thread = threading.Thread(target=lambda: found.append(render(source)))
    thread.start()
    thread.join()
    assert found == ["['1']"]
