"""SAMPLE-35 and SAMPLE-29: structures that would use too much time or memory or crash, and harmless ones like them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.errors import InvalidParameter, ModelError, ResourceExhausted
from ferrum.sample.grammars import grammar, grammar_library, grammar_trial
from ferrum.sampling_params import StructuredOutputs
from ferrum.text.byte_tokenizer import EOS
from tests.sample.following import MAKER, bytes_maker, say


@contextmanager
def untried() -> Iterator[None]:
    """While the block runs, another process cannot be started."""

    def refuse(*vocabulary: Any) -> grammar_trial.Tried:
        raise AssertionError("a structure was tried out")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grammar, "try_out", refuse)
        yield


def chain(count: int, link: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
    """A schema whose parts each refer to the next one."""
    parts: dict[str, Any] = {str(i): link({"$ref": f"#/$defs/{i + 1}"}) for i in range(count)}
    return json.dumps({"$ref": "#/$defs/0", "$defs": {**parts, str(count): {"type": "integer"}}})


CHAINS: dict[str, dict[str, Any]] = {
    "objects": {"json": chain(2000, lambda part: {"properties": {"a": part}, "required": ["a"]})},
    "arrays": {"json": chain(3000, lambda part: {"type": "array", "items": part})},
    "anyOf": {"json": chain(3000, lambda part: {"anyOf": [part, {"type": "null"}]})},
    "references": {"json": chain(5000, lambda part: part)},
    "rules": {"grammar": "start: r0\n" + "".join(f'r{i}: "x" r{i + 1}\n' for i in range(9000)) + 'r9000: "z"'},
    "terminals": {"grammar": "start: T0\n" + "".join(f'T{i}: "x" T{i + 1}\n' for i in range(9000)) + 'T9000: "z"'},
    "gbnf": {"grammar": "root ::= r0\n" + "".join(f'r{i} ::= "x" r{i + 1}\n' for i in range(900)) + 'r900 ::= "z"'},
    "doubled": {"grammar": "start: A0\n" + "".join(f"A{i}: A{i + 1} A{i + 1}\n" for i in range(15)) + 'A15: "a"?'},
    "unicode": {
        "grammar": "start: A0\n" + "".join(f"A{i}: A{i + 1} A{i + 1}\n" for i in range(9)) + r"A9: /\p{L}?\w*/"
    },
    "optional": {"regex": "a?" * 1000 + "a" * 1000},
    "many lines": {"grammar": "\n" * 200_000 + 'root ::= "a"'},
    "many spaces": {"grammar": "x" + " " * 200_000},
}

PROGRAM = """
import pathlib, sys
from tests.engine.test_engine_hostile_structures import CHAINS, MAKER, StructuredOutputs, InvalidParameter
for name in sys.argv[1:]:
    try:
        own = MAKER(StructuredOutputs(**CHAINS[name]))
        outcome = "made"
    except InvalidParameter as error:
        outcome = f"refused {error}"
    print(name, "->", outcome)
facts = pathlib.Path("/proc/self/status")  # getrusage tells of the parent as well, from before the program was loaded
most = [line for line in facts.read_text().splitlines() if "VmHWM" in line] if facts.exists() else ["VmHWM: 0 kB"]
print("MiB", int(most[0].split()[1]) // 1024)
"""


@pytest.mark.clause("SAMPLE-35")
def test_no_structure_ends_the_process() -> None:
    """Runs in another process, which must not crash and must stay small."""
    ran = subprocess.run([sys.executable, "-c", PROGRAM, *CHAINS], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    *outcomes, memory = ran.stdout.splitlines()
    assert [outcome.split(" -> ")[0] for outcome in outcomes] == list(CHAINS)
    assert all(" -> made" in each or " -> refused structured_outputs " in each for each in outcomes)
    assert int(memory.split()[1]) < 700


TOO_MUCH: list[dict[str, Any]] = [
    {"json": {"type": "integer", "multipleOf": 9999991}},
    {"grammar": 'start: %json {"type": "integer", "multi\\u0070leOf": 9999991}'},
    {"regex": r"\p{L}?\p{Lu}*" * 2000},
    {"json": {"properties": {str(i): {} for i in range(9000)}}},  # time alone
]


@pytest.mark.clause("SAMPLE-35")
@pytest.mark.parametrize("fields", TOO_MUCH, ids=["multipleOf", "inside a grammar", "unicode", "properties"])
def test_what_takes_too_much_is_refused_and_other_threads_run(fields: dict[str, Any]) -> None:
    longest, done = 0.0, False

    def tick() -> None:
        nonlocal longest
        last = time.perf_counter()
        while not done:
            time.sleep(0.001)
            longest, last = max(longest, time.perf_counter() - last), time.perf_counter()

    ticking = threading.Thread(target=tick)
    ticking.start()
    began = time.thread_time()
    try:
        with pytest.raises(InvalidParameter, match=r"takes more than 1\.5 s or 256 MiB") as refusal:
            MAKER(StructuredOutputs(**fields))
    finally:
        done = True
        ticking.join()
    assert time.thread_time() - began < 0.5 and longest < 0.5
    assert refusal.value.field == "structured_outputs"


ORDINARY: list[tuple[dict[str, Any], str]] = [
    ({"json": {"enum": [f"word {i}" for i in range(5000)]}}, '"word 4711"'),
    ({"json": {"type": "integer", "multipleOf": 7}}, "21"),
    ({"json": {"type": "number", "multipleOf": 0.25}}, "1.75"),
    ({"json": {"properties": {f"p{i}": {"type": "string"} for i in range(100)}}}, '{"p3": "a", "p7": "b"}'),
    ({"json": {"properties": {f"p{i}": {"format": "uri"} for i in range(100)}}}, '{"p3": "http://a.b/"}'),
    ({"regex": "|".join(f"w{i}" for i in range(5000))}, "w4711"),
    ({"choice": [f"choice {i}" for i in range(1000)]}, "choice 999"),
    ({"choice": [f"choice {i}" for i in range(12_000)]}, "choice 11999"),
    ({"choice": ["", *(f"日本 {i}" for i in range(3000))]}, "日本 2999"),
    ({"grammar": "root ::= " + " | ".join(f'"w{i}"' for i in range(5000))}, "w4711"),
    ({"grammar": 'start: %json {"type": "boolean"}'}, "true"),
]


@pytest.mark.clause("SAMPLE-35")
@pytest.mark.parametrize("index", range(len(ORDINARY)))
def test_a_large_structure_that_can_be_made_is_followed(index: int) -> None:
    fields, text = ORDINARY[index]
    own = MAKER(StructuredOutputs(**fields))
    say(own, text)
    assert own.is_complete or own.allowed()[EOS] or own.accepts


SMALL: list[dict[str, Any]] = [
    {"json": {"properties": {f"p{i}": {"type": "string"} for i in range(50)}, "required": ["p3"]}},
    {"json": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 10**6}, "maxItems": 100}},
    {"json": {"properties": {name: {"format": name} for name in ("email", "uri", "date-time", "uuid", "ipv6")}}},
    {"json": True},
    {"json": "true"},
    {"json": {}},
    {"regex": r"(\w+ ){1,20}\w+[.]"},
    {"regex": ".{1,30000}"},
    {"choice": ["yes", "no"]},
    {"choice": "yes"},
    {"grammar": 'start: "(" start ")" | "x"'},
    {"grammar": 'root ::= "(" root ")" | "x"'},
    {"grammar": '# a rule called start\nroot ::= "a" begin\nbegin ::= "b"'},
]


@pytest.mark.clause("SAMPLE-35")
@pytest.mark.parametrize("index", range(len(SMALL)))
def test_ordinary_structures_are_made_at_once(index: int) -> None:
    with untried():
        assert MAKER(StructuredOutputs(**SMALL[index])).allowed().any()


SENSELESS: list[tuple[dict[str, Any], str]] = [
    ({"json": {"$ref": "#"}}, "json: "),
    ({"json": {"type": "integer", "minimum": int("9" * 1000)}}, "number out of range"),
    ({"json": {"type": "number", "minimum": 1e308, "maximum": 1e308}}, "'minimum' at # is beyond"),
    ({"json": {"allOf": [{"type": "string"}, {"type": "number"}]}}, "json: "),
    ({"json": {"$ref": "http://example.com/schema"}}, "json: "),
    ({"json": {"not": {}}}, "json: "),
    ({"json": '{"items":' * 200 + "{}" + "}" * 200}, "recursion limit"),
    ({"regex": "(?=a).*"}, "regex: "),
    ({"regex": "(" * 1000}, "regex: "),
    ({"regex": "a{5,2}"}, "regex: "),
    ({"regex": r"\x1b[2J" + "["}, "regex: "),
    ({"grammar": "start: " + "(" * 900 + '"a"' + ")" * 900}, "too deeply nested"),
    ({"grammar": "root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000}, "grammar: "),
    ({"grammar": 'start: "a\0b"'}, "grammar: "),
    ({"grammar": ""}, "grammar: "),
    ({"grammar": "start: start"}, "grammar: "),
]


@pytest.mark.clause("SAMPLE-29")
@pytest.mark.parametrize("index", range(len(SENSELESS)))
def test_a_structure_without_sense_is_refused_in_one_short_line(index: int) -> None:
    fields, complaint = SENSELESS[index]
    with pytest.raises(InvalidParameter, match=complaint) as refusal:
        MAKER(StructuredOutputs(**fields))
    assert str(refusal.value).isprintable() and len(str(refusal.value)) < 400


PIECES = [
    "a",
    "b",
    "0",
    "é",
    "\0",
    " ",
    "\n",
    "\\",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "|",
    "*",
    "+",
    "?",
    "^",
    "$",
    ".",
    ":",
    '"',
]
WORDS = [
    *PIECES,
    "{1000}",
    "{0,9}",
    r"\w",
    r"\p{L}",
    r"\b",
    "(?i)",
    "start: ",
    "root ::= ",
    "/",
    "%ignore ",
    "A: ",
    "~",
    "&",
]
KEYWORDS = [
    *(
        "type",
        "properties",
        "required",
        "items",
        "prefixItems",
        "anyOf",
        "oneOf",
        "allOf",
        "not",
        "if",
        "then",
        "const",
    ),
    *("enum", "minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength", "pattern", "format", "minItems", "a"),
    *("maxItems", "additionalProperties", "patternProperties", "$ref", "$defs", "x-guidance", "minProperties"),
]
SCHEMAS = st.recursive(
    st.sampled_from([True, False, None, 0, -1, 1.5, 1e300, "a", "integer", "string", "^a+$", "date", "#", "#/$defs/a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYWORDS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@pytest.mark.clause("SAMPLE-29")
@given(
    fields=st.one_of(
        st.lists(st.sampled_from(WORDS), max_size=12).map(lambda parts: {"regex": "".join(parts)}),
        st.lists(st.sampled_from(WORDS), max_size=12).map(lambda parts: {"grammar": "start: " + "".join(parts)}),
        st.lists(st.sampled_from(WORDS), max_size=12).map(lambda parts: {"grammar": "".join(parts)}),
        st.lists(st.text(max_size=4), max_size=4).map(lambda parts: {"choice": parts}),
        SCHEMAS.map(lambda schema: {"json": {"properties": {"a": schema}}}),
        SCHEMAS.map(lambda schema: {"json": schema}),
    ),
    draws=st.lists(st.integers(0, 2**30), min_size=6, max_size=6),
)
def test_any_structure_is_followed_or_refused(fields: dict[str, Any], draws: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grammar, "try_out", refuse_trial)
        try:
            own = MAKER(StructuredOutputs(**fields))
            for draw in draws:
                if own.is_complete:
                    break
                possible = np.flatnonzero(own.allowed())
                own.accept(int(possible[draw % len(possible)]))
        except (InvalidParameter, ModelError) as error:
            assert str(error).isprintable() and len(str(error)) < 400


def refuse_trial(*vocabulary: Any) -> grammar_trial.Tried:
    raise grammar_library.CannotFollow("a process for each example would take long")


@pytest.mark.clause("SAMPLE-35")
def test_remembered_grammars_take_no_more_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "REMEMBERED", 3 * grammar.QUICK_SIZE)
    maker, made = bytes_maker(), []
    make = maker._make
    monkeypatch.setattr(maker, "_make", lambda structure: made.append(structure.text) or make(structure))
    for text in ("a", "b", "c", "a", "d", "a", "b"):  # "b" was not used for longest when "d" came
        maker(StructuredOutputs(regex=text))
    assert made == ["a", "b", "c", "d", "b"]
    monkeypatch.setattr(grammar, "REMEMBERED", 0)
    for _ in range(2):
        say(maker(StructuredOutputs(regex="e")), "e")
    assert made[5:] == ["e", "e"] and not maker._cache


@pytest.mark.clause("SAMPLE-35", "ENGINE-45")
def test_a_grammar_that_became_too_much_is_forgotten() -> None:
    maker, structure = bytes_maker(), StructuredOutputs(regex="a(b|c)")
    first, second = maker(structure), maker(structure)
    say(second, "a")
    with pytest.raises(ModelError, match="cannot go on"):
        first.accept(ord("z"))
    assert structure not in maker._cache
    say(second, "b")
    say(maker(structure), "ac")


class PanicException(BaseException):
    """An error of native code, which is not derived from `Exception`."""


@pytest.mark.clause("SAMPLE-29")
@pytest.mark.parametrize("error", [PanicException("index out of\nbounds"), ValueError("x" * 10_000), MemoryError()])
def test_a_panic_of_the_library_is_an_ordinary_refusal(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        class LLMatcher:
            @staticmethod
            def grammar_from_lark(text: str) -> str:
                raise error

    maker = bytes_maker()
    maker._tokenizer  # noqa: B018
    monkeypatch.setattr(grammar_library, "library", lambda: Broken)
    with pytest.raises(InvalidParameter, match="grammar: ") as refusal:
        maker(StructuredOutputs(grammar='start: "a"'))
    assert str(refusal.value).isprintable() and len(str(refusal.value)) < 400


@pytest.mark.clause("SAMPLE-35")
def test_a_trial_that_cannot_begin_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_trial, "python_command", lambda *arguments: ["/nowhere/python"])
    with pytest.raises(ResourceExhausted, match="cannot be started"):
        MAKER(StructuredOutputs(json={"multipleOf": 3}))
    monkeypatch.setattr(grammar_trial, "python_command", lambda *arguments: [sys.executable, "-c", "while True: pass"])
    monkeypatch.setattr(grammar_trial, "PATIENCE", 0.2)
    with pytest.raises(InvalidParameter, match="takes more than"):
        MAKER(StructuredOutputs(json={"multipleOf": 3}))


@pytest.mark.clause("SAMPLE-35")
def test_lark_and_gbnf_are_told_apart_in_time() -> None:
    assert grammar_library._LARK.search('%llguidance {}\nstart : "a"')
    assert grammar_library._LARK.search('// Lark\n start: "a"')
    assert not grammar_library._LARK.search('root ::= start\nstart ::= "a"')
    began = time.thread_time()
    grammar_library._LARK.search("\n" * 200_000 + " " * 50_000 + "start")
    assert time.thread_time() - began < 0.5


@pytest.mark.clause("SAMPLE-35")
@pytest.mark.parametrize(
    "text",
    [
        'start: /a+/ "ab"',
        "start: /a*/ /ab/",
        "start: /a*/ /a*/ /ab*/",
        "%llguidance {}\nstart: /a+/ /ab/",
        '%llguidance {"no_forcing": false}\nstart: (/a+/)? "ab"',
        'root ::= x "ab"\nx ::= "a" x | "a" "a"',
    ],
)
def test_a_grammar_without_an_end_is_followed_step_by_step(text: str) -> None:
    """If a grammar allows only one continuation, with many tokens, other sequences do not wait for the last of them."""
    own, began = MAKER(StructuredOutputs(grammar=text)), time.thread_time()
    with suppress(ModelError):
        say(own, "a" * 20)
    assert time.thread_time() - began < 2


@pytest.mark.clause("SAMPLE-35")
@pytest.mark.parametrize(
    "schema",
    [
        '{"type": "integer", "minimum": -1000000000000000000000000000000, "maximum": -1000000000000000000000000000000}',
        '{"type": "integer", "maximum": -9223372036854775808, "minimum": -9223372036854775808}',
        '{"type": "integer", "maximum": -1e30, "minimum": -1.0e+30}',
        '{"type": "integer", "exclusiveMaximum": -9223372036854775807, "minimum": -9223372036854775808}',
        '{"type": "number", "maximum": -1E300, "minimum": -1E301}',
        '{"anyOf": [{"type": "array", "items": {"type": "integer", "maximum": -92233720368547758080}}]}',
    ],
)
def test_numbers_beyond_64_bits_are_tried_out(schema: str) -> None:
    try:
        MAKER(StructuredOutputs(json=schema))
    except InvalidParameter as error:
        assert str(error).startswith("structured_outputs json: ")
