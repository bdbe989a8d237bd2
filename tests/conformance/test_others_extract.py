"""Cases are read correctly from other people's test files, and a wrong answer is found."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.suites import grammars, jinja, json_schemas, replies, samplers, templates
from benchmarks.suites.cpp import NotUnderstood, Reader

FILE = r'''
#include "try(1)"
static void try(const std::string & text, int n); // try("in a comment");
/* try("in another"); */
static void all() {
    try("a\n\"b\" \x41\102 \u00e9\
c" /* here */ "d", -1);
    try(R"""({"x": [1]})""" + call("e", 2), 0.1f/2.0f);  // and here
    try({{"k", list({1, true, nullptr})}, u8R"(raw\n)", {}}, 1e3, '\'');
}
std::vector<Pair> pairs { {"one", 1}, };
const std::string name = "try(2)";
'''


def reader(source: str, **functions: Any) -> Reader:
    return Reader(source, {"FINE": 1}, functions)


@pytest.mark.clause("SUITE-20")
def test_calls_and_values_are_read_as_they_are_written() -> None:
    file = reader(FILE, call=lambda text, number: text * number, list=tuple)
    assert file.calls("try") == [
        ['a\n"b" AB éc' + "d", -1],
        ['{"x": [1]}ee', 0.05],
        [[["k", (1, True, None)], "raw\\n", []], 1000.0, "'"],
    ]
    assert file.values("pairs") == [[["one", 1]]]
    assert file.values("name") == ["try(2)"]
    assert file.calls("nothing") == []


@pytest.mark.clause("SUITE-20")
def test_a_chain_of_calls_is_read_to_its_last() -> None:
    source = """void a() {
    it.test("x").tools({1}) // a comment
        .strict().run();
    that.test("y").run();
    it.test(FINE).run();
}
"""
    assert reader(source).chains("it", "test", "run") == [
        {"test": ["x"], "tools": [[1]], "strict": [], "run": []},
        {"test": [1], "run": []},
    ]
    with pytest.raises(NotUnderstood, match=r"line 2: \. is expected, not ;"):
        reader("{\n    it.test(1);\n}\n").chains("it", "test", "run")


@pytest.mark.clause("SUITE-20")
@pytest.mark.parametrize(
    "call",
    ["f(other)", "f(FINE.size())", "f(g(1))", "f(x ? 1 : 2)", "f(3 / 2)", "f(1", "f([&]() { return 1; })", "f({1 2})"],
)
def test_a_call_that_is_not_understood_is_an_error(call: str) -> None:
    with pytest.raises(NotUnderstood, match="line 3: "):
        reader(f"void a() {{\n    f(1);\n    {call};\n}}\n").calls("f")


@pytest.mark.clause("SUITE-20")
def test_another_number_of_calls_than_a_plain_search_finds_is_an_error() -> None:
    with pytest.raises(NotUnderstood, match="1 calls of f were read, but 2 are written"):
        reader("void a() {\n    f(1);\n    /*\n    f(2);\n    */\n}\n").calls("f")
    with pytest.raises(NotUnderstood, match="0 values of x were read, but 1 are written"):
        reader("/*\nint x = 1;\n*/\n").values("x")


@pytest.mark.clause("SUITE-20")
@given(st.text(st.characters(codec="utf-8")), st.text(string.ascii_letters + '()"\\\n{}'))
def test_any_text_is_read_back(plain: str, raw: str) -> None:
    escaped = "".join(f"\\{ord(char):03o}" if char < " " else f"\\{char}" if char in '"\\' else char for char in plain)
    assert reader(f'void a() {{\n    f("{escaped}", R"mark({raw})mark");\n}}\n').calls("f") == [[plain, raw]]


def outcomes(suite: Any, tmp_path: Path, files: Mapping[str, str]) -> dict[str, str]:
    """What a suite says where these files are its data."""
    for name, text in files.items():
        path = suite.SOURCE.within(tmp_path) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return {verdict.case: verdict.outcome for verdict in suite.run(tmp_path)}


LLAMA = "vendor/llama.cpp/"


@pytest.mark.clause("SUITE-21")
def test_a_wrong_text_of_a_template_is_a_difference(tmp_path: Path) -> None:
    source = """
    test_template(t, "good", "{{ x|sum }}{{ o.k }}", {{"x", json::array({1, 2})}, {"o", {{"k", "v"}}}}, "3v");
    test_template(t, "bad", "{{ x }}", {{"x", json({{"a", json::array()}})}}, "{'a': {}}");
    test_template(t, "broken", "{{ x", json::object(), "");
    test_template(t, "changed", "{{ x.append(1) }}", {{"x", json::array()}}, "None");
    """
    found = outcomes(jinja, tmp_path, {f"{LLAMA}tests/test-jinja.cpp": source})
    assert found == {"good": "equal", "bad": "different", "broken": "different", "changed": "refused"}


@pytest.mark.clause("SUITE-21")
def test_a_wrong_rendering_of_a_conversation_is_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: templates.CONVERSATIONS[name] for name in ("a question", "no message", "two calls")}
    monkeypatch.setattr(templates, "CONVERSATIONS", few)
    cases = """
    std::vector<M> conversation { {"user", "Hello"}, };
    std::vector<TestCase> test_cases {
        { /* .name= */ "good", "{{ bos_token }}{{ messages[1].role }}", "", "<s>x", "<s>", "", true, {{"x", "y"}} },
        { /* .name= */ "bad", "{{ messages|length }}", "2", "", },
    };
    """
    files = {
        f"{LLAMA}tests/test-chat-template.cpp": cases,
        f"{LLAMA}models/templates/plain.jinja": "{% for m in messages %}{{ m|tojson }}{% endfor %}{{ tools }}",
        f"{LLAMA}models/templates/strict.jinja": "{{ raise_exception('no') if messages|length < 2 else bos_token }}",
    }
    found = outcomes(templates, tmp_path, files)
    expected = {name: found.pop(f"expected/{name}") for name in ("good", "bad")}
    assert expected == {"good": "equal", "bad": "different"}
    assert len(found) == 2 * len(few) * len(templates.ARGUMENTS)
    assert set(found.values()) == {"equal"}
    monkeypatch.setattr(templates, "TOKENS", {"bos_token": "<t>", "eos_token": ""})
    monkeypatch.setattr(templates.ChatTemplate, "render", lambda *given, **more: "<s>")
    assert set(outcomes(templates, tmp_path, files).values()) == {"different"}


@pytest.mark.clause("SUITE-21")
def test_an_answer_that_is_parsed_in_another_way_is_a_difference(tmp_path: Path) -> None:
    source = """
    const common_chat_msg message_call = simple_assist_msg("", "why", "f", "{\\"x\\": 1}");
    static common_chat_tool f_tool{ "f", "It.", R"({"type": "object"})" };
    {
        auto tst = peg_tester("models/templates/hermes.jinja", debug);
        const std::string call = R"(<tool_call>{"name": "f", "arguments": {"x":1}}</tool_call>)";
        tst.test("<think>why</think>" + call)
            .reasoning_format(COMMON_REASONING_FORMAT_AUTO)
            .tools({ f_tool })
            .expect(message_call)
            .run();
        tst.test("why").expect_content("because").run();
        tst.test(call).expect_content(call).run();
        tst.test("y").messages({}).continue_final_message(COMMON_CHAT_CONTINUATION).run();
        auto tst2 = peg_tester(path, debug);
        tst2.test("x").run();
    }
    """
    files = {
        f"{LLAMA}tests/test-chat.cpp": source,
        f"{LLAMA}models/templates/hermes.jinja": "<think> <tool_call> {{ messages[0].content }}",
    }
    assert list(outcomes(replies, tmp_path, files).items()) == [
        ("hermes/0", "equal"),
        ("hermes/1", "different"),
        ("hermes/2", "equal"),
        ("hermes/3", "refused"),
        ("several/100", "refused"),
    ]
    lost = source.replace("    }\n", "        tst3.test(1).run();\n    }\n")
    with pytest.raises(NotUnderstood, match="5 cases were read, but 6 are written"):
        outcomes(replies, tmp_path, {f"{LLAMA}tests/test-chat.cpp": lost})


@pytest.mark.clause("SUITE-21")
def test_a_grammar_that_takes_another_text_is_a_difference(tmp_path: Path) -> None:
    integration = """
    test_grammar("ab", R"(root ::= "a" "b"?)", {"a", "ab", "b"}, {"", "a"});
    test_schema("one", R"({"enum": [1]})", {"1"}, {"2"});
    test_schema("not", R"({"not": {}})", {"1"}, {});
    const std::string hard_str = R"(root ::= root)";
    const std::string grammar_str = R"(root ::= "a")";
    """
    files = {
        f"{LLAMA}tests/test-grammar-integration.cpp": integration,
        f"{LLAMA}tests/test-grammar-llguidance.cpp": '    test_grammar("x", "start: /x/", {"x"}, {"x"});\n',
        f"{LLAMA}tests/test-grammar-parser.cpp": """
            verify_failure(R"(root ::= "a")");
            verify_parsing(R"(root ::= "a")", {{LLAMA_GRETYPE_CHAR, 'a'}});
        """,
        f"{LLAMA}tests/test-json-schema-to-grammar.cpp": '    test({SUCCESS, "any", "{}", "root ::= root"});\n',
        f"{LLAMA}grammars/one.gbnf": 'root ::= "1"',
    }
    assert outcomes(grammars, tmp_path, files) == {
        "gbnf/grammar/ab/fits/0": "equal",
        "gbnf/grammar/ab/fits/1": "equal",
        "gbnf/grammar/ab/fits/2": "different",
        "gbnf/grammar/ab/does not fit/0": "equal",
        "gbnf/grammar/ab/does not fit/1": "different",
        "gbnf/json/one/fits/0": "equal",
        "gbnf/json/one/does not fit/0": "equal",
        "gbnf/json/not/fits/0": "refused",
        "lark/grammar/x/fits/0": "equal",
        "lark/grammar/x/does not fit/0": "different",
        "senseless/hard_str/0": "equal",
        "senseless/grammar_str/0": "different",
        "parsed/verify_parsing/0": "equal",
        "parsed/verify_failure/0": "different",
        "converted/json/any": "equal",
        "converted/gbnf/any": "refused",
        "file/one.gbnf": "equal",
    }


@pytest.mark.clause("SUITE-21")
def test_an_instance_is_tried_in_every_order_of_its_keys(tmp_path: Path) -> None:
    def group(schema: Any, *tests: tuple[Any, bool]) -> dict[str, Any]:
        described = [{"description": json.dumps(data), "data": data, "valid": valid} for data, valid in tests]
        return {"description": "g", "schema": schema, "tests": described}

    pair = {"properties": {"a": {"type": "integer"}, "b": {"const": [{}]}}, "required": ["a", "b"]}
    files = {
        "json/tests/draft7/x.json": json.dumps(
            [group(pair, ({"b": [{}], "a": 1}, True), ({"b": [{}], "a": "1"}, True))]
        ),
        "json/tests/draft2020-12/y.json": json.dumps(
            [group({"enum": []}, (1, False)), group({"if": {}, "then": {}}, (2, True))]
        ),
        "json/tests/draft7/optional/format/z.json": json.dumps([group({"format": "regex"}, ("(", False))]),
    }
    assert list(outcomes(json_schemas, tmp_path, files).items()) == [
        ('draft7/optional/format/z/g/"("', "refused"),
        ('draft7/x/g/{"b": [{}], "a": 1}', "equal"),
        ('draft7/x/g/{"b": [{}], "a": "1"}', "different"),
        ("draft2020-12/y/g/1", "equal"),
        ("draft2020-12/y/g/2", "refused"),
    ]


@pytest.mark.clause("SUITE-21")
def test_another_probability_is_a_difference(tmp_path: Path) -> None:
    source = """
    test_temp({0.2f, 0.8f}, {0.0f, 1.0f}, 0.0f);
    test_temp({0.2f, 0.8f}, {0.1f, 0.9f}, 1.0f);
    test_top_k({0.2f, 0.3f, 0.5f}, {0.625f, 0.375f}, 2);
    test_penalties({0.5f, 0.5f}, {0}, {0.5f, 0.5f}, 2.0f, 0.0f, 0.0f);
    test_penalties({0.5f, 0.5f}, {0}, {0.333333f, 0.666667f}, 2.0f, 0.0f, 0.0f);
    test_penalties({0.5f, 0.5f}, {0}, {0.666667f, 0.333333f}, 2.0f, 0.0f, 0.0f);
    test_xtc({0.5f, 0.5f}, {0.5f}, 1.0f, 0.1f);
    test_sampler_queue(10, "kpm", 5, 0.7f, 0.85f);
    """
    found = outcomes(samplers, tmp_path, {f"{LLAMA}tests/test-sampling.cpp": source})
    assert found == {
        "test_temp/0": "equal",
        "test_temp/1": "different",
        "test_top_k/0": "equal",
        "test_penalties/0": "different",
        "test_penalties/1": "equal",
        "test_penalties/2": "different",
        "test_xtc/0": "refused",
        "test_sampler_queue/0": "equal",
    }
    unknown = {f"{LLAMA}tests/test-sampling.cpp": "static void test_new(float x) {}\n"}
    with pytest.raises(NotUnderstood, match="nothing is known of test_new"):
        outcomes(samplers, tmp_path, unknown)
