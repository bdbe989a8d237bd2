"""TEXT-44: how long the regular expressions of tokenizers may take."""

from __future__ import annotations

import pytest

from ferrum.errors import RequestValidation, TokenizerError
from ferrum.text.pre_tokenizers import PRE_TOKENIZERS
from ferrum.text.regex_cost import Cost, cost_of
from ferrum.text.tokenizer import Tokenizer
from tests.text.hostile_steps import changed, replace, sequence, split

LOOKING_AHEAD = ("afmoe", "chameleon", "deepseek-llm", "jais-2", "superbpe", "tiny_aya")
"""Families with an expression that looks along a run of digits or of white space from each place in it."""
LINEAR = {split for name, rules in PRE_TOKENIZERS.items() if name not in LOOKING_AHEAD for split in rules.splits}
LINEAR -= set(PRE_TOKENIZERS["tiny_aya"].splits)  # which has another name as well


@pytest.mark.clause("TEXT-44")
@pytest.mark.parametrize("expression", sorted(LINEAR | {" {2,}", r"\s+"}))
def test_expressions_in_use_are_linear(expression: str) -> None:
    assert cost_of(expression).degree == 0


@pytest.mark.clause("TEXT-44")
@pytest.mark.parametrize("name", LOOKING_AHEAD)
def test_expressions_that_look_along_runs_take_those_that_texts_have(name: str) -> None:
    costs = [cost_of(split) for split in PRE_TOKENIZERS[name].splits]
    assert max(cost.degree for cost in costs) == 1
    assert all(cost.allows(("words 1234567 " + " " * 80 + "\n") * 100 + " " * 1000 + "1" * 1000) for cost in costs)


WITHOUT_END = [r"(x+x+)+y", r"(a*)*b", r"(.*a){20}", r"^(\w+\s?)*$", r"(a?){30}a{30}", "a?" * 30 + "a" * 30]
WITHOUT_END += [
    r"(?:\n?\n)+x",
    r"(?:\r?\n?)+x",
    "(a|ab)*c",
    "(?:a|aa)+(?!x)",
    "(?>(a+)+b)",
    "(?=(a+)+b)",
    "((?i)a+|b)+c",
    "(((a{999}){999}){999})",
]
NOT_UNDERSTOOD = [
    r"(a)\1",
    r"(?<n>a)\k<n>",
    r"(?<n>a\g<n>?)",
    "(?(1)a|b)",
    "(?x)a b",
    "(?~a)",
    "(a",
    "a)",
    "[a",
    "[[a]",
]
NOT_UNDERSTOOD += ["(" * 60 + "a" + ")" * 60, "[" * 60 + "a" + "]" * 60, "a" * 20_000, "a{9999999}", "(?i)" * 60 + "a"]


@pytest.mark.clause("TEXT-44")
@pytest.mark.parametrize("expression", WITHOUT_END + NOT_UNDERSTOOD, ids=range(len(WITHOUT_END + NOT_UNDERSTOOD)))
def test_expressions_without_end_are_refused(expression: str) -> None:
    with pytest.raises(TokenizerError, match=r"the tokenizer's regular expression .* is not supported"):
        cost_of(expression)


DEGREES = {r"\s+$": 1, "a*b": 1, "a*[bd]|a": 1, r"\s*[\r\n]+|\s|\s+": 1, "a+(?=b)": 1, "a{1,99}b": 1, "(?:ab)*c": 1}
DEGREES |= {
    "a*a*b": 2,
    "a*?a+b": 2,
    "a*a*a*b": 3,
    "(?>a+)b": 1,
    "a++b": 1,
    "a(?=a*)": 1,
    "a+": 0,
    "a{1,3}b": 0,
    "(?:ab|cd)+": 0,
}
DEGREES |= {
    "a+": 0,
    "a{1,3}b": 0,
    "(?:ab|cd)+": 0,
    "(?i:'s|'t)?a+": 0,
    "a+|": 0,
    r"\s*[\r\n]+|\s+(?!\S)|\s+": 0,
    "[ab]*b+c?|[ab]+b*": 0,
    "[]a]+": 0,
    "a{,3}": 0,
    "a{2}?b": 0,
}


@pytest.mark.clause("TEXT-44")
@pytest.mark.parametrize(("expression", "degree"), DEGREES.items())
def test_slow_expressions_get_short_runs(expression: str, degree: int) -> None:
    cost = cost_of(expression)
    assert cost.degree == degree
    if degree:
        assert 50 < cost.longest < [0, 40_000, 1000, 200][degree]
        tokenizer = Tokenizer.from_json(changed(pre_tokenizer=split(expression)))
        run = " " if r"\s" in expression else "a"
        tokenizer.encode(("x" + run * 3) * 8_000, add_special_tokens=False)
        with pytest.raises(RequestValidation, match="too long a run of characters"):
            tokenizer.encode(run * 50_000, add_special_tokens=False)


@pytest.mark.clause("TEXT-44")
def test_runs_are_looked_for_where_the_expression_is_used() -> None:
    """Before a step that removes them, and nowhere where a step has written the text in other characters."""
    spaces = replace(r" +\z", "", "Regex")
    tokenizer = Tokenizer.from_json(changed(normalizer=sequence(spaces, replace(" ", ""))))
    tokenizer.encode("a b" * 10_000, add_special_tokens=False)
    rewritten = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    steps = {"type": "Sequence", "pretokenizers": [rewritten, split("Ġ+$")]}
    for hostile in (tokenizer, Tokenizer.from_json(changed(pre_tokenizer=steps))):
        with pytest.raises(RequestValidation, match="too long a run"):
            hostile.encode("a" + " " * 50_000 + "a", add_special_tokens=False)


@pytest.mark.clause("TEXT-44")
def test_what_the_library_gives_up_is_the_callers_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ferrum.text.tokenizer_steps.cost_of", lambda expression: Cost(expression, 1, 0, ()))
    for expression in ("(a+)+$", "(a|a)*$"):
        tokenizer = Tokenizer.from_json(changed(pre_tokenizer=split(expression)))
        with pytest.raises(RequestValidation, match="takes too long to cut"):
            tokenizer.encode("a" * 40 + "c", add_special_tokens=False)


@pytest.mark.clause("TEXT-44")
def test_line_ends_are_one_character_or_two() -> None:
    """As a published tokenizer repeats them; nothing can be matched in two ways."""
    assert cost_of(r"(?:\r?\n)+(?!\r?\n)").degree == 1
