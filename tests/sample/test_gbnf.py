"""SAMPLE-40, SAMPLE-41 and SAMPLE-43: grammars of llama.cpp, and rules without an end."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.errors import InvalidParameter
from ferrum.sample.grammars.gbnf import Chars, Choice, Item, Name, Repeat, Text, read
from ferrum.sample.grammars.gbnf_lark import LONGEST, lark_of
from ferrum.sample.grammars.lark import prepared
from ferrum.sample.grammars.refusals import CannotFollow
from ferrum.sampling_params import StructuredOutputs
from tests.sample.following import MAKER, fits

GOLDENS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "goldens/gbnf.json").read_text("utf-8"))
REPEATED_EMPTY = {  # llama.cpp takes them for left recursion, or finds nothing to repeat
    "root ::= ()*", 'root ::= "a"**', 'root ::= "" (|)*|"1a"? "1" .+', 'root ::= .|"é"+|b-1+ .\nb-1 ::= ',
    'root ::= "" X2{1,} "é"{0,1}\nX2 ::= ', 'root ::= "bx"{1,2} root{1,} .?|',
}  # fmt: skip


@pytest.mark.clause("SAMPLE-40", "SAMPLE-41")
@pytest.mark.parametrize("part", range(8))
def test_grammars_and_texts_are_those_of_llama(part: int) -> None:
    """420 grammars with 6800 texts. A grammar that llama.cpp accepts is refused only if no finite text matches it."""
    for golden in GOLDENS[part::8]:
        structure = StructuredOutputs(grammar=golden["grammar"])
        matches = golden["matches"]
        try:
            MAKER(structure)
        except InvalidParameter as refusal:
            if matches:
                assert golden["grammar"] == "" and "no rule is called root" in str(refusal)  # there, it is no grammar
            elif matches is not None:
                assert "has no end" in str(refusal) or "no character" in str(refusal)
            continue
        if matches is None:
            assert golden["grammar"] in REPEATED_EMPTY or "left recursion" not in refused(golden["grammar"])
            continue
        assert [text for text in golden["tried"] if fits(structure, text)] == matches, golden["grammar"]


def refused(text: str) -> str:
    """The message of the error for this grammar."""
    try:
        lark_of(text)
    except CannotFollow as error:
        return str(error)
    return ""


def ends(rules: Mapping[str, Choice], item: Item, text: str, start: int, done: frozenset[Any]) -> set[int]:
    """The oracle: the places where a match that begins at `start` can end. Plain and slow."""
    if isinstance(item, Chars):
        fits_here = start < len(text) and any(low <= ord(text[start]) <= high for low, high in item.ranges)
        return {start + 1} if fits_here else set()
    if isinstance(item, Text):
        return {start + len(item.text)} if text.startswith(item.text, start) else set()
    if isinstance(item, Name):
        if (item.name, start) in done:
            return set()
        return ends(rules, rules[item.name], text, start, done | {(item.name, start)})
    if isinstance(item, Repeat):
        found, now = set(), {start}
        for times in range(len(text) + item.least + 2):
            if times >= item.least:
                found |= now
            if times == item.most:
                break
            now = {end for place in now for end in ends(rules, item.item, text, place, done)}
        return found
    found = set()
    for option in item.options:
        now = {start}
        for part in option:
            now = {end for place in now for end in ends(rules, part, text, place, done)}
        found |= now
    return found


def matches(grammar: str, text: str) -> bool:
    rules = read(grammar)
    return len(text) in ends(rules, rules["root"], text, 0, frozenset())


ITEMS = st.recursive(
    st.sampled_from(['"a"', '"ab"', '""', "[ab]", "[^a]", ".", "[b-z]", "x", "y", '"é"']),
    lambda inner: st.one_of(
        st.lists(st.lists(inner, max_size=3).map(" ".join), min_size=1, max_size=3).map(
            lambda options: f"({' | '.join(options)})"
        ),
        st.tuples(
            inner.filter(lambda item: item != '""'), st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}"])
        ).map("".join),
    ),
    max_leaves=6,
)
BODIES = st.lists(st.lists(ITEMS, max_size=3).map(" ".join), min_size=1, max_size=3).map(" | ".join)


@pytest.mark.clause("SAMPLE-40")
@given(
    root=BODIES, x=BODIES, y=BODIES,
    texts=st.lists(st.text(st.sampled_from("abzé"), max_size=5), min_size=4, max_size=8),
)  # fmt: skip
def test_any_grammar_matches_what_its_definition_says(root: str, x: str, y: str, texts: list[str]) -> None:
    grammar = f"root ::= ({root})\nx ::= ({x})\ny ::= ({y})\n"
    structure = StructuredOutputs(grammar=grammar)
    try:
        MAKER(structure)
    except InvalidParameter as refusal:
        assert "left recursion" in str(refusal) or "no end" in str(refusal)
        return
    for text in texts:
        assert fits(structure, text) == matches(grammar, text), text


@pytest.mark.clause("SAMPLE-40")
@pytest.mark.parametrize(
    ("grammar", "text", "others"),
    [
        ('root ::= start " " stop\nstart ::= "go"\nstop ::= "now"', "go now", ["go", "now"]),
        ('root ::= Item item\nItem ::= "1"\nitem ::= "2"', "12", ["11", "22"]),
        ('root ::= a_b a-b\na_b ::= "1"\na-b ::= "2"', "12", ["11"]),
        ('root ::= word "x"\nword ::= [a-z]+', "abx", ["x", "ab"]),
        ('root ::= "a" "bc" | "ab" "d"', "abc", ["ab"]),
        ('root ::= "(" root ")" | [a-z]+ "b"', "((aab))", ["((aa))"]),
        ('root ::= "\\U0001F600"', "😀", ["a"]),
        ("root ::= [\\U0001F600-\\U0001F64F]{2}", "😀😁", ["😀", "aa"]),
        ('root ::= [^"\\\\\\x7F\\x00-\\x1F]+', "é'😀", ['"', "\\", "\x7f"]),
        ("root ::= [\\u0000-\\U0010FFFF]", "\ue000", [""]),
        ("root ::= .", "\n", ["", "ab"]),
    ],
)  # fmt: skip
def test_what_other_readers_of_gbnf_do_not_take(grammar: str, text: str, others: list[str]) -> None:
    structure = StructuredOutputs(grammar=grammar)
    assert fits(structure, text)
    assert not any(fits(structure, other) for other in others)


@pytest.mark.clause("SAMPLE-41")
@pytest.mark.parametrize(
    ("grammar", "complaint"),
    [
        ('root ::= "a"\n  | "b"', "line 2, column 3: expected the name of a rule, not '|'"),
        ('root ::= "a" b\nc ::= "x"', "line 1, column 14: no rule is called 'b'"),
        ('a ::= "x"\r\nb ::= (a', "line 2, column 9: expected ')' or something to match, not the end of the text"),
        ("root = 1", "line 1, column 6: expected '::=' behind the name 'root', not '='"),
        ('item ::= "a"', "no rule is called root"),
        ("root ::= <[1]>", "line 1, column 10: '<[1]>' names a token"),
        ("root ::= !<[198]>*", "'!<[198]>' names a token"),
        ('root ::= <think> "a"', "'<think>' names a token"),
        ('root ::= <|im_end|>', "names a token"),
        ('root ::= "\\u12"', "line 1, column 11: expected 4 hexadecimal digits behind \\u"),
        ('root ::= "\\d"', "is no escape sequence"),
        ('root ::= "\\ud800"', "no text has the character U+D800"),
        ("root ::= [z-a]", "line 1, column 10: no character is one of these"),
        ("root ::= [a", "line 1, column 10: [ has no end"),
        ('root ::= "a', 'line 1, column 10: " has no end'),
        ("root ::= *", "'*' has nothing to repeat before it"),
        ('root ::= "a"{3,2}', "line 1, column 13: at least 3 times and at most 2 times"),
        ('root ::= "a"{,2}', "expected a number of times, not ','"),
        ('root ::= "a"{2001}', "must not demand more than 2000 times"),
        ('root ::= root "a" | "b"', "the rule 'root' begins with itself (left recursion)"),
        ('root ::= "x"\na ::= e b\ne ::= "1"?\nb ::= a | "2"', "begins with itself"),
        ('root ::= "a" root', "the rule 'root' has no end"),
        ('root ::= "a" | x\nx ::= "b" y\ny ::= x+ | x{2}', "has no end"),
        ("root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000, "line 1, column 110: groups stand in one another"),
        ('root ::= "a"' + "*" * 20_000, "repetitions of repetitions"),
    ],
)  # fmt: skip
def test_a_refusal_tells_the_place_and_what_was_expected(grammar: str, complaint: str) -> None:
    with pytest.raises(InvalidParameter) as refusal:
        MAKER(StructuredOutputs(grammar=grammar))
    assert str(refusal.value).startswith("structured_outputs grammar: ") and complaint in str(refusal.value)
    assert str(refusal.value).isprintable() and len(str(refusal.value)) < 200


@pytest.mark.clause("SAMPLE-40")
def test_a_long_grammar_is_read_in_time_and_a_large_one_stays_small() -> None:
    began = time.thread_time()
    lark_of("root ::= " + " | ".join(f'"word {i}"' for i in range(20_000)))
    lark_of("root ::= r0\n" + "".join(f'r{i} ::= "x" r{i + 1}\n' for i in range(900)) + 'r900 ::= "z"')
    doubled = "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1} r{i + 1}\n" for i in range(40)) + 'r40 ::= "z"'
    assert len(lark_of(doubled)) < LONGEST
    assert time.thread_time() - began < 2


@pytest.mark.clause("SAMPLE-43")
@pytest.mark.parametrize(
    "text",
    [
        'start: a\na: "x" a',
        'start: "y" | a\na: "x" a',
        'start: "y"* a\na: b+\nb: "x" (a | b "z")',
        'start: a\na: "x" (\n  a )  // no end',
        'start: a "b"\na: "x" a -> name',
        'start: a{2}\n?a: "x" | b\nb: b "z"',
        'start: b-c\nb-c: "x" a\na: "y" b-c',
    ],
)
def test_a_lark_rule_without_an_end_is_refused(text: str) -> None:
    with pytest.raises(CannotFollow, match=r"the rule '[ab]' has no end: it always needs itself again"):
        prepared(text, lambda schema: schema)


@pytest.mark.clause("SAMPLE-43")
@pytest.mark.parametrize(
    "text",
    [
        'start: a\n | "b"\na: "x"',
        'start: a? b*\na: "x" a\nb: "x" b',
        'start: [a] a{0,2} a~0..1 "c"\na: "x" a',
        'start: "(" start ")" | "a: b a"',
        'start: /a: b|\\/ a/ A\nA: "x"\nunused: "y" unused',
        'start: a // a: a\na: "x" # a\n%ignore / /',
        'start: a::0\na::_: "x" a::incr(_)',
        'start: %json {"a": "}"} | start "x"',
        "start: a\na[max_tokens=3]: /x/ a",
        'start: a -> b\na: "x" | a -> a',
        'start: "x" -> start',
        "start: missing",
        'start: a\na: b | a-call\nb: "x"\na-call: b "(" a? ")"',
        'start: _A-B a-\n_A-B: "x"\na-: "y"',
    ],
)
def test_a_lark_rule_that_can_end_is_the_librarys_affair(text: str) -> None:
    assert prepared(text, lambda schema: schema) == text or "%json" in text


@pytest.mark.clause("SAMPLE-43", "SAMPLE-44")
def test_a_schema_inside_a_grammar_is_made_as_one_alone() -> None:
    schema = '{"oneOf": [{"type": "integer"}, {"minimum": 3}]}'
    with pytest.raises(InvalidParameter, match=r"'oneOf' at # .*one_of_as_any_of"):
        MAKER(StructuredOutputs(grammar=f'start: "a" %json {schema}'))
    assert fits(StructuredOutputs(grammar=f'start: "a" %json {schema}', one_of_as_any_of=True), "a7")
    keys = '{"type": "object", "properties": {"a": {"type": "integer"}}}'
    assert not fits(StructuredOutputs(grammar=f"start: %json {keys}"), '{"a": 1, "\\u0061": ""}')
    with pytest.raises(InvalidParameter, match="has an end"):
        MAKER(StructuredOutputs(grammar='start: "a" %json {"$ref": "#"} "b"'))
