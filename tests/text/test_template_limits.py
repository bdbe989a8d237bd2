"""TEXT-21 and TEXT-22: what a hostile chat template may use."""

from __future__ import annotations

import copy
import itertools
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ferrum.errors import TokenizerError
from ferrum.text import template_environment, template_limits, template_sandbox
from ferrum.text.chat import ChatTemplate
from ferrum.text.template_checks import WIDEST
from ferrum.text.template_data import ELEMENT
from ferrum.text.template_limits import Limits

MESSAGES = [{"role": "user", "content": "Hello, a b"}, {"role": "assistant", "content": " x\ny "}]
SMALL = Limits(size=20_000, written=40_000, held=400_000)
TIME = "it takes more than"
SPACE = r"it (makes|holds values|writes|computes|nests|calls a slow|collects|adds up|has|turns)|is unsafe"


def render(source: str, **variables: Any) -> str:
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>").render(MESSAGES, **variables)


def loops(body: str, count: str = "60") -> str:
    start = "{% set ns = namespace(s='x' * 1000, l=[1], m=[1], i=3) %}"
    return start + "{% for i in range(" + count + ") %}" + body + "{% endfor %}"


def doubled(expression: str, use: str) -> str:
    return loops("{% set ns.l = " + expression + " %}") + use


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets a clock that moves by two seconds at each reading."""
    monkeypatch.setattr(template_limits, "clock", itertools.count(step=2).__next__)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets small limits, and a clock that stands still, so that a template is refused only for a size."""
    monkeypatch.setattr(template_limits, "clock", lambda: 0.0)
    monkeypatch.setattr(template_limits, "LIMITS", SMALL)


ENDLESS = [
    "{% for a in range(10 ** 5) %}" * 4 + "{% endfor %}" * 4,
    "{% for a in range(10 ** 5) if false %}{% endfor %}",
    "{% for a in range(10 ** 5) if a.real.real < 0 %}{% endfor %}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% macro f(n) %}{{ caller() }}{% if n %}{% call f(n - 1) %}x{% endcall %}{% call f(n - 1) %}x{% endcall %}"
    "{% endif %}{% endmacro %}{% call f(60) %}x{% endcall %}",
    "{% for x in [1, 2] recursive %}{% if loop.depth < 60 %}{{ loop([1, 2]) }}{% endif %}{% endfor %}",
    loops("{% set x = range(10 ** 5) | list %}", "10 ** 5"),
    loops("{% set x = range(10 ** 5) | first %}", "10 ** 5"),
    loops("{% set x = cycler(1, 2).next() %}", "10 ** 5"),
    loops("{% if messages == messages %}{% endif %}", "10 ** 5"),
    loops("{% set x = messages[1:] %}", "10 ** 5"),
    "{{ range(10 ** 5) " + "| select " * 60 + "| list }}",
    "{{ range(10 ** 5) | batch(1) | batch(1) | list }}",
    "{{ range(10 ** 5) | map('string') | map('upper') | join }}",
    "{{ ([1] * 9) | map(attribute='" + ".".join(["real"] * 9_000) + "') | list }}",
    doubled("namespace(a=ns.l, b=ns.l)", "{{ ns.l }}"),
]


@pytest.mark.clause("TEXT-21")
@pytest.mark.parametrize("source", ENDLESS, ids=range(len(ENDLESS)))
def test_a_template_without_end_is_refused(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate(source, bos_token=None, eos_token=None)
    impatient(monkeypatch)
    with pytest.raises(TokenizerError, match=f"the chat template failed: {TIME}"):
        template.render(MESSAGES)


@pytest.mark.clause("TEXT-21")
def test_an_endless_loop_ends_by_the_real_clock() -> None:
    with pytest.raises(TokenizerError, match=TIME):
        render(ENDLESS[0])


@pytest.mark.clause("TEXT-21")
@pytest.mark.parametrize(
    "source",
    [
        "{{ a }}" * 20_000,
        "{% set a = 1 %}" * 10_000,
        "{{ a" + " + a" * 50_000 + " }}",
        "{{ a" + ".b" * 50_000 + " }}",
        "{{ " + "(" * 10_000,
        "{{ " + "[" * 50_000 + "]" * 50_000 + " }}",
        "{{ " + "not " * 50_000 + "a }}",
        "{% for a in b %}" * 5000,
        "{% if a %}" + "{% elif b %}" * 20_000 + "{% endif %}",
        "{{ a " + "| upper" * 30_000 + " }}",
    ],
    ids=lambda source: source[:12],
)
def test_a_source_that_takes_long_to_compile_is_refused(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)
    monkeypatch.setattr(template_sandbox, "SOURCE", 1 << 20)
    with pytest.raises(
        TokenizerError, match=r"the chat template is malformed: (it has more than 8192 parts|maximum recursion)"
    ):
        ChatTemplate(source, bos_token=None, eos_token=None)


@pytest.mark.clause("TEXT-21")
@pytest.mark.parametrize("constant", ["10 ** (10 ** 10)", "'a' * 10 ** 10", "'a' | center(1000000000)"])
def test_constants_are_not_computed_before_they_are_needed(constant: str) -> None:
    assert render("{% if false %}{{ " + constant + " }}{% endif %}") == ""
    with pytest.raises(TokenizerError, match=SPACE):
        render("{{ " + constant + " }}")
    with pytest.raises(TokenizerError, match=SPACE):
        render("{% autoescape " + constant + " %}{{ " + constant + " }}{% endautoescape %}")


LARGE = [
    # operators
    loops("{% set ns.s = ns.s ~ ns.s %}"),
    loops("{% set ns.s = ns.s + ns.s %}"),
    "{% set s = 'x' * 20000 %}{{ s" + " ~ s" * 200 + " }}",
    loops("{% set ns.i = ns.i * ns.i %}"),
    loops("{% set ns.i = ns.i ** 9 %}"),
    "{{ 'a' * 10 ** 10 }}",
    "{{ 10 ** 10 * [1] }}",
    "{{ 'a'.encode() * 10 ** 9 }}",
    "{{ 2 ** (10 ** 9) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (10 ** 9, 1) }}",
    "{{ '%*d'.encode() % (10 ** 9, 1) }}",
    "{{ '%1000000000d'.encode() % 1 }}",
    "{{ '%.1000000000f' % 1.5 }}",
    "{{ '%000001000000000d' % 1 }}",
    "{{ ('%(a)s' * 1000) % {'a': 'x' * 10000} }}",
    # methods
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ '{:{}}'.format(1, 10 ** 9) }}",
    "{{ '{:{}{}}'.format(1, '>1000', 1000000) }}",
    "{{ '{0[}]:>{1}}'.format({'}': 1}, 10 ** 9) }}",
    "{{ '{:>\u0661\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660}'.format(1) }}",
    "{{ '{:>000001000000000}'.format(1) }}",
    "{{ ('{0}' * 1000).format('x' * 10000) }}",
    "{{ '{a:>1000000000}'.format_map({'a': 1}) }}",
    "{{ ('{:>1000000000}' | safe).format(1) }}",
    "{{ 'x'.ljust(10 ** 9) }}",
    "{{ 'x'.rjust(10 ** 9) }}",
    "{{ 'x'.zfill(10 ** 9) }}",
    "{{ ('x' | attr('center'))(10 ** 9) }}",
    "{{ 'x'.encode().ljust(10 ** 9) }}",
    "{{ '\t\t'.expandtabs(10 ** 9) }}",
    "{{ '\t\t'.expandtabs(tabsize=10 ** 9) }}",
    "{{ (1).to_bytes(10 ** 9, 'big') }}",
    "{{ ('a' * 10000).replace('a', 'b' * 10000) }}",
    "{{ ('a' * 10000).replace('', 'b' * 10000) }}",
    "{{ ('a' * 10000).join('b' * 10000) }}",
    "{{ ('a' * 10000).join(range(500) | map('string')) }}",
    "{{ ('a' * 10000).translate({97: 'b' * 10000}) }}",
    "{{ ('a b ' * 5000).split() }}",
    "{{ ''.join('a' * 20000) }}",
    "{{ dict.fromkeys('a' * 20000) }}",
    "{{ dict('a' * 20000) }}",
    # filters
    "{{ 'x' | center(10 ** 9) }}",
    "{{ 'x\ny' | indent(10 ** 9) }}",
    "{{ ('\n' * 10000) | indent('x' * 10000, true, true) }}",
    "{{ ('a' * 10000) | replace('a', 'b' * 10000) }}",
    "{{ ('b' * 10000) | join('a' * 10000) }}",
    "{{ range(500) | join('a' * 10000) }}",
    "{{ range(500) | map('string') | join('a' * 10000) }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ [1] | batch(10 ** 9, 'x') | list }}",
    "{{ [1] | slice(10 ** 9) | list }}",
    "{{ 5 | round(10 ** 9) }}",
    "{{ 5 | round(10 ** 9, 'ceil') }}",
    "{{ 5 | round(-10 ** 9) }}",
    "{{ ('f' * 10000) | int(base=16) }}",
    "{{ [1, [2]] | tojson(indent=10 ** 9) }}",
    "{{ ([1] * 500) | tojson(separators=('a' * 10000, 'b')) }}",
    "{{ range(10 ** 5) | list }}",
    "{{ ('x' * 20000) | list }}",
    "{{ ('x' * 20000) | sort }}",
    "{{ ('x' * 20000) | max(attribute='y') }}",
    "{{ ('x' * 20000) | join }}",
    "{{ ('x' * 20000) | batch(2) | first }}",
    "{{ ('x' * 20000) | slice(2) | first }}",
    "{{ cycler(*('x' * 20000)) }}",
    "{{ 1 | default(*('x' * 20000)) }}",
    "{{ 1 is divisibleby(*('x' * 20000)) }}",
    "{% macro f() %}{{ varargs | length }}{% endmacro %}{{ f(*('x' * 20000)) }}",
    "{{ range(10 ** 5) | groupby('real') }}",
    "{{ range(10 ** 5) | sort }}",
    "{{ range(10 ** 5) | batch(1) | sum(start=[]) }}",
    "{{ range(10 ** 4) | unique | list }}",
    "{{ dict.fromkeys(range(10 ** 4)) }}",
    "{{ ('a ' * 9000) | wordwrap(1) }}",
    "{{ ('a' * 2000) | wordwrap(1, wrapstring='x' * 14000) }}",
    "{{ ('<' * 19000) | e }}",
    "{{ range(10 ** 5) | map('string') | map('center', 20000) | list }}",
    # containers in themselves
    doubled("[ns.l, ns.l]", "{{ ns.l }}"),
    doubled("[ns.l, ns.l]", "{{ ns.l | tojson }}"),
    doubled("(ns.l, ns.l)", "{{ {ns.l: 1} }}"),
    doubled("{'a': ns.l, 'b': ns.l}", "{{ ns.l }}"),
    doubled("dict(a=ns.l, b=ns.l)", "{{ ns.l }}"),
    doubled("cycler(ns.l, ns.l).items", "{{ ns.l }}"),
    doubled("{'a': ns.l, 'b': ns.l}.items() | list", "{{ ns.l }}"),
    doubled("[ns.l, ns.l] | batch(2) | list", "{{ ns.l }}"),
    doubled("[ns.l] * 2", "{{ ns.l }}"),
    doubled("ns.l + ns.l", "{{ ns.l }}"),
    loops("{% set ns.l = [ns.l, ns.l] %}{% set ns.m = [ns.m, ns.m] %}") + "{{ ns.l == ns.m }}",
    loops("{% set ns.l = [ns.l] %}", "1000") + "{{ ns.l }}",
    loops("{% set ns.l = ([0] * 50, ns.l) %}", "1000") + "{{ ns.l }}",
    "{% set n = namespace() %}{% set n.a = [n] * 500 %}{% set n.b = 'x' * 9000 %}{{ n.a }}",
    *(doubled("namespace(a=[ns.l, ns.l])", "{{ ns.l | " + use + " }}") for use in ("string", "upper", "pprint")),
    doubled("namespace(a=[ns.l, ns.l])", "{{ 'a' | replace('a', ns.l) }}"),
    doubled("namespace(a=[ns.l, ns.l])", "{{ ns.l is lower }}"),
    loops("{% set ns.l = {'a': [ns.l, ns.l]} %}") + "{{ ns.l.keys().mapping.x }}",
    # text, and many values at one time
    "{% for a in range(10 ** 5) %}" + "x" * 10_000 + "{% endfor %}",
    "{% for a in range(10 ** 5) %}{{ 'x' * 10000 }}{% endfor %}",
    "{% set x %}{% for a in range(10 ** 5) %}" + "x" * 10_000 + "{% endfor %}{% endset %}",
    "{% filter upper %}{% for a in range(10 ** 5) %}" + "x" * 10_000 + "{% endfor %}{% endfilter %}",
    "{% macro f() %}{{ 'x' * 10000 }}{{ f() }}{% endmacro %}{{ f() }}",
    "{% for a in range(10 ** 5) %}{{ loop.cycle('x' * 10000, 'y') }}{% endfor %}",
    "".join("{% set a" + str(i) + " = 'x' * 19000 %}" for i in range(100)),
    "".join("{% set a" + str(i) + " = ('x' * 19000)[1:] %}" for i in range(100)),
]


@pytest.mark.clause("TEXT-22")
@pytest.mark.parametrize("source", LARGE, ids=range(len(LARGE)))
def test_a_template_that_grows_is_refused_with_little_memory(source: str, small: None) -> None:
    template = ChatTemplate(source, bos_token=None, eos_token=None)
    tracemalloc.start()
    try:
        with pytest.raises(TokenizerError, match=f"the chat template failed: .*({SPACE})"):
            template.render(MESSAGES)
        assert tracemalloc.get_traced_memory()[1] < 16_000_000  # lists of 100 000 numbers, which the sandbox allows
    finally:
        tracemalloc.stop()


@pytest.mark.clause("TEXT-22")
def test_sources_and_what_they_compile_to_are_limited(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_sandbox, "SOURCE", 1000)
    assert render("x" * 1000) == "x" * 1000
    with pytest.raises(TokenizerError, match="it has more than 1000 characters"):
        render("x" * 1001)
    monkeypatch.setattr(template_sandbox, "NODES", 100)
    with pytest.raises(TokenizerError, match="it has more than 100 parts"):
        render("{{ a }}" * 100)


@pytest.mark.clause("TEXT-21")
@pytest.mark.parametrize(
    "call",
    ["rfind(b)", "rindex(b)", "rpartition(b)", "rsplit(b)", "rsplit(sep=b)", "strip(c)", "lstrip(c)", "rstrip(c)"],
)
def test_a_search_in_square_time_is_refused(call: str) -> None:
    """Searches from the front take linear time for long parts; the texts are small enough to fail in seconds."""
    start = "{% set a = 'a' * 200000 %}{% set b = 'ab' ~ 'a' * 50000 %}{% set c = 'b' * 50000 ~ 'a' %}"
    for use in [f"a.{call}", "a | trim(c)", "a | trim(chars=c)"]:
        with pytest.raises(TokenizerError, match="it compares more than"):
            render(start + "{{ (" + use + ") | length }}")
    assert render("{% set b, c = '</a>', ' a' %}{{ ('x</a>' * 99999)." + call + " is defined }}") == "True"


@pytest.mark.clause("TEXT-22")
def test_the_error_about_a_missing_key_does_not_write_a_namespace_out() -> None:
    with pytest.raises(TokenizerError, match="has no element <namespace>"):
        render(doubled("namespace(a=[ns.l, ns.l])", "{{ {}[ns.l].x }}"))


@pytest.mark.clause("TEXT-22")
@pytest.mark.parametrize(
    "source",
    ["{{ lipsum(n=10 ** 8) }}", "{{ strftime_now('%c' * 10000) }}", "{{ raise_exception('x ' * 1000000) }}"],
)
def test_functions_are_limited(source: str) -> None:
    with pytest.raises(TokenizerError) as caught:
        render(source)
    assert len(str(caught.value)) < 400


@pytest.mark.clause("TEXT-22")
@pytest.mark.parametrize(
    ("source", "most"),
    [
        ("{{ ('x' * n) | length }}", SMALL.size),
        ("{{ ('x' * (n - 100) ~ 'y' * 100) | length }}", SMALL.size),
        ("{{ 'x'.ljust(n) | length }}", WIDEST),
        ("{{ 'x' | center(n) | length }}", WIDEST),
        ("{{ '{:>100}'.format('x' * n) | length }}", SMALL.size - 107),
        ("{{ ['x' * n, 1] | string | length }}", SMALL.size - 4 * ELEMENT),
        ("{{ ([1] * n) | length }}", SMALL.size // ELEMENT),
        ("{{ 2 ** n > 0 }}", SMALL.bits // 2),
        (
            "{% set ns = namespace(l=1) %}{% for i in range(n) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
            SMALL.depth,
        ),
        ("{% for i in range(n) %}x{% endfor %}", SMALL.written),
        ("{% for i in range(n) %}{{ 'x' }}{% endfor %}", SMALL.written),
        ("{% macro f() %}{% for i in range(n) %}x{% endfor %}{% endmacro %}{% set x = f() %}", SMALL.written),
    ],
)
def test_limits_are_where_they_are_said_to_be(source: str, most: int, small: None) -> None:
    render(source, n=most)
    with pytest.raises(TokenizerError, match=SPACE):
        render(source, n=most + max(1, most // 100))


@pytest.mark.clause("TEXT-22")
def test_garbage_does_not_count(small: None) -> None:
    source = "{% set ns = namespace(s='') %}{% for i in range(1000) %}{% set ns.s = 'x' * 15000 ~ i %}{% endfor %}ok"
    assert render(source) == "ok"


@pytest.mark.clause("TEXT-22")
def test_memory_errors_are_one_sentence_and_interrupts_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: BaseException) -> None:
        def function(_: str) -> str:
            raise error

        monkeypatch.setattr(template_environment, "_strftime_now", function)
        render("{{ strftime_now('') }}")

    for error in (MemoryError(), RecursionError()):
        with pytest.raises(TokenizerError, match=f"the chat template failed: {type(error).__name__}"):
            fail(error)
    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt())


@pytest.mark.clause("TEXT-22")
def test_every_rendering_has_a_budget_of_its_own(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "{% for i in range(n) %}x{% endfor %}"
    monkeypatch.setattr(template_environment, "_strftime_now", lambda _: str(len(render(text, n=SMALL.written))))
    assert render("{{ strftime_now('') }}" + text, n=SMALL.written - 5) == f"{SMALL.written}{'x' * (SMALL.written - 5)}"


LEAVES = [
    "m.content",
    "m['role']",
    "loop.index",
    "'a b'",
    "3",
    "2.5",
    "none",
    "true",
    "messages",
    "m",
    "nothing",
    "ns.a",
]
SHAPES = [
    "({} ~ {})",
    "({} + {})",
    "({} * {})",
    "({} - {})",
    "({} % {})",
    "({} == {})",
    "({} in {})",
    "({} if {} else 'no')",
    "[{}, {}]",
    "({}, {})",
    "{{'k': {}, 'l': {}}}",
    "({} | string + {} | string)",
    "('%s-%5s' % ({}, {}))",
    "('{{:>4}} {{}}'.format({} | string, {}))",
    "([{}, {}] | join(', '))",
    "([{}, {}] | tojson(indent=2))",
    "([{}, {}] | tojson(false, none, none, true))",
    "([{}, {}] | reverse | join('-'))",
    "('-'.join([{}, {}] | map('string') | reverse))",
    "({} | replace('a', {}))",
    "({} | default({}, true))",
    "({}.split({}))",
    "({} ~ {})[loop.index:]",
    "show({}, {})",
    "dict(a={}, b={})",
    "({} | indent({}))",
    "({} | string | center({}))",
    "([{}, {}] | map('string') | list)",
    "([{}, {}] | select | list | length)",
    "([{}, {}] | batch(1) | list)",
    "({} | list | sort | unique | list, {})",
    "(messages | groupby('role') | map('first') | list, {}, {})",
    "({} | tojson | e, {})",
    "({} is mapping, {} is in 'ab')",
]


def expressions() -> st.SearchStrategy[str]:
    """Draws nested expressions of Jinja."""

    def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.tuples(st.sampled_from(SHAPES), inner, inner).map(lambda parts: parts[0].format(*parts[1:]))

    return st.recursive(st.sampled_from(LEAVES), grown, max_leaves=6)


@pytest.mark.clause("TEXT-21")
@pytest.mark.clause("TEXT-22")
@given(
    st.lists(st.tuples(expressions(), st.text("ab \n<", max_size=4)), max_size=4),
    st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "tool"]), "content": st.text(max_size=20)})),
)
def test_harmless_templates_render_as_without_limits(parts: list[tuple[str, str]], messages: list[Any]) -> None:
    body = "".join("{{ " + expression + " }}" + text for expression, text in parts)
    source = (
        "{% macro show(a, b) %}{{ a }}/{{ b }}{% endmacro %}{% set ns = namespace(a=1) %}"
        "{% for m in messages if m.content %}" + body + "{% else %}none{% endfor %}"
    )
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    plain.filters["tojson"] = template_environment._tojson
    plain.globals.update(namespace=template_environment.PublicNamespace)
    try:
        with template_limits.limited():  # the namespace asks for a budget
            expected = plain.from_string(source).render(messages=copy.deepcopy(messages))
    except Exception:
        expected = None
    try:
        rendered = ChatTemplate(source, bos_token=None, eos_token=None).render(messages)
    except TokenizerError as error:
        assert expected is None, error
        rendered = None
    assert rendered == expected
